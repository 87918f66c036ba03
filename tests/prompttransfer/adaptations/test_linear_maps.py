"""Methods at linear maps, each formula against a value by hand or an independent solver."""

import re
from itertools import pairwise

import pytest
import torch
from test_methods import FIRST, ROWS, TASK, batch_of, moved, owners
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from toys import noise

from prompttransfer.adaptations.methods import parse_method
from tasks.errors import UserError

SITE = "roberta.encoder.layer.1.attention.self.value"


def start(text, backbone, seed=0):
    return parse_method(text).member(backbone, TASK, start="random", seed=seed)


def at_site(backbone, text, member, states, site=SITE):
    """What the member's bank makes of the map's own output."""
    module = backbone.model.get_submodule(site)
    own = parse_method(text).bank(backbone, [member]).rows(owners(0))
    return own.linear(site, states, module(states))


def tensor(member, end, site=SITE):
    return next(value for name, value in member.tensors().items() if name.endswith(f"{site}.{end}"))


def gradients(member, backbone, text, seed=0):
    """Let every parameter have a gradient that is drawn."""
    for index, parameter in enumerate(member.parameters()):
        parameter.grad = noise(*parameter.shape, seed=seed * 50 + index)


def test_lora_plus_gives_b_sixteen_times_the_rate(tiny):
    member = start("lora-plus", tiny("roberta"))
    assert member.rates() == {"out.0": 16.0}
    assert start("lora-plus:ratio=4", tiny("roberta")).rates() == {"out.0": 4.0}
    assert start("lora", tiny("roberta")).rates() == {}


def test_lora_fa_steps_along_the_nearest_gradient_of_the_product(tiny):
    """g_B solves min |s g A - G|_F, which least squares of numpy's kind finds too."""
    member, scale = start("lora-fa:rank=2", tiny("roberta")), 8.0
    into = tensor(member, "lora_A.weight")
    whole = noise(16, 16, seed=3)
    (parameter,) = member.parameters()
    parameter.grad = torch.zeros_like(parameter)
    index = list(member.groups[0]).index(SITE)
    parameter.grad[index] = scale * whole @ into.T
    member.before_step(1, 10)
    best = torch.linalg.lstsq(scale * into.T, whole.T).solution.T
    torch.testing.assert_close(parameter.grad[index], best, atol=1e-5, rtol=1e-5)


def test_the_first_version_of_lora_fa_takes_the_gradient_as_it_is(tiny):
    member = start("lora-fa:rank=2,corrected=false", tiny("roberta"))
    gradients(member, tiny("roberta"), "")
    before = [parameter.grad.clone() for parameter in member.parameters()]
    member.before_step(1, 10)
    assert all(torch.equal(p.grad, g) for p, g in zip(member.parameters(), before, strict=True))


def kept_for_backward(backbone, text):
    """Bytes of different tensors that a pass keeps."""
    member = moved(parse_method(text), backbone)
    seen = {}

    def pack(value):
        seen[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        held.append(value)
        return value

    held = []
    own = parse_method(text).bank(backbone, [member]).rows(owners(0, 0, 0))
    with saved_tensors_hooks(pack, lambda value: value):
        backbone.loss(own, batch_of(backbone, parse_method(text))).sum()
    return sum(seen.values())


def test_lora_fa_keeps_less_than_lora(tiny):
    """The states that a map reads are kept for A's gradient; of LoRA-FA's only A x is."""
    backbone = tiny("roberta")
    targets = "rank=2,targets=query+value+intermediate.dense"
    less, more = (kept_for_backward(backbone, f"{name}:{targets}") for name in ("lora-fa", "lora"))
    longest = max(row.size for row in backbone.encode(TASK, ROWS, reserved=0)) + 3
    one_layer = 4 * len(ROWS) * longest * backbone.width
    assert more - less >= 2 * one_layer


def test_delta_lora_is_a_weight_that_follows_the_changes(tiny):
    """The paper's algorithm with a weight that really changes, beside the telescoped form with one that does not."""
    backbone, text = tiny("roberta"), "delta-lora:rank=2,begin=2,ratio=0.7"
    scale, ratio, rate = parse_method(text).scale, 0.7, 0.05
    member = start(text, backbone)
    module = backbone.model.get_submodule(SITE)
    weight, bias = module.weight.detach().clone(), module.bias.detach()
    a, b = (tensor(member, f"lora_{side}.weight").requires_grad_() for side in "AB")
    for step in range(1, 6):
        given, wanted = noise(2, 3, 16, seed=step), noise(2, 3, 16, seed=50 + step)
        states, same = given.clone().requires_grad_(), given.clone().requires_grad_()
        theirs = F.linear(same, weight + scale * (b @ a), bias)
        ours = at_site(backbone, text, member, states)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        member.zero_grad()
        (ours - wanted).square().mean().backward()
        (theirs - wanted).square().mean().backward()
        torch.testing.assert_close(states.grad, same.grad, atol=1e-5, rtol=1e-5)
        member.before_step(step, 6)
        before = (b @ a).detach()
        with torch.no_grad():
            for parameter in member.parameters():
                parameter -= rate * parameter.grad
            for value in (a, b):
                value -= rate * value.grad
                value.grad = None
            if step > 2:
                weight += ratio * scale * (b @ a - before)
        member.after_step(step, 6)
    assert not torch.equal(weight, module.weight)


def test_delta_lora_is_kept_in_twice_the_rank_and_goes_on_from_there(tiny):
    backbone, method = tiny("roberta"), parse_method("delta-lora:rank=2,begin=1,ratio=0.7")
    member = moved(method, backbone)
    tensors = member.tensors()
    assert tensor(member, "lora_A.weight").shape == (4, 16)
    again = method.restored(tensors)
    assert all(torch.equal(value, tensors[name]) for name, value in again.tensors().items())
    losses = []
    for own in (member, again):
        own.zero_grad()
        backbone.loss(
            method.bank(backbone, [own]).rows(owners(0, 0, 0)), batch_of(backbone, method)
        ).sum().backward()
        losses.append([parameter.grad for parameter in own.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*losses, strict=True))


@pytest.mark.parametrize("kind", ["roberta", "t5"])
def test_dora_turns_rows_and_gives_them_their_length(tiny, kind):
    backbone, text = tiny(kind), "dora:rank=2"
    site = SITE if kind == "roberta" else "encoder.block.1.layer.0.SelfAttention.v"
    member = moved(parse_method(text), backbone)
    a, b = (tensor(member, f"lora_{side}.weight", site) for side in "AB")
    length = tensor(member, "lora_magnitude_vector", site)
    module = backbone.model.get_submodule(site)
    turned = module.weight + 8 * b @ a
    states = noise(2, 3, 16, seed=4)
    by_hand = F.linear(states, length[:, None] * turned / turned.norm(dim=1, keepdim=True), module.bias)
    torch.testing.assert_close(at_site(backbone, text, member, states, site), by_hand, atol=1e-5, rtol=1e-5)


def test_the_length_of_dora_starts_as_that_of_the_weight(tiny):
    backbone = tiny("roberta")
    weight = backbone.model.get_submodule(SITE).weight
    torch.testing.assert_close(
        tensor(start("dora", backbone), "lora_magnitude_vector"), weight.norm(dim=1), atol=1e-6, rtol=1e-6
    )


def test_vera_is_two_vectors_around_two_random_matrices(tiny):
    backbone, text = tiny("roberta"), "vera:rank=24"
    member = moved(parse_method(text), backbone)
    before, behind = (tensor(member, f"vera_lambda_{side}") for side in "db")
    into, out = (member.tensors()[f"base_model.vera_{side}"] for side in "AB")
    module = backbone.model.get_submodule(SITE)
    states = noise(2, 3, 16, seed=4)
    by_hand = F.linear(states, module.weight + behind.diag() @ out @ before.diag() @ into, module.bias)
    torch.testing.assert_close(at_site(backbone, text, member, states), by_hand, atol=1e-5, rtol=1e-5)


def test_the_random_matrices_of_vera_are_those_that_peft_draws(tiny, backbone_folder):
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForMaskedLM

    config = peft.VeraConfig(r=24, target_modules=["query", "value"], projection_prng_key=7)
    model = peft.get_peft_model(AutoModelForMaskedLM.from_pretrained(backbone_folder("roberta")), config)
    ours = start("vera:rank=24,projection=7", tiny("roberta")).tensors()
    for side in "AB":
        theirs = getattr(model.base_model, f"vera_{side}")["default"]
        torch.testing.assert_close(ours[f"base_model.vera_{side}"], theirs, atol=0, rtol=1e-6)


def test_vera_over_maps_of_different_shapes_cuts_its_matrices(tiny):
    backbone, text = tiny("roberta"), "vera:rank=8,targets=value+intermediate.dense"
    member = moved(parse_method(text), backbone)
    into, out = (member.tensors()[f"base_model.vera_{side}"] for side in "AB")
    assert (into.shape, out.shape) == ((8, 16), (32, 8))
    before, behind = (tensor(member, f"vera_lambda_{side}") for side in "db")
    states = noise(2, 3, 16, seed=4)
    by_hand = F.linear(
        states,
        backbone.model.get_submodule(SITE).weight + behind.diag() @ out[:16] @ before.diag() @ into,
        backbone.model.get_submodule(SITE).bias,
    )
    torch.testing.assert_close(at_site(backbone, text, member, states), by_hand, atol=1e-5, rtol=1e-5)


def test_members_of_vera_with_different_matrices_do_not_share_a_bank(tiny):
    backbone = tiny("roberta")
    members = [start(f"vera:rank=4,projection={seed}", backbone) for seed in (0, 1)]
    with pytest.raises(UserError, match="different random matrices cannot run together"):
        parse_method("vera:rank=4").bank(backbone, members)


def test_the_budget_of_adalora_falls_along_a_cubic():
    method = parse_method("adalora:rank=12,target=8,warmup=0.1,final=0.5")
    # 100 steps, 24 maps: 288 triplets up to step 10, 192 from step 50 on, and 192 + 96 (1 - 20/40)^3 at step 30
    assert [method.budget(step, 100, 24) for step in (1, 10, 30, 50, 100)] == [288, 288, 204, 192, 192]
    falling = [method.budget(step, 100, 24) for step in range(1, 101)]
    assert all(now >= after for now, after in pairwise(falling))


def test_the_penalty_of_adalora_is_how_far_its_factors_are_from_orthogonal(tiny):
    backbone = tiny("roberta")
    member = moved(parse_method("adalora:rank=3,target=2"), backbone)
    tensors = member.tensors()
    distances = [
        (value @ value.T if "lora_A" in name else value.T @ value) - torch.eye(3)
        for name, value in tensors.items()
        if "lora_E" not in name
    ]
    by_hand = 0.5 * sum(distance.norm() for distance in distances) / len(distances)
    torch.testing.assert_close(member.penalty(), by_hand)
    member.penalty().backward()
    assert all(p.grad is not None for name, p in member.named_parameters() if not name.startswith("values"))


def test_adalora_keeps_the_triplets_that_matter_most(tiny):
    """Two steps of smoothing by hand, then the best of all maps, as many as the budget says."""
    backbone = tiny("roberta")
    method = parse_method("adalora:rank=3,target=1,warmup=0,final=0.5,smoothing=0.6")
    member = moved(method, backbone)
    mean, spread = {}, {}
    for step in (1, 2):
        gradients(member, backbone, "", seed=step)
        for name, parameter in member.named_parameters():
            now = (parameter.detach() * parameter.grad).abs()
            mean[name] = 0.6 * mean.get(name, 0.0) + 0.4 * now
            spread[name] = 0.6 * spread.get(name, 0.0) + 0.4 * (now - mean[name]).abs()
        member.before_step(step, 4)
    score = {name: mean[name] * spread[name] for name in mean}
    wanted = {}
    for row, site in enumerate(member.groups[0]):
        for k in range(3):
            wanted[site, k] = (
                score["values.0"][row, k, 0]
                + score["into.0"][row, k].mean()
                + score["out.0"][row, :, k].mean()
            ).item()
    best = sorted(wanted, key=wanted.get, reverse=True)[: method.budget(2, 4, 4)]
    member.after_step(2, 4)
    left = {
        (site, k) for site in member.groups[0] for k in range(3) if tensor(member, "lora_E", site)[k, 0] != 0
    }
    assert left == set(best)
    assert len(left) == 4


def test_a_run_of_adalora_goes_on_from_its_state_bit_for_bit(tiny):
    backbone, method = tiny("roberta"), parse_method("adalora:rank=3,target=1,warmup=0,final=0.3")

    def train(member, steps):
        for step in steps:
            gradients(member, backbone, "", seed=step)
            member.before_step(step, 9)
            with torch.no_grad():
                for parameter in member.parameters():
                    parameter -= 0.1 * parameter.grad
            member.after_step(step, 9)
        return member

    whole = train(moved(method, backbone), range(1, 10))
    half = train(moved(method, backbone), range(1, 5))
    again = method.member(backbone, TASK, start="random", seed=8)
    again.load_state_dict(half.state_dict())
    train(again, range(5, 10))
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in again.state_dict().items())


def test_ia3_scales_what_the_second_feed_forward_map_reads(tiny):
    backbone = tiny("bert")
    member = moved(parse_method("ia3"), backbone)
    site = "bert.encoder.layer.0.output.dense"
    own = parse_method("ia3").bank(backbone, [member]).rows(owners(0))
    states = noise(2, 3, 32, seed=4)
    scale = tensor(member, "ia3_l", site)
    assert scale.shape == (1, 32)
    torch.testing.assert_close(own.before(site, states), states * scale[0], atol=1e-6, rtol=1e-6)
    assert set(own.inputs) == {f"bert.encoder.layer.{layer}.output.dense" for layer in (0, 1)}
    keys = "bert.encoder.layer.0.attention.self.key"
    given = noise(2, 3, 16, seed=5)
    torch.testing.assert_close(
        own.linear(keys, states, given), given * tensor(member, "ia3_l", keys)[:, 0], atol=1e-6, rtol=1e-6
    )


def test_bitfit_is_the_model_with_other_biases(tiny):
    """Added to the model's own, what is kept gives the scores that the bank gives."""
    backbone, method = tiny("bert"), parse_method("bitfit")
    member = moved(method, backbone)
    batch, model = batch_of(backbone, method), backbone.model
    known = {name: value.clone() for name, value in model.state_dict().items()}
    changed = {
        name.removeprefix("base_model.model.").replace("bias_change", "bias"): value
        for name, value in member.tensors().items()
    }
    with torch.no_grad():
        ours = backbone.label_scores(method.bank(backbone, [member]).rows(owners(0, 0, 0)), batch)
        model.load_state_dict({name: known[name] + value for name, value in changed.items()}, strict=False)
        logits = model(input_ids=batch.ids, attention_mask=batch.mask).logits[
            :, backbone.answer_slot(0, FIRST)
        ]
        model.load_state_dict(known)
    assert len(changed) == 12
    theirs = logits.gather(1, batch.candidates[..., 0]).log_softmax(-1)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "text", ["lora:rank=2", "dora:rank=2", "adalora:rank=3,target=2", "vera:rank=4", "ia3", "bitfit"]
)
def test_random_controls_have_the_size_of_what_was_learned(tiny, text):
    """Norms of whole tensors, of IA3 those of what the scales differ from 1 by; what is not learned stays."""
    backbone, method = tiny("roberta"), parse_method(text)
    tensors = moved(method, backbone).tensors()
    (drawn,) = method.random_like([tensors], 1, torch.Generator().manual_seed(0))
    neutral = 1.0 if text == "ia3" else 0.0
    for name, value in tensors.items():
        torch.testing.assert_close(
            (drawn[name] - neutral).norm(), (value - neutral).norm(), atol=1e-4, rtol=1e-4
        )
        stays = "magnitude" in name or name.startswith("base_model.vera")
        assert torch.equal(drawn[name], value) is stays
    assert method.restored(drawn).tensors().keys() == tensors.keys()


@pytest.mark.parametrize(
    "text", ["lora:rank=2", "dora:rank=2", "adalora:rank=3,target=2", "vera:rank=4", "ia3", "bitfit"]
)
def test_an_adaptation_of_another_model_does_not_fit(tiny, text):
    method = parse_method(text)
    tensors = moved(method, tiny("roberta")).tensors()
    method.check_fits(tiny("roberta"), tensors, "mine")
    with pytest.raises(UserError, match=r"'mine' changes the linear map roberta.*has none of that name"):
        method.check_fits(tiny("t5"), tensors, "mine")
    cut = {name: value[..., :1] if value.ndim == 1 else value[:1, :1] for name, value in tensors.items()}
    with pytest.raises(UserError, match=r"has one of \[16, 16\]"):
        method.check_fits(tiny("roberta"), cut, "mine")


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("roberta", "dora:rank=17", "dora: rank 17 is above the size of"),
        ("roberta", "adalora:rank=17", "adalora: rank 17 is above the size of"),
        ("roberta", "lora-fa:targets=quary", "'quary': did you mean 'query'? available: dense, key"),
        ("roberta", "vera:targets=quary", "'quary': did you mean 'query'? available: dense, key"),
        ("t5", "adalora:targets=query", "unknown linear map of"),
        ("t5", "bitfit", "(t5) have none: use ia3 or lora"),
    ],
)
def test_what_a_backbone_lacks_is_one_line(tiny, kind, text, message):
    with pytest.raises(UserError, match=re.escape(message)):
        start(text, tiny(kind))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lora-plus:ratio=0", "lora-plus: ratio 0.0: it must be a number above 0, such as 16"),
        ("delta-lora:begin=-1", "delta-lora: begin -1: it must be a number of steps"),
        ("adalora:target=13", "adalora: target 13 of rank 12: the target is at least 1 and at most the rank"),
        ("adalora:warmup=0.6", "adalora: warmup 0.6 and final 0.5: shares of the steps, together below 1"),
        ("vera:initial=0", "vera: initial 0.0: it must be a number other than 0"),
        ("dora:alpha=0", "dora: alpha 0.0: it must be a number above 0, such as 16"),
        ("ia3:rank=3", "ia3"),
    ],
)
def test_a_wrong_setting_is_one_line(text, message):
    with pytest.raises(UserError, match=re.escape(message)):
        parse_method(text)


@pytest.mark.parametrize("name", ["lora", "dora", "adalora", "vera", "ia3", "bitfit", "delta-lora"])
def test_an_artifact_of_another_method_is_told_from_ones_own(tiny, name):
    other = "ia3" if name != "ia3" else "lora"
    tensors = start(other, tiny("roberta")).tensors()
    with pytest.raises(UserError, match=f"{name}"):
        parse_method(name).restored(tensors)
