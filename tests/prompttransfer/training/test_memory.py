"""Memory: what is expected is what autograd keeps, and computing inner values again changes no prompt."""

import pytest
import torch
from toys import label_task, noise, recipe, sentences, splits

from prompttransfer.adaptations.methods.prompt import PromptTuning
from prompttransfer.backbones.interventions import Vectors
from prompttransfer.backbones.layouts import LAYOUTS, USUAL
from prompttransfer.backbones.loading import outline_backbone
from prompttransfer.training.memory import expected_memory, kept_bytes
from prompttransfer.training.train import Job, RowEncoder, bank_data, train_adaptations

FIRST = LAYOUTS["prompt-first"]
CPU = torch.device("cpu")
KINDS = ("roberta", "bert", "t5", "t5-v1.1")


def rows(backbone):
    return backbone.encode(label_task(), sentences(), reserved=3)


def outlined_data(folder, plan):
    backbone = outline_backbone(str(folder))
    jobs = [Job(label_task(), splits())]
    encode = RowEncoder(backbone, plan.length, USUAL)
    method = PromptTuning(plan.length)
    data = bank_data(backbone, [encode.train(job) for job in jobs], jobs, plan, method, FIRST)
    return backbone, data, {encode.validation(jobs[0]): 1}, method


def vectors(backbone):
    return Vectors(torch.empty(len(rows(backbone)), 3, 16, device=backbone.device).requires_grad_())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_outline_keeps_as_many_bytes_as_the_backbone_itself(tiny, backbone_folder, kind, precision):
    real, outline = tiny(kind, precision), outline_backbone(str(backbone_folder(kind)))
    outline.move(outline.device, real.dtype)
    expected, tokens = kept_bytes(outline, rows(outline), vectors(outline), layout=FIRST)
    measured, same_tokens = kept_bytes(real, rows(real), vectors(real), layout=FIRST)
    assert tokens == same_tokens
    # The two differ by what is only known with values: whether anything is padded.
    assert expected == pytest.approx(measured, rel=0.1)


def test_more_rows_longer_prompts_and_float32_need_more_memory(backbone_folder):
    def total(dtype=torch.bfloat16, **values):
        outlined = outlined_data(backbone_folder("roberta"), recipe(**values))
        return expected_memory(*outlined, dtype=dtype, device=CPU).kept

    base = total(batch=4, length=3)
    assert total(batch=8, length=3) > 1.8 * base
    assert total(batch=4, length=20) > 1.8 * base
    assert total(torch.float32, batch=4, length=3) > 1.5 * base


@pytest.mark.parametrize("kind", ["roberta", "t5"])
def test_computing_inner_values_again_keeps_less(backbone_folder, kind):
    outlined = outlined_data(backbone_folder(kind), recipe(batch=8, length=20))
    kept = [
        expected_memory(*outlined, dtype=torch.float32, device=CPU, checkpoints=choice).kept
        for choice in (False, True)
    ]
    assert kept[1] < 0.7 * kept[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_computing_inner_values_again_changes_no_prompt(tiny, kind, precision):
    backbone, jobs = tiny(kind, precision), [Job(label_task(), splits())]
    plain = train_adaptations(backbone, jobs, recipe())[0].adaptation
    backbone.checkpoints = True
    try:
        again = train_adaptations(backbone, jobs, recipe())[0].adaptation
    finally:
        backbone.checkpoints = False
    assert torch.equal(plain.vectors, again.vectors) and plain.curve == again.curve


def test_the_line_says_what_the_memory_is_for(backbone_folder):
    outlined = outlined_data(backbone_folder("roberta"), recipe(batch=4))
    line = str(expected_memory(*outlined, dtype=torch.float32, device=CPU))
    for word in ("expected peak memory", "process", "weights", "kept for the backward pass", "4 rows"):
        assert word in line


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_modules_themselves(tiny, kind):
    found = []
    for engine in ("frozen", "plain"):
        backbone = tiny(kind, engine=engine)
        batch = backbone.batch(rows(backbone), layout=FIRST)
        prompt = noise(3, 16).requires_grad_()
        backbone.loss(Vectors(prompt.expand(batch.rows, -1, -1)), batch).sum().backward()
        found.append(prompt.grad)
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)


def test_many_prompts_on_many_rows_need_more_memory_to_evaluate(backbone_folder):
    backbone, data, evaluated, method = outlined_data(backbone_folder("roberta"), recipe(batch=1))
    few, many = (
        expected_memory(
            backbone,
            data,
            {task: prompts for task in evaluated},
            method,
            dtype=torch.float32,
            device=CPU,
        ).working
        for prompts in (1, 30)
    )
    assert many > 5 * few
