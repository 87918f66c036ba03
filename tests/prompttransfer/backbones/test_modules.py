"""A model that somebody changed gives what transformers gives on it, or is one line: which, its engine says."""

import re

import peft
import pytest
import torch
from conftest import KINDS
from toys import label_task, noise

from prompttransfer.backbones.interventions import BARE, Vectors
from prompttransfer.backbones.layouts import LAYOUTS
from prompttransfer.backbones.loading import load_backbone
from prompttransfer.distributed.placement import Placement
from tasks.errors import UserError
from tasks.task import Example

FIRST = LAYOUTS["prompt-first"]
ROWS = [Example("the film was dull", label=0)]


@pytest.fixture
def load(backbone_folder):
    """`load(kind, engine, precision)`: a tiny backbone of one's own, to be changed."""

    def made(kind, engine="auto", precision="fp32"):
        return load_backbone(str(backbone_folder(kind)), precision=precision, device="cpu", engine=engine)

    return made


def batch_of(backbone, length=0):
    rows = backbone.encode(label_task(), ROWS, reserved=length)
    return backbone.batch(rows, layout=FIRST)


def ours(backbone):
    with torch.no_grad():
        return backbone.label_scores(BARE, batch_of(backbone))


def theirs(backbone, model=None):
    """What transformers' own forward pass gives."""
    batch, model = batch_of(backbone), model or backbone.model
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
    with torch.no_grad():
        if backbone.family == "t5":
            logits = model(**inputs, decoder_input_ids=torch.zeros(1, 1, dtype=torch.long)).logits[:, 0]
        else:
            logits = model(**inputs).logits[:, backbone.answer_slot(0, FIRST)]
    return logits.gather(1, batch.candidates[..., 0]).log_softmax(-1)


def lora(backbone, at, **settings):
    """The model with an adapter of peft inside that changes what it says."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = peft.LoraConfig(target_modules=at, init_lora_weights=False, lora_alpha=64, **settings)
        return peft.get_peft_model(backbone.model, config)


def attention(kind):
    return ["q", "v"] if kind.startswith("t5") else ["query", "value"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_engine_is_chosen_when_a_backbone_is_loaded(load, kind):
    assert [load(kind, engine).engine for engine in ("auto", "frozen", "plain")] == [
        "frozen",
        "frozen",
        "plain",
    ]
    torch.testing.assert_close(ours(load(kind)), ours(load(kind, "plain")), atol=1e-5, rtol=0)


def test_an_engine_that_there_is_not_is_one_line(load):
    with pytest.raises(UserError, match="unknown engine 'plane': did you mean 'plain'"):
        load("roberta", "plane")
    sharded = Placement(devices=2, strategy="fsdp")
    with pytest.raises(UserError, match="fsdp runs on engine 'plain' alone"):
        load_backbone("microworld-roberta", device="cpu", placement=sharded, engine="frozen")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("evaluated", [False, True])
def test_an_adapter_is_refused_on_frozen_layers_until_it_is_out_again(load, kind, evaluated):
    backbone = load(kind)
    if evaluated:
        ours(backbone)
    batch, prompt = batch_of(backbone, length=3), noise(1, 3, backbone.width)
    for _ in range(2):
        adapted = lora(backbone, attention(kind))
        for use in (backbone.label_scores, backbone.loss):
            with pytest.raises(UserError, match=r"Linear, is now a peft Linear.*engine='plain'"):
                use(Vectors(prompt), batch)
        adapted.unload()
    assert torch.equal(backbone.label_scores(prompt, batch), load(kind).label_scores(prompt, batch))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", ["attention", "all-linear", "feed-forward"])
def test_the_plain_engine_gives_what_transformers_gives_with_an_adapter(load, kind, at):
    backbone = load(kind, "plain")
    before = ours(backbone)
    inner = ["wo"] if kind.startswith("t5") else ["dense"]
    adapted = lora(backbone, {"attention": attention(kind), "feed-forward": inner}.get(at, at))
    torch.testing.assert_close(ours(backbone), theirs(backbone), atol=1e-5, rtol=0)
    assert (ours(backbone) - before).abs().max() > 0.01
    adapted.unload()
    assert torch.equal(ours(backbone), before)


@pytest.mark.filterwarnings(
    "ignore:Input and output embeddings are no longer tied"
)  # two of T5 v1.1 never were
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", ["frozen", "plain"])
@pytest.mark.parametrize("evaluated", [False, True])
def test_a_merged_adapter_counts_in_every_layer(load, kind, engine, evaluated):
    backbone = load(kind, engine)
    before = ours(load(kind))
    if evaluated:
        ours(backbone)
    for at in (attention(kind)[1:], attention(kind)):
        lora(backbone, at).merge_and_unload()
    torch.testing.assert_close(ours(backbone), theirs(backbone), atol=1e-5, rtol=0)
    assert (ours(backbone) - before).abs().max() > 0.01


@pytest.mark.parametrize("kind", ["roberta", "t5"])
def test_an_adapter_merged_after_an_evaluation_in_bf16_counts(load, kind):
    """In bf16 a CPU works on copies of the weights, and a merge changes those without torch counting it."""
    first, second = (load(kind, precision="bf16") for _ in range(2))
    before = ours(first)
    for backbone in (first, second):
        lora(backbone, attention(kind)).merge_and_unload()
    assert not torch.equal(ours(first), before)
    assert torch.equal(ours(first), ours(second))


def some_linear(backbone):
    return next(module for module in backbone.model.modules() if isinstance(module, torch.nn.Linear))


def hook(backbone):
    some_linear(backbone).register_forward_hook(lambda module, inputs, output: 2 * output)


def other_forward(backbone):
    module = some_linear(backbone)
    module.forward = lambda states, own=module.forward: 2 * own(states)


def other_weight(backbone):
    module = some_linear(backbone)
    module.weight = torch.nn.Parameter(2 * module.weight, requires_grad=False)


def other_data(backbone):
    module = some_linear(backbone)
    module.weight.data = 2 * module.weight


def trained(backbone):
    backbone.model.requires_grad_(True)


CHANGES = {
    hook: "a hook was hung on",
    other_forward: "was given another forward",
    other_weight: "a weight was replaced",
    other_data: "replaced by way of its data",
    trained: "its weights require gradients",
}


@pytest.mark.parametrize("kind", ["roberta", "t5"])
@pytest.mark.parametrize("change", CHANGES)
def test_any_change_is_refused_on_frozen_layers_and_counts_on_plain_ones(load, kind, change):
    frozen, plain = load(kind), load(kind, "plain")
    before = ours(frozen)
    for backbone in (frozen, plain):
        change(backbone)
    with pytest.raises(UserError, match=f"{re.escape(CHANGES[change])}.*engine='plain'"):
        ours(frozen)
    torch.testing.assert_close(ours(plain), theirs(plain), atol=1e-5, rtol=0)
    assert torch.allclose(ours(plain), before, atol=1e-5) == (change is trained)


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("roberta", "lm_head.decoder"),
        ("bert", "cls.predictions.decoder"),
        ("t5", "lm_head"),
        ("t5-v1.1", "lm_head"),
        ("roberta", "roberta.embeddings.position_embeddings"),
        ("t5", "encoder.embed_tokens"),
    ],
)
def test_what_the_plain_engine_passes_by_must_not_be_changed(load, kind, part):
    backbone = load(kind, "plain")
    handle = backbone.model.get_submodule(part).register_forward_hook(lambda module, inputs, out: 2 * out)
    with pytest.raises(UserError, match=r"a hook was hung on .*, which is not run as a module"):
        ours(backbone)
    handle.remove()
    torch.testing.assert_close(ours(backbone), theirs(backbone), atol=1e-5, rtol=0)


def test_a_pass_on_another_engine_ends_with_its_block(load):
    backbone = load("roberta")
    with pytest.raises(RuntimeError, match="in the middle"), backbone.on("plain"):
        assert backbone.engine == "plain"
        raise RuntimeError("in the middle")
    assert backbone.engine == "frozen"


def test_a_model_that_was_changed_before_is_refused_by_the_frozen_engine_and_runs_on_the_plain_one(load):
    backbone = load("roberta")
    lora(backbone, attention("roberta"))
    again = {"name": "again", "revision": "", "device": backbone.device}
    with pytest.raises(UserError, match=r"again was changed \(.* is of peft\).*engine='plain'"):
        type(backbone)(backbone.model, backbone.tokenizer, **again)
    plain = type(backbone)(backbone.model, backbone.tokenizer, **again, engine="plain")
    torch.testing.assert_close(ours(plain), theirs(plain), atol=1e-5, rtol=0)
    with pytest.raises(UserError, match="is of peft"), plain.on("frozen"):
        ours(plain)
    assert plain.engine == "plain"


def test_a_hook_that_the_plain_engine_passes_by_is_seen_where_it_runs_for_a_while(load):
    backbone = load("roberta")
    backbone.model.lm_head.decoder.register_forward_hook(lambda module, inputs, output: 2 * output)
    with pytest.raises(UserError, match=r"lm_head\.decoder"), backbone.on("plain"):
        ours(backbone)
