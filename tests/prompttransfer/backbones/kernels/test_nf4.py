"""Weights in NF4: what they are, what a pass makes of them, and that gradients are right also after an evaluation."""

from __future__ import annotations

import sys

import pytest
import torch
from conftest import KINDS
from torch import nn
from toys import label_task, recipe, splits

from prompttransfer.adaptations.bank import BareBank
from prompttransfer.adaptations.merging import merged
from prompttransfer.adaptations.methods import parse_method
from prompttransfer.backbones.kernels.nf4 import NF4Linear, hold_in_nf4
from prompttransfer.backbones.layouts import LAYOUTS
from prompttransfer.backbones.loading import load_backbone, outline_backbone
from prompttransfer.training.train import Job, train_adaptations
from tasks.errors import UserError
from tasks.task import Example

FIRST = LAYOUTS["prompt-first"]
TASK = label_task()
ROWS = (Example("the film was dull", label=0), Example("the room was very bright", label=1))
ALL = (*KINDS, "llama", "gpt2")
CPU = torch.device("cpu")


@pytest.fixture
def functional():
    """bitsandbytes' functions; where it is not installed the test is left out."""
    return pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed").functional


@pytest.fixture
def held(backbone_folder, functional):
    """A backbone held in NF4, and the same in float32 with the weights that those four bits stand for."""

    def pair(kind):
        own = load_backbone(str(backbone_folder(kind)), precision="fp32", engine="plain")
        hold_in_nf4(own, CPU)
        other = load_backbone(str(backbone_folder(kind)), precision="fp32", engine="plain")
        for name in own.linear_maps:
            parent, _, child = name.rpartition(".")
            module = own.model.get_submodule(name)
            linear = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
            linear.weight, linear.bias = nn.Parameter(module.weight), module.bias
            setattr(other.model.get_submodule(parent), child, linear.requires_grad_(False))
        return own, other

    return pair


def batch_of(backbone, method):
    return backbone.batch(backbone.encode(TASK, ROWS, reserved=method.reserved), layout=FIRST)


def gradients(backbone, method):
    """Loss and gradients of a member that has left its start."""
    member = method.member(backbone, TASK, start="random", seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in member.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    bank = method.bank(backbone, [member])
    loss = backbone.loss(bank.rows(torch.zeros(2).long()), batch_of(backbone, method)).sum()
    loss.backward()
    return loss.detach(), [parameter.grad for parameter in member.parameters()]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("text", ["lora:rank=2", "prompt:length=3"])
def test_the_gradient_is_right_also_after_an_evaluation(held, kind, text):
    backbone, reference = held(kind)
    method = parse_method(text)
    expected, theirs = gradients(reference, method)
    for _ in range(2):
        loss, ours = gradients(backbone, method)
        torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
        for own, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(own, other, atol=1e-5, rtol=1e-4)
        with torch.no_grad():
            backbone.label_scores(
                BareBank().rows(torch.zeros(2).long()), batch_of(backbone, parse_method("lora:rank=2"))
            )


def test_the_weights_are_those_of_the_library(functional):
    """Block 64, double quantisation; its own products as reference."""
    linear = nn.Linear(96, 40)
    own = NF4Linear(linear, CPU)
    packed, state = functional.quantize_4bit(
        linear.weight.detach(), blocksize=64, compress_statistics=True, quant_type="nf4"
    )
    assert torch.equal(own.weight, functional.dequantize_4bit(packed, state))
    assert 0 < (own.weight - linear.weight).abs().mean() < 0.1 * linear.weight.abs().mean()
    states = torch.randn(3, 5, 96)
    torch.testing.assert_close(own(states), nn.functional.linear(states, own.weight, linear.bias))
    assert sum(p.nbytes for name, p in own.named_parameters() if name in ("packed", "largest")) == 1920 + 60


@pytest.mark.parametrize("kind", ["roberta", "t5", "gpt2"])
def test_a_method_trains_and_says_what_it_was_trained_on(backbone_folder, functional, kind):
    backbone = load_backbone(str(backbone_folder(kind)), precision="nf4")
    assert backbone.engine == "plain" and backbone.precision == "nf4"
    assert all(isinstance(backbone.model.get_submodule(name), NF4Linear) for name in backbone.linear_maps)
    before = backbone.digest()
    for text in ("lora:rank=2", "dora:rank=2"):
        (run,) = train_adaptations(backbone, [Job(TASK, splits(), 0)], recipe(), method=parse_method(text))
        assert run.ended == "steps" and run.adaptation.origin.recipe["precision"] == "nf4"
    assert backbone.digest() == before


def test_fewer_bytes_are_held_and_expected(backbone_folder, functional):
    folder = str(backbone_folder("roberta"))
    full, small = (load_backbone(folder, precision=precision) for precision in ("fp32", "nf4"))
    assert small.held_bytes < full.held_bytes
    outline = outline_backbone(folder, precision="nf4")
    outline.move(outline.device, small.dtype)
    constants = len(small.linear_maps) * 4 * 257  # the levels of scales, which an outline has not
    assert outline.held_bytes == pytest.approx(small.held_bytes, abs=1.1 * constants)


def test_weights_that_cannot_change_are_one_line(backbone_folder, functional):
    backbone = load_backbone(str(backbone_folder("roberta")), precision="nf4")
    with pytest.raises(UserError, match="full changes weights, and those of a backbone in nf4 cannot change"):
        parse_method("full").member(backbone, TASK, start="random", seed=0)
    lora = parse_method("lora:rank=2")
    bank = lora.bank(backbone, [lora.member(backbone, TASK, start="random", seed=0)])
    with (
        pytest.raises(UserError, match="an adaptation cannot be merged into weights in nf4"),
        merged(backbone, bank),
    ):
        pass
    with pytest.raises(UserError, match="--precision nf4 runs on engine 'plain' alone"):
        load_backbone(str(backbone_folder("roberta")), precision="nf4", engine="frozen")


def test_a_library_that_is_missing_is_one_line(backbone_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match="--precision nf4 needs bitsandbytes: install the extra `quantised`"):
        load_backbone(str(backbone_folder("roberta")), precision="nf4")
