"""What a projector learns from: the target's labels, and what the source answers to the same rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import examples, prompt, task, tiny_backbone
from torch import Tensor
from torch.nn.functional import kl_div

from projectors.experiment import run_experiment
from projectors.fitting import FitSettings
from projectors.gathering import Options
from projectors.lessons import check_answers, lesson, source_answers
from projectors.methods import plan_for
from prompttransfer.adaptations.bank import VectorBank
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import USUAL, find_layout
from prompttransfer.training.batches import RowOrder
from tasks.catalog import find_task
from tasks.errors import UserError
from tasks.task import Task

SOURCE, TARGET = tiny_backbone(16, 0, "small"), tiny_backbone(24, 1, "wide")
ROWS = examples("film")
PROMPTS = [prompt(SOURCE, "film", seed) for seed in (0, 1, 2)]


def one_by_one(backbone: Backbone, vectors: Tensor) -> Tensor:
    """[rows, classes] log-probabilities of each row, alone in its batch, under one prompt."""
    rows = backbone.encode(task("film"), ROWS, USUAL, reserved=len(vectors))
    layout = find_layout("prompt-first")
    with torch.no_grad():
        said = [
            backbone.label_scores(VectorBank(vectors[None]).rows(torch.tensor([0])), backbone.batch([row], layout=layout))
            for row in rows
        ]  # fmt: skip
    return torch.cat(said).log_softmax(-1)


def test_the_sources_answers_are_its_scores_of_each_row_under_each_prompt() -> None:
    found = source_answers(SOURCE, task("film"), ROWS, PROMPTS, USUAL)
    assert found.shape == (3, 8, 2)
    for own, said in zip(PROMPTS, found, strict=True):
        torch.testing.assert_close(said, one_by_one(SOURCE, own.vectors), atol=1e-5, rtol=0)


def test_the_distance_to_the_source_is_added_row_by_row_with_its_weight() -> None:
    """Rows and prompts by hand: row i of a step is the row `numbers[i]` under projected prompt i modulo k."""
    answers = source_answers(SOURCE, task("film"), ROWS, PROMPTS, USUAL)
    taught = lesson(TARGET, task("film"), ROWS, PROMPTS, encoding=USUAL, length=4, batch=8, answers=answers)
    projected = torch.stack([prompt(TARGET, "film", seed).vectors for seed in (5, 6)])
    which = torch.tensor([2, 0])
    plain, both = (float(taught.loss(projected, which, 0, weight)) for weight in (0.0, 3.0))
    said = torch.stack([one_by_one(TARGET, vectors) for vectors in projected])
    rows = TARGET.encode(task("film"), ROWS, USUAL, reserved=4)
    numbers = RowOrder(tuple(row.size for row in rows), 8, 0).step(0)
    apart = [
        kl_div(said[place % 2, row], answers[which[place % 2], row], log_target=True, reduction="sum")
        for place, row in enumerate(numbers)
    ]
    assert both - plain == pytest.approx(3 * float(torch.stack(apart).mean()), abs=1e-4)
    assert both - plain > 0.01


def test_a_target_that_answers_as_the_source_does_is_no_distance_away() -> None:
    answers = source_answers(SOURCE, task("film"), ROWS, PROMPTS, USUAL)
    own = lesson(SOURCE, task("film"), ROWS, PROMPTS, encoding=USUAL, length=4, answers=answers)
    every = torch.stack([one.vectors for one in PROMPTS])
    losses = [float(own.loss(every, torch.arange(3), 0, weight)) for weight in (0.0, 100.0)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)


def test_answers_are_part_of_what_a_lesson_is_known_by() -> None:
    answers = source_answers(SOURCE, task("film"), ROWS, PROMPTS, USUAL)
    known = [
        lesson(TARGET, task("film"), ROWS, PROMPTS, encoding=USUAL, length=4, answers=said).origin
        for said in (None, answers, answers + 1)
    ]
    assert len(set(known)) == 3


def test_a_task_without_label_words_has_no_answers_to_learn_from() -> None:
    """Text that is written, and several labels a row; said before any prompt is read or trained."""
    several = Task("topics", "topic", "sentence", labels=("plot", "food"), separator=";")
    options = Options(work=Path("nowhere"), plan=plan_for(settings=FitSettings(distil=1.0), start="random"))
    for other in (find_task("scitldr"), several):
        with pytest.raises(UserError, match="has no label words"):
            run_experiment(SOURCE, TARGET, [other], [], options)
    check_answers(task("film"))
