"""What prefixes, adapters and probes do, against the modules of transformers with everything done by hand in hooks."""

import re
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from conftest import KINDS
from toys import label_task, noise, pair_task, question_task

from prompttransfer.adaptations.methods import parse_method
from prompttransfer.adaptations.methods.probe import ProbeMember
from prompttransfer.backbones.interventions import BARE
from prompttransfer.backbones.layouts import LAYOUTS
from prompttransfer.neurons.capture import activations
from tasks.errors import UserError
from tasks.task import Example

FIRST = LAYOUTS["prompt-first"]
TASK = label_task()
ROWS = [
    Example("the film was dull and the room was very cold", label=0),
    Example("the room was very bright", label=1),
]
ENGINES = ["frozen", "plain"]


def moved(method, backbone, seed=0):
    member = method.member(backbone, TASK, start="random", seed=seed)
    with torch.no_grad():
        for index, parameter in enumerate(member.parameters()):
            parameter += 0.3 * noise(*parameter.shape, seed=100 * seed + index)
    return member


def batch_of(backbone, method, rows=ROWS):
    return backbone.batch(backbone.encode(TASK, rows, reserved=method.reserved), layout=FIRST)


def scores(backbone, method, member, batch):
    own = method.bank(backbone, [member]).rows(torch.zeros(batch.rows, dtype=torch.long))
    with torch.no_grad():
        return backbone.label_scores(own, batch)


@contextmanager
def hooks(backbone, watchers):
    """`watchers`: name of a module -> forward hook."""
    handles = [
        backbone.model.get_submodule(name).register_forward_hook(hook) for name, hook in watchers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


# Prefixes --------------------------------------------------------------------------------------------------------


def attention_by_hand(backbone, name, keys, values, mask):
    """A hook on an attention module of T5 that computes the attention anew, with keys and values in front.

    keys and values [heads, extra, head width]; mask [batch, time] of what is attended to.
    """
    cross, causal = name.endswith("EncDecAttention"), name.startswith("decoder.")
    first = backbone.model.get_submodule(f"{name.partition('.')[0]}.block.0.layer.0.SelfAttention")

    def attend(module, inputs, options, output):
        states, extra = inputs[0] if inputs else options["hidden_states"], keys.shape[1]
        source = options["key_value_states"] if cross else states
        by_head = lambda x: x.unflatten(2, (module.n_heads, -1)).transpose(1, 2)  # noqa: E731
        front = lambda x: x.expand(len(states), -1, -1, -1)  # noqa: E731
        query = by_head(module.q(states))
        key = torch.cat([front(keys), by_head(module.k(source))], dim=2)
        value = torch.cat([front(values), by_head(module.v(source))], dim=2)
        logits = query @ key.mT
        time = states.shape[1]
        if not cross:  # as if the keys in front were tokens that stand there
            logits = logits + first.compute_bias(extra + time, extra + time)[:, :, extra:]
            if causal:
                logits = logits + torch.full((time, extra + time), -1e9).triu(extra + 1)
        if cross or not causal:
            logits = logits.masked_fill(
                torch.cat([torch.ones(len(mask), extra), mask], 1)[:, None, None] == 0, -1e9
            )
        attended = (logits.softmax(-1) @ value).transpose(1, 2).flatten(2)
        return module.o(attended), *output[1:]

    return attend


@pytest.mark.parametrize("kind", ["t5", "t5-v1.1"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("words", ["terrible", "so-so"])
def test_all_three_attentions_of_a_t5_have_their_own_prefix(tiny, kind, engine, words):
    backbone, method = tiny(kind, engine=engine), parse_method("p-tuning-v2:length=3")
    member, task = moved(method, backbone), label_task(negative=words, positive="great")
    batch = backbone.batch(backbone.encode(task, ROWS, reserved=3), layout=FIRST)
    ours = scores(backbone, method, member, batch)
    assert {name.partition(".")[0] for name in member.tensors()} == {"encoder", "decoder", "cross"}
    handles = []
    plain = tiny(kind, engine="plain")
    classes = batch.candidates.shape[1]
    for group, names in plain.attentions.items():
        values = member.tensors()[f"{group}.prompt_embeddings"].view(3, len(names), 2, 2, 8)
        mask = (
            batch.mask
            if group == "encoder" or words == "terrible"
            else batch.mask.repeat_interleave(classes, 0)
        )
        for index, name in enumerate(names):
            keys, vals = values[:, index].permute(1, 2, 0, 3)
            hook = attention_by_hand(plain, name, keys, vals, mask.float())
            handles.append(plain.model.get_submodule(name).register_forward_hook(hook, with_kwargs=True))
    try:
        with torch.no_grad():
            theirs = plain.label_scores(BARE, batch)
    finally:
        for handle in handles:
            handle.remove()
    assert len(handles) == 6
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_a_prefix_that_an_mlp_makes_is_the_mlp_s_output(tiny):
    backbone, method = tiny("roberta"), parse_method("prefix:length=3,hidden=8")
    member = method.member(backbone, TASK, start="random", seed=0)
    parts = member.encoder()
    inner = torch.tanh(
        parts["embeddings.encoder"] @ parts["networks.encoder.0.weight"].T + parts["networks.encoder.0.bias"]
    )
    by_hand = inner @ parts["networks.encoder.2.weight"].T + parts["networks.encoder.2.bias"]
    assert by_hand.shape == (3, 2 * 2 * 16)  # two layers, keys and values
    torch.testing.assert_close(member.tensors()["prompt_embeddings"], by_hand)


@pytest.mark.parametrize(("layout", "place"), [("prompt-first", 0), ("su2022", 1)])
def test_keys_and_values_in_front_shift_the_positions_of_a_masked_lm(tiny, layout, place):
    backbone, method, seen = tiny("roberta", engine="plain"), parse_method("p-tuning-v2:length=2"), []
    batch = backbone.batch(backbone.encode(TASK, ROWS[:1], reserved=2), layout=LAYOUTS[layout])
    with hooks(backbone, {"roberta.encoder.layer.0": lambda module, inputs, output: seen.append(inputs[0])}):
        scores(backbone, method, moved(method, backbone), batch)
    table = backbone.model.roberta.embeddings
    position = 2 + 2 + place  # RoBERTa counts from padding_idx + 1
    summed = table.word_embeddings.weight[backbone.tokenizer.cls_token_id]
    summed = summed + table.token_type_embeddings.weight[0] + table.position_embeddings.weight[position]
    torch.testing.assert_close(seen[0][0, place], table.LayerNorm(summed), atol=1e-5, rtol=0)


# Adapters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("text", "function"),
    [
        ("houlsby:bottleneck=4", torch.nn.functional.gelu),
        ("pfeiffer:reduction=8", torch.relu),
        ("pfeiffer:reduction=8,activation=tanh", torch.tanh),
    ],
)
def test_adapters_are_the_formula_behind_the_sub_layers(tiny, kind, engine, text, function):
    backbone, method = tiny(kind, engine=engine), parse_method(text)
    member, batch = moved(method, backbone), batch_of(backbone, method)
    ours, tensors = scores(backbone, method, member, batch), member.tensors()
    sites = sorted({name.rpartition(".adapter_")[0] for name in tensors})
    assert len(sites) == (4 if kind.startswith("t5") else 2) * (2 if method.name == "houlsby" else 1)

    def adapter(site):
        w1, b1, w2, b2 = (
            tensors[f"{site}.adapter_{part}"] for part in ("down.weight", "down.bias", "up.weight", "up.bias")
        )
        assert w1.shape == (4 if method.name == "houlsby" else 2, 16)
        return lambda module, inputs, output: output + function(output @ w1.T + b1) @ w2.T + b2

    plain = tiny(kind, engine="plain")
    with torch.no_grad(), hooks(plain, {site: adapter(site) for site in sites}):
        theirs = plain.label_scores(BARE, batch)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert (ours - plain.label_scores(BARE, batch)).abs().max() > 1e-3


@pytest.mark.parametrize("text", ["houlsby", "pfeiffer"])
def test_an_adapter_starts_close_to_the_bare_model(tiny, text):
    backbone, method = tiny("bert"), parse_method(text)
    member = method.member(backbone, TASK, start="random", seed=0)
    batch = batch_of(backbone, method)
    torch.testing.assert_close(
        scores(backbone, method, member, batch), backbone.label_scores(BARE, batch), atol=1e-3, rtol=0
    )
    weights = torch.cat([v.flatten() for name, v in member.tensors().items() if name.endswith("weight")])
    assert 0 < weights.abs().max() <= 2e-3
    assert all(not v.any() for name, v in member.tensors().items() if name.endswith("bias"))


# Probes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_probe_reads_the_state_that_transformers_has_at_the_answer(tiny, kind, engine):
    backbone, method = tiny(kind, engine=engine), parse_method("probe")
    member, batch = moved(method, backbone), batch_of(backbone, method)
    ours = scores(backbone, method, member, batch)
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
    with torch.no_grad():
        if kind.startswith("t5"):
            encoded = backbone.model.encoder(**inputs).last_hidden_state
            decoded = backbone.model.decoder(
                input_ids=torch.zeros(2, 1, dtype=torch.long),
                encoder_hidden_states=encoded,
                encoder_attention_mask=batch.mask,
            )
            state = decoded.last_hidden_state[:, 0]
        else:
            state = backbone.model.base_model(**inputs).last_hidden_state[:, 1]  # <s> <mask> text
    weight, bias = member.tensors()["head.weight"], member.tensors()["head.bias"]
    torch.testing.assert_close(ours, (state @ weight.T + bias).log_softmax(-1), atol=1e-5, rtol=1e-5)


def test_a_probe_starts_at_even_odds_and_probes_of_unlike_tasks_run_together(tiny):
    backbone, method = tiny("roberta"), parse_method("probe")
    two = method.member(backbone, TASK, start="random", seed=0)
    assert torch.allclose(scores(backbone, method, two, batch_of(backbone, method)).exp(), torch.tensor(0.5))
    three = ProbeMember(noise(3, 16, seed=1), noise(3, seed=2))
    bank = method.bank(backbone, [two, three])
    pair = Example("the film was dull", "it was great", label=1)
    rows = [
        *backbone.encode(TASK, ROWS[:1], reserved=0),
        *backbone.encode(pair_task(), [pair], reserved=0),
    ]
    with torch.no_grad():
        together = backbone.label_scores(bank.rows(torch.tensor([0, 1])), backbone.batch(rows, layout=FIRST))
        alone = backbone.label_scores(
            method.bank(backbone, [three]).rows(torch.tensor([0])), backbone.batch(rows[1:], layout=FIRST)
        )
    assert together[0, :2].exp().tolist() == [0.5, 0.5] and together[0, 2] == float("-inf")
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-5)


def test_a_probe_s_cell_is_impossible_where_classes_differ(tiny):
    method = parse_method("probe")
    tensors = method.member(tiny("roberta"), TASK, start="random", seed=0).tensors()
    method.check_cell(tensors, replace(TASK, name="another"))
    for task, there in ((pair_task(), "3 labels"), (question_task(), "no labels")):
        with pytest.raises(
            UserError, match=f"a probe of 2 classes cannot answer task '{task.name}', which has {there}"
        ):
            method.check_cell(tensors, task)


def test_a_probe_with_too_few_classes_is_one_line_in_a_pass_too(tiny):
    backbone, method = tiny("t5"), parse_method("probe")
    member = method.member(backbone, TASK, start="random", seed=0)
    rows = backbone.encode(pair_task(), [Example("the film was dull", "it was great", label=1)], reserved=0)
    with pytest.raises(UserError, match="a probe or head of 2 classes cannot answer a task with 3 labels"):
        scores(backbone, method, member, backbone.batch(rows, layout=FIRST))


# Neurons ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["p-tuning-v2:length=3", "prompt:length=3", "houlsby:bottleneck=4", "probe"])
def test_neurons_are_read_at_the_mask_wherever_a_method_stands(tiny, text):
    backbone, method = tiny("roberta"), parse_method(text)
    bank, seen = method.bank(backbone, [moved(method, backbone)]), []
    tokens = backbone.tokenizer.convert_tokens_to_ids(["<s>", "<mask>", "</s>"])
    ids = torch.tensor([tokens])
    batch = replace(batch_of(backbone, method, ROWS[:1]), ids=ids, mask=torch.ones_like(ids))
    watch = {"roberta.encoder.layer.1.intermediate": lambda module, inputs, output: seen.append(output[0])}
    with torch.no_grad(), backbone.on("plain"), hooks(backbone, watch):
        backbone.label_scores(bank.rows(torch.tensor([0])), batch)
    mask_at = 1 + (3 if method.name == "prompt" else 0)
    torch.testing.assert_close(activations(backbone, bank, FIRST)[0, 1], seen[0][mask_at])


# Bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prefix:length=0", "prefix: length 0: a prefix has at least 1 key and value"),
        ("prefix:hidden=-1", "prefix: hidden -1: it must be at least 1"),
        ("p-tuning-v2:hidden=3", "unknown setting of method p-tuning-v2 'hidden'"),
        ("houlsby:bottleneck=0", "houlsby: bottleneck 0: it must be at least 1"),
        ("houlsby:activation=gleu", "unknown activation of houlsby 'gleu': did you mean 'gelu'?"),
        ("pfeiffer:reduction=0", "pfeiffer: reduction 0: it must be at least 1"),
        ("probe:rank=3", "method probe has no settings, 'rank' was given: write probe alone"),
        ("probe:x", "'x' is no setting: write probe alone, which has no settings"),
    ],
)
def test_a_wrong_setting_is_one_line(text, message):
    with pytest.raises(UserError, match=re.escape(message)):
        parse_method(text)


def test_what_does_not_fit_a_backbone_or_a_task_is_one_line(tiny):
    roberta = tiny("roberta")

    def start(text, task=TASK, given="random"):
        return parse_method(text).member(roberta, task, start=given, seed=0)

    with pytest.raises(UserError, match=r"prefix of 60 vectors leaves 0 of the 64 positions .* at most 51"):
        start("prefix:length=60")
    with pytest.raises(UserError, match="has no labels, which a probe tells apart"):
        start("probe", question_task())
    for text in ("prefix", "houlsby", "probe"):
        with pytest.raises(UserError, match=f"{text} starts at 'random'.*not 'words'"):
            start(text, given="words")
    for text in ("p-tuning-v2:length=3", "pfeiffer:reduction=4", "probe"):
        method, wide = parse_method(text), tiny("roberta", width=24)
        foreign = method.member(wide, TASK, start="random", seed=0)
        with pytest.raises(UserError, match="of another model"):
            method.bank(roberta, [foreign])
        with pytest.raises(UserError, match="lora"):
            method.restored({"lora": torch.zeros(1)})
    with pytest.raises(UserError, match="the settings say a length of 4"):
        parse_method("prefix:length=4").restored(start("prefix:length=3").tensors())
    with pytest.raises(UserError, match="bottleneck of 8, the settings say 4"):
        parse_method("houlsby:bottleneck=4").restored(start("houlsby:bottleneck=8").tensors())
