"""Every method on every family: who gets a gradient, what runs together, what is kept, what peft makes of it."""

import json
import re

import pytest
import torch
from conftest import DECODERS, KINDS
from safetensors.torch import save_file
from toys import label_task, noise, question_task
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from prompttransfer.adaptations.bank import BareBank
from prompttransfer.adaptations.methods import METHODS, parse_method
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
SETTINGS = {
    "prompt": ("prompt:length=3",),
    "p-tuning": ("p-tuning:length=3,hidden=8", "p-tuning:length=3,encoder=mlp,hidden=8"),
    "lora": ("lora:rank=2", "lora:rank=3,alpha=5,stabilised=true"),
    "prefix": ("prefix:length=3,hidden=8",),
    "p-tuning-v2": ("p-tuning-v2:length=3",),
    "houlsby": ("houlsby:bottleneck=4", "houlsby:bottleneck=4,activation=tanh"),
    "pfeiffer": ("pfeiffer:reduction=4",),
    "probe": ("probe",),
}
SEEDLESS = ("probe",)
"""Methods that start the same whatever the seed."""
IN_PEFT = {
    *((name, family) for name in ("prompt", "p-tuning", "lora") for family in ("masked-lm", "t5")),
    *((name, family) for name in ("prefix", "p-tuning-v2") for family in ("masked-lm", "causal-lm")),
    *((name, "causal-lm") for name in ("prompt", "p-tuning", "lora")),
}
"""Methods and families that peft has; it gives a T5 prefixes in its decoder's self-attention alone."""
ALL = (*KINDS, "llama", "gpt2")
CASES = [(kind, text) for kind in ALL for name in METHODS for text in SETTINGS[name]]


def batch_of(backbone, method, rows=ROWS, task=TASK):
    encoded = backbone.encode(task, rows, reserved=method.reserved)
    return backbone.batch(encoded, layout=FIRST)


def moved(method, backbone, *, seed=0):
    """A member that is no longer at its start, where a LoRA does nothing."""
    member = method.member(backbone, TASK, start="random", seed=seed)
    with torch.no_grad():
        for index, parameter in enumerate(member.parameters()):
            parameter += 0.3 * noise(*parameter.shape, seed=100 * seed + index)
    return member


def owners(*numbers):
    return torch.tensor(numbers)


@pytest.mark.parametrize(("kind", "text"), CASES)
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


@pytest.mark.parametrize(("kind", "text"), CASES)
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
    first, again, other = (
        method.member(tiny(kind), TASK, start="random", seed=seed).tensors() for seed in (3, 3, 4)
    )
    assert all(torch.equal(again[name], value) for name, value in first.items())
    assert all(torch.equal(other[name], value) for name, value in first.items()) == (method.name in SEEDLESS)


@pytest.mark.parametrize("kind", ALL)
def test_a_lora_starts_as_the_bare_model(tiny, kind):
    backbone, method = tiny(kind), parse_method("lora")
    member = method.member(backbone, TASK, start="random", seed=0)
    batch = batch_of(backbone, method)
    with torch.no_grad():
        own = backbone.label_scores(method.bank(backbone, [member]).rows(owners(0, 0, 0)), batch)
        bare = backbone.label_scores(BARE, batch)
        assert torch.equal(bare, backbone.label_scores(BareBank().rows(owners(0, 0, 0)), batch))
    torch.testing.assert_close(own, bare, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", ["t5", "t5-v1.1"])
def test_a_lora_writes_what_its_loss_was_trained_on(tiny, kind):
    """Greedy writing meets the decoder's LoRA too: the most likely text has the smallest loss of all first words."""
    backbone, method = tiny(kind), parse_method("lora:rank=2")
    own = method.bank(backbone, [moved(method, backbone)]).rows(owners(0))
    question = question_task()
    rows = [Example("film", "the film was dull", references=("dull",))]
    with torch.no_grad():
        written = backbone.generate(own, batch_of(backbone, method, rows, question), max_new_tokens=1)[0]
        losses = {}
        for word in ("dull", "great", "film", "cold", written or "</s>"):
            answer = [Example("film", "the film was dull", references=(word,))]
            batch = batch_of(backbone, method, answer, question)
            targets = batch.targets[:, :1] if word != "</s>" else batch.targets
            losses[word] = backbone.loss(own, type(batch)(**{**vars(batch), "targets": targets})).item()
    assert min(losses, key=losses.get) == (written or "</s>")


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
    family = family_of(kind)
    if method.peft_config(family=family, tensors=member.tensors()) is None:
        assert (method.name, family) not in IN_PEFT
        return
    model = peft_model(write(method, member, tmp_path / "a", kind), kind, backbone_folder)
    for row in ROWS:  # one at a time: peft numbers no positions of its own behind padding
        batch = batch_of(backbone, method, [row])
        own = method.bank(backbone, [member])
        with torch.no_grad():
            ours = backbone.label_scores(own.rows(owners(0)), batch)
            theirs = label_logits(model, kind, batch, own.reserved).log_softmax(-1)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ALL)
def test_twenty_steps_are_those_of_peft(tiny, backbone_folder, tmp_path, kind):
    backbone, method = tiny(kind), parse_method("lora:rank=2")
    member = method.member(backbone, TASK, start="random", seed=1)
    model = peft_model(write(method, member, tmp_path / "a", kind), kind, backbone_folder, trains=True)
    batch = batch_of(backbone, method)
    theirs = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameters, loss in (
        (
            list(member.parameters()),
            lambda: backbone.loss(method.bank(backbone, [member]).rows(owners(0, 0, 0)), batch),
        ),
        (
            theirs,
            lambda: torch.nn.functional.cross_entropy(label_logits(model, kind, batch, 0), batch.labels),
        ),
    ):
        optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0)
        for _ in range(20):
            optimizer.zero_grad()
            loss().mean().backward()
            optimizer.step()
    with torch.no_grad():
        ours = backbone.label_scores(method.bank(backbone, [member]).rows(owners(0, 0, 0)), batch)
        after = label_logits(model, kind, batch, 0).log_softmax(-1)
    torch.testing.assert_close(ours, after, atol=1e-4, rtol=1e-4)
    learned = {
        name.replace(".default", ""): value for name, value in model.state_dict().items() if "lora_" in name
    }
    for name, value in member.tensors().items():
        if "decoder.block" in name and "layer.0.SelfAttention.q" in name:
            continue  # over the one token of the first step its gradient is zero but for rounding
        torch.testing.assert_close(value, learned[name], atol=1e-4, rtol=1e-3)


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
