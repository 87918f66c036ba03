"""Every method on every family: who gets a gradient, what runs together, what is kept, what peft makes of it."""

import json
import re
from dataclasses import replace

import pytest
import torch
from conftest import DECODERS, KINDS
from method_texts import LACKS, TEXTS
from safetensors.torch import save_file
from toys import label_task, noise, question_task, sentences
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from prompttransfer.adaptations.bank import BareBank
from prompttransfer.adaptations.methods import METHODS, parse_method
from prompttransfer.adaptations.starts import RANDOM
from prompttransfer.backbones.interventions import BARE
from prompttransfer.backbones.layouts import LAYOUTS
from tasks.errors import UserError
from tasks.task import Example

FIRST = LAYOUTS["prompt-first"]
TASK = label_task()
ROWS = (
    Example("the film was dull and the room was very cold", label=0),
    Example("the room was very bright", label=1),
    Example("fresh", label=1),
)
CHANGES_AT_ONCE = (
    *("residual", "ulpt", "dept", "mpt", "attempt", "dtvg", "particles", "bmtpt"),
    *("prompt", "p-tuning", "prefix", "p-tuning-v2", "houlsby", "pfeiffer", "probe"),
    *("text", "text-search", "in-context"),
)
"""Methods that are not the bare model at their start."""
SEEDLESS = ("probe", "vera", "ia3", "bitfit", "text", "full")
"""Methods that start the same whatever the seed."""
PREFIXES = ("prefix", "p-tuning-v2")
"""Methods that put keys and values in front of an attention's own."""
IN_PEFT = {
    *(
        (name, family)
        for name in (
            *("residual", "ulpt", "mpt", "dtvg", "particles", "bmtpt"),
            *("prompt", "p-tuning", "text", "text-search", "in-context"),
            *("lora", "lora-plus", "lora-fa", "dora", "adalora", "vera", "ia3"),
        )
        for family in ("masked-lm", "t5", "causal-lm")
    ),
    *((name, family) for name in ("prefix", "p-tuning-v2") for family in ("masked-lm", "causal-lm")),
}
"""Methods and families that peft has; it gives a T5 prefixes in its decoder's self-attention alone."""
ALL = (*KINDS, "llama", "gpt2")
CASES = [
    (kind, text) for kind in ALL for name in METHODS for text in TEXTS[name] if (kind, name) not in LACKS
]
TRAINED = [(kind, text) for kind, text in CASES if parse_method(text).trains]


def batch_of(backbone, method, rows=ROWS, task=TASK):
    encoded = backbone.encode(task, rows, reserved=method.reserved)
    return backbone.batch(encoded, layout=FIRST)


def moved(method, backbone, *, seed=0, by=0.2):
    """A member that is no longer at its start, where a LoRA does nothing; Delta-LoRA has begun in between."""
    member = started(method, backbone, seed)
    for round_number in (1, 2):
        with torch.no_grad():
            for index, parameter in enumerate(member.parameters()):
                parameter += by * noise(*parameter.shape, seed=100 * seed + 10 * round_number + index)
        member.before_step(round_number, 2)
    return member


def started(method, backbone, seed):
    return method.started(backbone, TASK, RANDOM, seed=seed, rows=(*ROWS, *sentences()))


def owners(*numbers):
    return torch.tensor(numbers)


@pytest.mark.parametrize(("kind", "text"), TRAINED)
def test_only_the_member_of_a_row_gets_its_gradient(tiny, kind, text):
    backbone, method = tiny(kind), parse_method(text)
    members = [moved(method, backbone, seed=seed) for seed in (0, 1)]
    before = backbone.digest()
    own = method.bank(backbone, members).rows(owners(0, 0, 0))
    backbone.loss(own, batch_of(backbone, method)).sum().backward()
    first, second = ([p.grad for p in member.parameters()] for member in members)
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in first)
    assert all(gradient is None or gradient.abs().sum() == 0 for gradient in second)
    assert all(parameter.grad is None for parameter in backbone.model.parameters())
    assert backbone.digest() == before


@pytest.mark.parametrize(("kind", "text"), CASES)
def test_members_together_are_members_alone(tiny, kind, text):
    backbone, method = tiny(kind), parse_method(text)
    members = [moved(method, backbone, seed=seed) for seed in (0, 1)]
    with torch.no_grad():
        together = backbone.loss(
            method.bank(backbone, members).rows(owners(1, 0, 1)), batch_of(backbone, method)
        )
        for row, owner in enumerate((1, 0, 1)):
            alone = backbone.loss(
                method.bank(backbone, [members[owner]]).rows(owners(0)),
                batch_of(backbone, method, ROWS[row : row + 1]),
            )
            torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "text"), TRAINED)
def test_the_modules_of_transformers_agree_with_the_frozen_layers(tiny, kind, text):
    backbone, method = tiny(kind), parse_method(text)
    members = [moved(method, backbone, seed=seed) for seed in (0, 1)]

    def run(backbone):
        own = method.bank(backbone, members).rows(owners(1, 0, 1))
        loss = backbone.loss(own, batch_of(backbone, method))
        gradients = torch.autograd.grad(
            loss.sum(), [p for m in members for p in m.parameters()], allow_unused=True
        )
        return loss.detach(), [torch.zeros(1) if g is None else g for g in gradients]

    loss, gradients = run(backbone)
    theirs, others = run(tiny(kind, engine="plain"))
    torch.testing.assert_close(loss, theirs, atol=1e-5, rtol=1e-5)
    for ours, other in zip(gradients, others, strict=True):
        assert (ours - other).norm() <= 1e-4 * other.norm() + 1e-5


def loss_and_gradients(backbone, method, by=0.2):
    members = [moved(method, backbone, seed=seed, by=by) for seed in (0, 1)]
    loss = backbone.loss(method.bank(backbone, members).rows(owners(1, 0, 1)), batch_of(backbone, method))
    loss.sum().backward()
    return loss.detach(), [p.grad for member in members for p in member.parameters() if p.grad is not None]


@pytest.mark.parametrize(("kind", "text"), TRAINED)
def test_computing_inner_values_again_changes_no_gradient(tiny, kind, text):
    backbone, method = tiny(kind), parse_method(text)
    loss, kept = loss_and_gradients(backbone, method)
    backbone.checkpoints = True
    try:
        same, again = loss_and_gradients(backbone, method)
    finally:
        backbone.checkpoints = False
    assert torch.equal(loss, same) and all(map(torch.equal, kept, again))


@pytest.mark.parametrize(
    ("kind", "text"), [case for case in TRAINED if case[1].partition(":")[0] not in PREFIXES]
)
def test_computing_inner_values_again_changes_no_gradient_of_the_modules_either(tiny, kind, text):
    backbone, method = tiny(kind, engine="plain"), parse_method(text)
    loss, kept = loss_and_gradients(backbone, method)
    backbone.checkpoints = True
    try:
        same, again = loss_and_gradients(backbone, method)
        own = method.bank(backbone, [method.member(backbone, TASK, start="random", seed=0)]).rows(
            owners(0, 0, 0)
        )
        saved = kept_for_the_backward_pass(backbone, own, batch_of(backbone, method))
    finally:
        backbone.checkpoints = False
    assert torch.equal(loss, same) and all(map(torch.equal, kept, again))
    assert (
        saved < kept_for_the_backward_pass(backbone, own, batch_of(backbone, method))
        or method.name == "probe"
    )


def kept_for_the_backward_pass(backbone, own, batch):
    """How many tensors."""
    found = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: found.append(tensor) or tensor, lambda t: t):
        backbone.loss(own, batch)
    return len(found)


def test_prefixes_are_not_computed_again_by_modules(tiny):
    backbone, method = tiny("t5", engine="plain"), parse_method("p-tuning-v2:length=3")
    backbone.checkpoints = True
    try:
        with pytest.raises(UserError, match="--checkpoint-activations on engine 'plain' is not for prefixes"):
            loss_and_gradients(backbone, method)
    finally:
        backbone.checkpoints = False


@pytest.mark.parametrize(("kind", "text"), TRAINED)
@pytest.mark.parametrize("engine", ["frozen", "plain"])
def test_a_member_of_float32_trains_on_a_backbone_in_bf16(tiny, kind, text, engine):
    method = parse_method(text)
    loss, gradients = loss_and_gradients(tiny(kind, "bf16", engine=engine), method, by=0.05)
    exact, _ = loss_and_gradients(tiny(kind), method, by=0.05)
    torch.testing.assert_close(loss, exact, atol=0.1, rtol=0.1)
    assert all(gradient.dtype is torch.float32 and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize(("kind", "text"), CASES)
def test_what_is_kept_runs_as_what_was_trained(tiny, kind, text):
    backbone, method = tiny(kind), parse_method(text)
    member = moved(method, backbone)
    again = method.restored(member.tensors())
    with torch.no_grad():
        losses = [
            backbone.loss(method.bank(backbone, [m]).rows(owners(0, 0, 0)), batch_of(backbone, method))
            for m in (member, again)
        ]
    torch.testing.assert_close(
        *losses, atol=1e-6, rtol=1e-6
    )  # an LSTM rounds otherwise where nothing is trained
    assert all(torch.equal(again.tensors()[name], value) for name, value in member.tensors().items())


@pytest.mark.parametrize(("kind", "text"), CASES)
def test_the_same_seed_gives_the_same_start(tiny, kind, text):
    method = parse_method(text)
    first, again, other = (started(method, tiny(kind), seed).tensors() for seed in (3, 3, 4))
    assert all(torch.equal(again[name], value) for name, value in first.items())
    assert all(torch.equal(other[name], value) for name, value in first.items()) == (method.name in SEEDLESS)


@pytest.mark.parametrize(
    ("kind", "text"), [(k, t) for k, t in CASES if t.partition(":")[0] not in CHANGES_AT_ONCE]
)
def test_what_changes_linear_maps_starts_as_the_bare_model(tiny, kind, text):
    backbone, method = tiny(kind), parse_method(text)
    member = method.member(backbone, TASK, start="random", seed=0)
    batch = batch_of(backbone, method)
    with torch.no_grad():
        own = backbone.label_scores(method.bank(backbone, [member]).rows(owners(0, 0, 0)), batch)
        bare = backbone.label_scores(BARE, batch)
        assert torch.equal(bare, backbone.label_scores(BareBank().rows(owners(0, 0, 0)), batch))
    torch.testing.assert_close(own, bare, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", ["t5", "t5-v1.1"])
@pytest.mark.parametrize("engine", ["frozen", "plain"])
@pytest.mark.parametrize(
    "text", ["lora:rank=2", "prefix:length=3,hidden=8", "houlsby:bottleneck=4", "prompt:length=3"]
)
def test_what_is_written_is_what_the_loss_was_trained_on(tiny, kind, engine, text):
    """Greedy writing from a cache meets a member everywhere: each next word is the one of the smallest loss."""
    backbone, method = tiny(kind, engine=engine), parse_method(text)
    bank, question = method.bank(backbone, [moved(method, backbone)]), question_task()
    rows = [Example("film", "the film was dull", references=("dull",))]
    one, words = batch_of(backbone, method, rows, question), len(backbone.tokenizer)
    everyone = batch_of(backbone, method, rows * words, question)
    chosen = torch.zeros(0, dtype=torch.long)
    with torch.no_grad():
        for _ in range(4):
            targets = torch.cat([chosen.expand(words, -1), torch.arange(words)[:, None]], dim=1)
            losses = backbone.loss(
                bank.rows(torch.zeros(words, dtype=torch.long)), replace(everyone, targets=targets)
            )
            chosen = torch.cat([chosen, losses.argmin()[None]])
            if chosen[-1] == backbone.tokenizer.eos_token_id:
                break
        written = backbone.generate(bank.rows(owners(0)), one, max_new_tokens=4)[0]
    assert written == backbone.tokenizer.decode(chosen, skip_special_tokens=True).strip()


@pytest.mark.parametrize(("kind", "text"), [case for case in CASES if case[0].startswith("t5")])
def test_labels_of_several_words_meet_each_row_s_member(tiny, kind, text):
    method, task = parse_method(text), label_task(negative="so-so", positive="great")

    def scores(engine, chosen, rows):
        backbone = tiny(kind, engine=engine)
        bank = method.bank(backbone, [moved(method, backbone, seed=seed) for seed in chosen])
        batch = batch_of(backbone, method, rows, task)
        assert batch.candidates.shape[2] == 3
        with torch.no_grad():
            return backbone.label_scores(bank.rows(torch.arange(len(chosen))), batch)

    together = scores("frozen", [1, 0], ROWS[:2])
    torch.testing.assert_close(scores("plain", [1, 0], ROWS[:2]), together, atol=1e-5, rtol=1e-5)
    for row, seed in enumerate([1, 0]):
        alone = scores("frozen", [seed], ROWS[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def peft_model(folder, kind, backbone_folder, *, trains=False):
    peft = pytest.importorskip("peft")
    auto = {"t5": AutoModelForSeq2SeqLM, "causal-lm": AutoModelForCausalLM}.get(
        family_of(kind), AutoModelForMaskedLM
    )
    model = auto.from_pretrained(backbone_folder(kind))
    return peft.PeftModel.from_pretrained(model, folder, is_trainable=trains).eval()


def family_of(kind):
    return "t5" if kind.startswith("t5") else "causal-lm" if kind in DECODERS else "masked-lm"


def label_logits(model, kind, batch, length):
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
    if kind.startswith("t5"):
        starts = torch.zeros(batch.rows, 1, dtype=torch.long)
        logits = model(**inputs, decoder_input_ids=starts).logits[:, 0]
    elif kind in DECODERS:
        last = length + batch.mask.sum(dim=1) - 1
        logits = model(**inputs).logits[torch.arange(batch.rows), last]
    else:
        logits = model(**inputs).logits[:, length + 1]
    return logits.gather(1, batch.candidates[..., 0])


def write(method, member, folder, kind):
    folder.mkdir()
    tensors = member.tensors()
    save_file(tensors, folder / "adapter_model.safetensors")
    family = family_of(kind)
    task_type = {"t5": "SEQ_2_SEQ_LM", "causal-lm": "CAUSAL_LM", "masked-lm": "FEATURE_EXTRACTION"}[family]
    config = method.peft_config(family=family, tensors=tensors)
    config |= {"task_type": task_type, "base_model_name_or_path": kind, "inference_mode": True}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(("kind", "text"), CASES)
def test_peft_gives_the_same_scores(tiny, backbone_folder, tmp_path, kind, text):
    backbone, method = tiny(kind), parse_method(text)
    member = moved(method, backbone)
    if method.peft_config(family=backbone.family, tensors=member.tensors()) is None:
        assert (method.name, backbone.family) not in IN_PEFT
        return
    model = peft_model(write(method, member, tmp_path / "a", kind), kind, backbone_folder)
    for row in ROWS:  # one at a time: peft numbers no positions of its own behind padding
        batch = batch_of(backbone, method, [row])
        own = method.bank(backbone, [member])
        with torch.no_grad():
            ours = backbone.label_scores(own.rows(owners(0)), batch)
            theirs = label_logits(model, kind, batch, own.rows(owners(0)).reserved).log_softmax(-1)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def steps(parameters, loss):
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0)
    for _ in range(20):
        optimizer.zero_grad()
        loss().mean().backward()
        optimizer.step()


def check_twenty_steps(backbone, kind, method, member, model):
    """Ours and peft's `model`, from the same start on the same rows."""
    batch = batch_of(backbone, method)

    def ours():
        return backbone.label_scores(method.bank(backbone, [member]).rows(owners(0, 0, 0)), batch)

    def theirs():
        return label_logits(model, kind, batch, 0).log_softmax(-1)

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    steps(list(member.parameters()), lambda: torch.nn.functional.nll_loss(ours(), batch.labels))
    steps(trained, lambda: torch.nn.functional.nll_loss(theirs(), batch.labels))
    with torch.no_grad():
        torch.testing.assert_close(ours(), theirs(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (kind, text)
        for kind in ALL
        for text in ("lora:rank=2", "dora:rank=2", "vera:rank=8", "ia3")
        if (kind, text) not in LACKS
    ],
)
def test_twenty_steps_are_those_of_peft(tiny, backbone_folder, tmp_path, kind, text):
    backbone, method = tiny(kind), parse_method(text)
    member = method.member(backbone, TASK, start="random", seed=1)
    model = peft_model(write(method, member, tmp_path / "a", kind), kind, backbone_folder, trains=True)
    check_twenty_steps(backbone, kind, method, member, model)
    learned = {
        name.replace(".default", "").replace("magnitude_vector.weight", "magnitude_vector"): value
        for name, value in model.state_dict().items()
        if re.search("lora_|vera_|ia3_", name)
    }
    for name, value in member.tensors().items():
        if re.search(r"decoder\.block.*layer\.0\.SelfAttention\.[qk]", name) or ".self.key." in name:
            continue  # over the one token of the first step its gradient is zero but for rounding
        torch.testing.assert_close(value, learned[name], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", ["roberta", "bert"])
@pytest.mark.parametrize("text", ["p-tuning-v2:length=3", "prefix:length=3,hidden=8"])
def test_twenty_steps_of_a_prefix_are_those_of_peft(tiny, backbone_folder, kind, text):
    peft = pytest.importorskip("peft")
    backbone, method = tiny(kind), parse_method(text)
    member = method.member(backbone, TASK, start="random", seed=1)
    config = peft.PrefixTuningConfig(
        task_type="FEATURE_EXTRACTION",
        num_virtual_tokens=3,
        prefix_projection=method.name == "prefix",
        encoder_hidden_size=8,
    )
    model = peft.get_peft_model(AutoModelForMaskedLM.from_pretrained(backbone_folder(kind)), config).eval()
    encoder = model.prompt_encoder["default"]
    with torch.no_grad():  # peft's own parts, in peft's order
        for into, value in zip(encoder.parameters(), member.parameters(), strict=True):
            into.copy_(value)
    check_twenty_steps(backbone, kind, method, member, model)


def test_p_tuning_starts_to_train_on_from_its_encoder(tiny):
    method = parse_method("p-tuning:length=3,hidden=8")
    member = moved(method, tiny("roberta"))
    assert any(name.startswith("lstm") for name in member.encoder())
    assert parse_method("prompt").member(tiny("roberta"), TASK, start="random", seed=0).encoder() == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lorra", "unknown method 'lorra': did you mean 'lora'?"),
        ("lora:rnak=3", "unknown setting of method lora 'rnak': did you mean 'rank'?"),
        ("lora:rank=x", "lora: rank is 'x': it must be a whole number, such as 8"),
        ("lora:rank=0", "lora: rank 0: it must be at least 1"),
        ("lora:rank=2,rank=4", "rank is given twice: keep one"),
        (
            "attempt:attention_width=2,attention-width=3",
            "attention_width and attention-width are one setting: keep one",
        ),
        ("lora:rank", "'rank' is no setting: write setting=value, as in lora:rank=8"),
        ("p-tuning:encoder=gru", "unknown encoder of p-tuning 'gru'"),
        ("prompt:length=0", "prompt: length 0: a prompt has at least 1 vector"),
    ],
)
def test_a_wrong_method_is_one_line(text, message):
    with pytest.raises(UserError, match=re.escape(message)):
        parse_method(text)


def test_a_target_that_names_no_linear_map_is_told_with_those_there_are(tiny):
    with pytest.raises(
        UserError, match=r"unknown linear map of .*'quary': did you mean 'query'\? available: dense, key"
    ):
        parse_method("lora:targets=quary").member(tiny("roberta"), TASK, start="random", seed=0)
    with pytest.raises(UserError, match=r"rank 17 is above the size of .*: use a rank of at most 16"):
        parse_method("lora:rank=17").member(tiny("roberta"), TASK, start="random", seed=0)


def test_a_method_is_spelled_as_it_is_read():
    for text in ("lora", "lora:rank=4,targets=query+key", "p-tuning:length=5,encoder=mlp"):
        assert str(parse_method(text)) == text
        assert parse_method(str(parse_method(text))) == parse_method(text)
