"""Prompts of later papers: each formula against one made of other parts, and what is particular to each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from method_texts import TEXTS
from safetensors.torch import load_file, save_file
from torch import nn
from toys import label_task, noise, recipe, splits

from prompttransfer.adaptations.adaptation import PROMPT_KEY, same_tensors
from prompttransfer.adaptations.artifacts import load_adaptation, save_adaptation
from prompttransfer.adaptations.exchange import export_prompts
from prompttransfer.adaptations.methods import parse_method
from prompttransfer.adaptations.peft_folders import read_config
from prompttransfer.adaptations.starts import From, Mixture
from prompttransfer.backbones.layouts import LAYOUTS, Encoding
from prompttransfer.evaluation.attention import attention_weights, mixed_prompts
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.training.train import Job, TrainingOptions, train_adaptations
from tasks.errors import UserError
from tasks.task import Example

TASK = label_task()
ROWS = (Example("the film was dull and the room was very cold", label=0), Example("fresh", label=1))


def member_of(backbone, text, seed=0, start="random"):
    return parse_method(text).member(backbone, TASK, start=start, seed=seed)


def stirred(member, by=0.3):
    with torch.no_grad():
        for index, parameter in enumerate(member.parameters()):
            parameter += by * noise(*parameter.shape, seed=index)
    return member


def batch_of(backbone, method, rows=ROWS):
    return backbone.batch(
        backbone.encode(TASK, rows, reserved=method.reserved), layout=LAYOUTS["prompt-first"]
    )


def vectors(member):
    return member.tensors()[PROMPT_KEY]


def perceptron(member, group, norm):
    """The MLP of one group of vectors, of torch's own modules."""
    into, out = member.down[group], member.up[group]
    made = nn.Sequential(nn.Linear(*into.shape), nn.ReLU(), nn.Linear(*out.shape))
    values = [into.T, member.down_bias[group, 0], out.T, member.up_bias[group, 0]]
    if norm:
        made.append(nn.LayerNorm(out.shape[1]))
        values += [member.scale[group, 0], member.shift[group, 0]]
    with torch.no_grad():
        for parameter, value in zip(made.parameters(), values, strict=True):
            parameter.copy_(value)
    return made


@pytest.mark.parametrize("text", TEXTS["residual"])
def test_a_residual_prompt_is_its_vectors_plus_an_mlp_of_them(tiny, text):
    method = parse_method(text)
    member = stirred(member_of(tiny("roberta"), text))
    expected = [
        vector + perceptron(member, place if method.separate else 0, method.norm)(vector)
        for place, vector in enumerate(member.prompt)
    ]
    torch.testing.assert_close(vectors(member), torch.stack(expected).detach())


def test_the_mlp_of_a_residual_prompt_has_a_rate_of_its_own(tiny):
    member = member_of(tiny("roberta"), "residual:length=3,ratio=0.25")
    assert {name: rate for name, rate in member.rates().items() if rate != 0.25} == {}
    assert {name for name, _ in member.named_parameters()} - member.rates().keys() == {"prompt"}


@pytest.mark.parametrize("text", TEXTS["residual"])
def test_a_residual_prompt_goes_on_from_a_plain_one_as_it_is(tiny, text):
    backbone = tiny("roberta")
    plain = vectors(member_of(backbone, "prompt:length=3", seed=4))
    member = parse_method(text).started(backbone, TASK, From({PROMPT_KEY: plain}, "from:plain"), seed=0)
    assert torch.equal(vectors(member), plain)
    with pytest.raises(UserError, match=r"from:short is \[2, 16\], but \[3, 16\] is needed"):
        parse_method(text).started(backbone, TASK, From({PROMPT_KEY: plain[:2]}, "from:short"), seed=0)


def test_a_low_dimensional_prompt_is_diag_s_p_z_plus_b(tiny):
    member = stirred(member_of(tiny("roberta"), "ulpt:length=3,rank=4,basis=7"))
    matrix = np.random.RandomState(7).standard_normal((4, 16)).astype(np.float32)
    latent, scale, shift = (getattr(member, name).detach().numpy() for name in ("latent", "scale", "shift"))
    expected = np.stack([np.diag(scale) @ matrix.T @ z + shift for z in latent])
    np.testing.assert_allclose(vectors(member).numpy(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(member.vectors().detach(), vectors(member))


def test_a_low_dimensional_prompt_starts_with_the_deviation_of_a_random_one(tiny):
    own, plain = (vectors(member_of(tiny("roberta"), f"{m}:length=60")) for m in ("ulpt", "prompt"))
    assert own.std() == pytest.approx(float(plain.std()), rel=0.25)
    with pytest.raises(UserError, match=r"start 'vocabulary': the vectors of ulpt cannot be chosen"):
        member_of(tiny("roberta"), "ulpt:length=3", start="vocabulary")


@pytest.fixture(scope="module")
def low(tiny):
    """A trained one."""
    jobs = [Job(TASK, splits(), 0)]
    return train_adaptations(tiny("roberta"), jobs, recipe(), method=parse_method("ulpt:length=3,rank=4"))[
        0
    ].adaptation


def test_a_low_dimensional_prompt_is_kept_as_its_numbers(low, tmp_path):
    folder = save_adaptation(low, tmp_path / "a")
    shapes = {
        name: tuple(value.shape) for name, value in load_file(folder / "adapter_model.safetensors").items()
    }
    assert shapes == {"latent": (3, 4), "scale": (16,), "shift": (16,)}
    assert not (folder / "adapter_config.json").exists() and not (folder / "encoder.safetensors").exists()
    again = load_adaptation(folder)
    assert same_tensors(again.tensors, low.tensors) and same_tensors(again.initial, low.initial)
    assert not same_tensors(again.tensors, again.initial)


def test_a_low_dimensional_prompt_is_exported_as_a_plain_one(low, tmp_path):
    export_prompts([low], tmp_path / "peft", "peft", overwrite=False)
    assert read_config(tmp_path / "peft")["peft_type"] == "PROMPT_TUNING"
    assert torch.equal(load_file(tmp_path / "peft" / "adapter_model.safetensors")[PROMPT_KEY], low.vectors)


def test_a_low_dimensional_prompt_with_another_matrix_or_number_is_noticed(low, tmp_path):
    folder = save_adaptation(low, tmp_path / "a")
    record = folder / "adaptation.json"
    record.write_text(record.read_text().replace('"basis": 0', '"basis": 1'))
    with pytest.raises(UserError, match="or its vectors are made otherwise here"):
        load_adaptation(folder)
    record.write_text(
        record.read_text().replace('"basis": 1', '"basis": 0').replace('"rank": 4', '"rank": 5')
    )
    with pytest.raises(UserError, match="ulpt holds latent, scale, shift of rank 5, not what is there"):
        load_adaptation(folder)
    save_file({"latent": torch.zeros(3, 5)}, folder / "adapter_model.safetensors")
    with pytest.raises(UserError, match="ulpt holds latent, scale, shift of rank 5"):
        load_adaptation(folder)


@pytest.mark.parametrize("engine", ["frozen", "plain"])
def test_dept_gives_a_t5_what_transformers_makes_of_its_embeddings(tiny, engine):
    method, backbone = parse_method("dept:length=3,rank=4,positions=32,alpha=3"), tiny("t5", engine=engine)
    member = stirred(member_of(backbone, str(method)))
    short, into, out = (member.tensors()[name] for name in ("short_prompt", "position_a", "position_b"))
    batch = batch_of(backbone, method)
    words = backbone.model.shared(batch.ids) + (3 / 4**0.5 * into @ out)[: batch.ids.shape[1]]
    with torch.no_grad():
        rows = method.bank(backbone, [member]).rows(torch.zeros(batch.rows, dtype=torch.long))
        logits = backbone.model(
            inputs_embeds=torch.cat([short.expand(batch.rows, -1, -1), words], dim=1),
            attention_mask=torch.nn.functional.pad(batch.mask, (3, 0), value=1),
            decoder_input_ids=torch.zeros(batch.rows, 1, dtype=torch.long),
        ).logits[:, 0]
        expected = logits.gather(1, batch.candidates[..., 0]).log_softmax(-1)
        torch.testing.assert_close(backbone.label_scores(rows, batch), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["roberta", "gpt2"])
@pytest.mark.parametrize("engine", ["frozen", "plain"])
def test_dept_adds_its_moves_to_the_words_at_their_positions(tiny, kind, engine):
    """The same rows through a model whose word embeddings are moved by a hook."""
    method, backbone = parse_method("dept:length=3,rank=4,positions=32,alpha=3"), tiny(kind, engine=engine)
    member = stirred(member_of(backbone, str(method)))
    short, into, out = (member.tensors()[name] for name in ("short_prompt", "position_a", "position_b"))
    moves = 3 / 4**0.5 * into @ out
    batch = batch_of(backbone, method)
    one_each = torch.zeros(batch.rows, dtype=torch.long)
    plain = parse_method("prompt:length=3")
    bank = plain.bank(backbone, [plain.restored({PROMPT_KEY: short})])

    def moved(module, inputs, output):
        return output + moves[: output.shape[1]] if inputs[0].shape == batch.ids.shape else output

    with torch.no_grad():
        own = backbone.label_scores(method.bank(backbone, [member]).rows(one_each), batch)
        unmoved = backbone.label_scores(bank.rows(one_each), batch)
        table = backbone.word_embeddings
        hook = table.register_forward_hook(moved)
        try:
            with backbone.on("plain"):
                expected = backbone.label_scores(bank.rows(one_each), batch)
        finally:
            hook.remove()
    torch.testing.assert_close(own, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(own, unmoved, atol=1e-3)


def test_dept_goes_on_from_a_plain_prompt_as_it_is(tiny):
    backbone, method = tiny("roberta"), parse_method("dept:length=3,rank=4,positions=32")
    plain = parse_method("prompt:length=3").member(backbone, TASK, start="random", seed=4)
    start = From(plain.tensors(), "from:plain")
    batch, rows = batch_of(backbone, method), torch.zeros(len(ROWS), dtype=torch.long)
    with torch.no_grad():
        scores = [
            backbone.label_scores(way.bank(backbone, [member]).rows(rows), batch)
            for way, member in (
                (method, method.started(backbone, TASK, start, seed=0)),
                (parse_method("prompt:length=3"), plain),
            )
        ]
    assert torch.equal(*scores)
    with pytest.raises(UserError, match=r"from:plain is \[3, 16\], but \[2, 16\] is needed"):
        parse_method("dept:length=2").started(backbone, TASK, start, seed=0)


def test_a_text_longer_than_the_positions_of_dept_is_one_line(tiny):
    with pytest.raises(
        UserError, match=r"dept takes 4 tokens, but a row has \d+: give positions=\d+ or more"
    ):
        train_adaptations(
            tiny("roberta"),
            [Job(TASK, splits(), 0)],
            recipe(),
            method=parse_method("dept:length=3,positions=4"),
        )
    method = parse_method("dept:length=3,positions=4")
    bank = method.bank(tiny("roberta"), [member_of(tiny("roberta"), str(method))])
    with pytest.raises(
        UserError, match=r"dept takes 4 tokens, but a row has \d+: give a shorter --max-length"
    ):
        tiny("roberta").loss(
            bank.rows(torch.zeros(len(ROWS), dtype=torch.long)), batch_of(tiny("roberta"), method)
        )


def test_a_multitask_prompt_is_the_shared_one_times_the_product_of_a_task(tiny):
    member = stirred(member_of(tiny("roberta"), "mpt:length=3,rank=2"))
    by_hand = [
        [
            sum(member.rows[i, k] * member.columns[k, j] for k in range(2)).item()
            * member.shared[i, j].item()
            for j in range(16)
        ]
        for i in range(3)
    ]
    torch.testing.assert_close(vectors(member), torch.tensor(by_hand))


def test_a_multitask_prompt_starts_near_the_start_of_a_prompt(tiny):
    own, plain = (vectors(member_of(tiny("roberta"), f"{m}:length=3")) for m in ("mpt", "prompt"))
    torch.testing.assert_close(own, plain, atol=0, rtol=0.15)


@pytest.fixture(scope="module")
def two_tasks(tiny):
    """Multitask prompts of two tasks, trained together, and what their bank looked like at each step."""
    tasks = (label_task(name="one"), label_task(name="two", negative="bad", positive="good"))
    seen = []

    class Look:
        def evaluated(self, bank):
            pass

        def step(self, bank):
            first, second = bank.members
            seen.append((first.shared is second.shared, first.rows is second.rows, bank.together))

    runs = train_adaptations(
        tiny("roberta"),
        [Job(task, splits(), 0) for task in tasks],
        recipe(),
        method=parse_method("mpt:length=3"),
        options=TrainingOptions(progress=Look()),
    )
    return [run.adaptation for run in runs], seen


def test_tasks_that_are_trained_together_have_one_shared_prompt_and_parts_of_their_own(two_tasks):
    (first, second), seen = two_tasks
    assert seen and all(each == (True, False, [frozenset({0, 1})] * 2) for each in seen)
    assert first.origin.recipe["shared_by"] == ["one", "two"]
    assert first.encoder.keys() == second.encoder.keys() == {"shared", "rows", "columns"}


def test_the_mean_of_multitask_prompts_is_the_shared_one_times_the_mean_of_the_parts(tiny, two_tasks):
    shared = two_tasks[0][0].encoder["shared"]
    parts = [own.encoder["rows"] @ own.encoder["columns"] for own in two_tasks[0]]
    kept = tuple(From({PROMPT_KEY: shared * part}, f"from:{place}") for place, part in enumerate(parts))
    member = parse_method("mpt:length=3").started(tiny("roberta"), TASK, Mixture(kept, (0.5, 0.5)), seed=0)
    torch.testing.assert_close(vectors(member), shared * (parts[0] + parts[1]) / 2)
    with pytest.raises(
        UserError, match=r"mpt: rank 2 with mixture:.*: parts that are all 1 would stay alike"
    ):
        parse_method("mpt:length=3,rank=2").started(tiny("roberta"), TASK, Mixture(kept, (0.5, 0.5)), seed=0)


ATTEMPT = "attempt:length=3,hidden=4,sources=random:2,temperature=1.5"


@pytest.mark.parametrize("kind", ["roberta", "t5", "gpt2"])
def test_attempt_puts_in_front_of_each_row_the_mixture_of_its_formula(tiny, kind):
    backbone, method = tiny(kind), parse_method(ATTEMPT)
    members = [stirred(member_of(backbone, ATTEMPT, seed=seed)) for seed in (0, 1)]
    batch, given = batch_of(backbone, method), torch.tensor([1, 0])
    vectors = []
    for row, owner in enumerate(given):
        own = members[owner]
        embedded = backbone.word_embeddings(batch.ids[row, : int(batch.mask[row].sum())])
        asked = own.up @ nn.functional.silu(own.down @ embedded.max(dim=0).values)
        norm = nn.LayerNorm(16)
        norm.weight, norm.bias = own.norm_scale, own.norm_shift
        prompts = [*own.sources, own.target]
        scores = [float((prompt.max(dim=0).values @ norm(asked)).detach()) / 1.5 for prompt in prompts]
        weights = torch.tensor(scores).softmax(dim=0)
        vectors.append(own.target + sum(a * prompt for a, prompt in zip(weights, prompts, strict=True)))
    with torch.no_grad():
        expected = backbone.label_scores(torch.stack(vectors).detach(), batch)
        found = backbone.label_scores(method.bank(backbone, members).rows(given), batch)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_tasks_that_share_the_attention_of_attempt_keep_their_own_prompts(tiny):
    method = parse_method(f"{ATTEMPT},shared=true")
    first, second, other = (member_of(tiny("roberta"), str(method), seed=seed) for seed in (0, 0, 1))
    method.join([first, second, other], [0.1, 0.1, 0.1])
    assert first.down is second.down and first.target is not second.target and first.down is not other.down
    assert {name for name, rate in first.rates().items() if rate == method.ratio} == {
        *("down", "up", "norm_scale", "norm_shift")
    }


def test_the_sources_of_attempt_are_read_and_stay_as_they_are(tiny, tmp_path):
    backbone = tiny("roberta")
    other = label_task("other")
    jobs = [Job(task, splits(), seed, name=f"{task.name}{seed}") for task in (other, TASK) for seed in (0, 1)]
    *runs, own, _ = train_adaptations(backbone, jobs, recipe(), method=parse_method("prompt:length=3"))
    for run in (*runs, own):
        save_adaptation(run.adaptation, tmp_path / run.adaptation.name)
    method = parse_method(f"attempt:length=3,hidden=4,sources={tmp_path}")
    assert method.remarks(backbone, ["toy"]) == ["left out of the sources where the task is their own: toy0"]
    assert method.remarks(backbone, ["third"]) == []
    (trained,) = train_adaptations(backbone, [Job(TASK, splits(), 0)], recipe(), method=method)
    kept = torch.stack([run.adaptation.vectors for run in runs])
    assert torch.equal(trained.adaptation.tensors["sources"], kept)
    assert mixed_prompts(trained.adaptation) == ["other0", "other1", "its own"]
    encoded = encode_task(backbone, TASK, splits().test, reserved=3)
    weights = attention_weights(backbone, trained.adaptation, encoded)
    assert weights.shape == (len(encoded.rows), 3)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(weights)))
    with pytest.raises(UserError, match="is of method prompt, which mixes no prompts"):
        mixed_prompts(runs[0].adaptation)
    with pytest.raises(UserError, match="have 3 vectors, the target's own 2: use --length 3"):
        member_of(backbone, f"attempt:length=2,sources={tmp_path}")
    with pytest.raises(UserError, match="was trained under layout 'prompt-first', not 'su2022'"):
        train_adaptations(backbone, jobs[:1], recipe(), Encoding("su2022"), method=method)
    with pytest.raises(UserError, match=r"was trained on .*roberta"):
        member_of(tiny("bert"), str(method))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no prompt in .*empty"):
        member_of(backbone, f"attempt:length=3,sources={tmp_path / 'empty'}")
    with pytest.raises(UserError, match="attempt needs source prompts: write attempt:sources=DIR"):
        member_of(backbone, "attempt:length=3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("attempt:hidden=0", "attempt: hidden 0: it must be at least 1"),
        ("attempt:sources=random", "attempt: sources 'random': say how many, as in sources=random:3"),
        ("mpt:rank=0", "mpt: rank 0: it must be at least 1"),
        ("mpt:ratio=0", "mpt: ratio 0: it must be a number above 0"),
        ("dept:positions=0", "dept: positions 0: it must be at least 1"),
        ("dept:ratio=-1", "dept: ratio -1: it must be a number above 0"),
        ("ulpt:rank=0", "ulpt: rank 0: it must be at least 1"),
        ("ulpt:basis=-1", "ulpt: basis -1: the matrix's seed is from 0"),
        ("residual:hidden=-1", "residual: hidden -1: it must be at least 1, or 0 for the backbone's width"),
        ("residual:ratio=0", "residual: ratio 0: the MLP's rate over that of the vectors must be above 0"),
    ],
)
def test_settings_that_cannot_be_are_one_line(text, message):
    with pytest.raises(UserError, match=message):
        parse_method(text)
