"""Starts: what a text stands for, what training begins with, and what is refused before any work."""

import pytest
import torch
from toys import label_task, noise, prompt_on

from prompttransfer.adaptations.artifacts import save_adaptation
from prompttransfer.adaptations.methods import parse_method
from prompttransfer.adaptations.starts import (
    From,
    Mixture,
    Random,
    Words,
    check_start,
    parse_start,
    source_of,
)
from tasks.errors import UserError

KEY = "prompt_embeddings"


def vectors_of(backbone, text, start, seed=0):
    return parse_method(text).started(backbone, label_task(), start, seed=seed).tensors()[KEY]


@pytest.mark.parametrize("text", ["random", "vocabulary", "label-words", "text:the film"])
def test_a_start_is_read_as_it_is_written(text):
    assert str(parse_start(text)) == text


def test_texts_are_values():
    assert parse_start("random") == Random() and parse_start("text:a b") == Words("text", "a b")


@pytest.mark.parametrize("verb", ["from", "prompt"])
def test_another_prompts_vectors_are_taken_bit_for_bit(tiny, tmp_path, verb):
    source = prompt_on(tiny("roberta"))
    folder = save_adaptation(source, tmp_path / "source")
    start = parse_start(f"{verb}:{folder}")
    assert torch.equal(vectors_of(tiny("roberta"), "prompt:length=3", start, seed=5), source.vectors)
    assert str(start) == f"from:{folder}" and source_of(str(start)) == str(folder)


@pytest.mark.parametrize(("length", "width"), [(4, 16), (3, 32)])
def test_a_prompt_of_another_shape_is_refused_with_both_shapes(tiny, length, width):
    start = From({KEY: noise(3, 16)}, "from:here")
    with pytest.raises(UserError, match=rf"is \[3, 16\], but \[{length}, {width}\] is needed"):
        vectors_of(tiny("roberta", "fp32", width), f"prompt:length={length}", start)


def test_a_mixture_is_the_weighted_sum(tiny, tmp_path):
    parts = [prompt_on(tiny("roberta"), seed=seed) for seed in (0, 1)]
    paths = [save_adaptation(part, tmp_path / part.name) for part in parts]
    start = parse_start(f"mixture:{paths[0]}=.6,{paths[1]}=.4")
    wanted = 0.6 * parts[0].vectors + 0.4 * parts[1].vectors
    torch.testing.assert_close(vectors_of(tiny("roberta"), "prompt:length=3", start), wanted)
    assert str(start) == f"mixture:{paths[0]}=0.6,{paths[1]}=0.4"


def test_a_mixture_of_different_shapes_is_refused():
    parts = tuple(From({KEY: noise(length, 4)}, "from:a") for length in (2, 3))
    with pytest.raises(UserError, match="of one shape"):
        Mixture(parts, (0.5, 0.5)).summed()
    with pytest.raises(UserError, match="one weight each"):
        Mixture(parts, (1.0,))


def test_p_tuning_goes_on_with_its_encoder_and_not_from_vectors_alone(tiny):
    backbone, method = tiny("roberta"), parse_method("p-tuning:length=3,hidden=8")
    member = method.member(backbone, label_task(), start="random", seed=4)
    start = From(member.tensors(), "from:here", member.encoder())
    again = method.started(backbone, label_task(), start, seed=0)
    assert torch.equal(again.tensors()[KEY], member.tensors()[KEY])
    with pytest.raises(UserError, match="and its encoder, which from:here is not"):
        method.started(backbone, label_task(), From(member.tensors(), "from:here"), seed=0)


def test_a_lora_goes_on_from_a_lora_and_not_from_vectors(tiny):
    backbone, method = tiny("roberta"), parse_method("lora:rank=2")
    member = method.member(backbone, label_task(), start="random", seed=4)
    start = From(member.tensors(), "from:here")
    again = method.started(backbone, label_task(), start, seed=0).tensors()
    assert all(torch.equal(again[name], tensor) for name, tensor in member.tensors().items())
    with pytest.raises(UserError, match="is no part of lora"):
        method.started(backbone, label_task(), From({KEY: noise(3, 16)}, "from:here"), seed=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vocabulry", "did you mean 'vocabulary'"),
        ("text:  ", "needs an argument"),
        ("from:", "needs an argument, as in from:"),
        ("mixture:a,b", "write PATH=WEIGHT"),
        ("mixture:a=x", "write PATH=WEIGHT"),
        ("mixture:a=-1,b=2", "with a weight of 0 or more"),
        ("retrieve:", "needs an argument, as in retrieve:"),
        ("retrieve:here,top=0", "top is how many sources to mix, at least 1"),
        ("retrieve:here,top=few", "top is 'few', not a whole number"),
        ("retrieve:here,3", "write it as in retrieve:"),
    ],
)
def test_a_start_that_cannot_be_is_one_clear_line(text, message):
    with pytest.raises(UserError, match=message):
        check_start(text)
