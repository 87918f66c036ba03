"""Calibration: what a prompt's label words score whatever the text says, taken off before the best one is chosen.

A frozen model prefers some words to others (Zhao et al. 2021, arXiv 2102.09690), so a raw score mixes what a prompt
carries over with that bias: a prompt may pass for useless that only leans to one word, or for useful because it does
not. The bias of a prompt is the mean log-probability of each label word over inputs that say nothing of the answer:

    content-free   the task's own format with an empty text, and with "N/A" (Zhao et al. average probabilities)
    train-mean     training rows without their labels, drawn by seed (in the spirit of batch calibration, Zhou et al.
                   2024, arXiv 2309.17249, whose batch is the test set); test rows are never looked at

A constant that is added to the score of a label is so removed exactly. Tasks that are written have no label words and
no calibrated score.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prompttransfer.adaptations.bank import Bank, BareBank, on_the_same
from prompttransfer.backbones.base import Backbone
from prompttransfer.evaluation.encoding import EncodedTask, encode_task
from prompttransfer.evaluation.evaluate import Score, batches, evaluate_bank, evaluate_calibrated
from tasks.errors import unknown
from tasks.loading import Splits, sample
from tasks.task import Example, Task

NONE, CONTENT_FREE, TRAIN_MEAN = "none", "content-free", "train-mean"
METHODS = (CONTENT_FREE, TRAIN_MEAN)
ROWS = 128
"""Training rows of `train-mean`."""
NOTHING = ("", "N/A")
"""Texts that say nothing."""
NO_WORDS = "its answer is written or a head's: there are no label words to calibrate"


@dataclass(frozen=True)
class Calibration:
    """How the bias of the label words is found."""

    method: str = TRAIN_MEAN
    rows: int = ROWS
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise unknown("calibration", self.method, METHODS)

    def __str__(self) -> str:
        if self.method == TRAIN_MEAN:
            return f"train-mean, at most {self.rows} training rows without labels, seed {self.seed}"
        return self.method

    def inputs(self, task: Task, splits: Splits) -> tuple[Example, ...]:
        """The inputs that the bias is measured on, without labels."""
        if self.method == CONTENT_FREE:
            return content_free(task)
        return tuple(replace(row, label=None) for row in sample(splits.train, self.seed, self.rows))


def content_free(task: Task) -> tuple[Example, ...]:
    """Inputs in the format of the task that say nothing, one for each of NOTHING."""
    pair = task.kind == "pair"
    texts = [f"{text} {text}".strip() if task.aspect else text for text in NOTHING]
    return tuple(Example(text, text if pair else None) for text in texts)


@torch.no_grad()
def label_bias(backbone: Backbone, bank: Bank, inputs: EncodedTask) -> Tensor:
    """Mean log-probability of each label word over `inputs`, [members, classes] float64, a row for each member of `bank`.

    All members pass over the same inputs together.
    """
    count = bank.members
    total: Tensor | None = None
    for indices, batch in batches(backbone, inputs, prompts=count, processes=backbone.processes):
        scores = backbone.label_scores(*on_the_same(bank, batch)).double().cpu()
        own = scores.unflatten(0, (count, batch.rows))[:, : len(indices)].sum(dim=1)
        total = own if total is None else total + own
    assert total is not None
    parts: list[Tensor] = backbone.processes.gather(total)
    return torch.stack(parts).sum(dim=0) / len(inputs.rows)


def evaluate_both(
    backbone: Backbone, bank: Bank, encoded: EncodedTask, inputs: EncodedTask | None, *, keep: bool = False
) -> tuple[list[Score], list[Score] | None]:
    """The scores of every prompt, and the calibrated ones by `inputs`; None without inputs. With `keep` they have the answers."""
    if inputs is None:
        return evaluate_bank(backbone, bank, encoded, keep=keep), None
    return evaluate_calibrated(backbone, bank, encoded, label_bias(backbone, bank, inputs), keep=keep)


def encode_inputs(
    backbone: Backbone,
    calibration: Calibration,
    encoded: EncodedTask,
    splits: Splits,
) -> EncodedTask | None:
    """The inputs of a calibration, made as the rows of `encoded` are; None for a task without label words."""
    if not encoded.task.has_words:
        return None
    return encode_task(
        backbone,
        encoded.task,
        calibration.inputs(encoded.task, splits),
        encoded.encoding,
        reserved=encoded.reserved,
    )


def bare_calibrated(
    backbone: Backbone, encoded: EncodedTask, inputs: EncodedTask | None
) -> tuple[Score | None, Score | None]:
    """The backbone without a prompt, raw and calibrated; None where it cannot answer (`bare_score`)."""
    if encoded.task.head:
        return None, None
    raw, calibrated = evaluate_both(backbone, BareBank(), encoded, inputs)
    return raw[0], calibrated[0] if calibrated else None


def calibration_of(method: str) -> Calibration | None:
    """The calibration of a name in METHODS; None for `none`."""
    if method not in (NONE, *METHODS):
        raise unknown("calibration", method, (NONE, *METHODS))
    return None if method == NONE else Calibration(method)
