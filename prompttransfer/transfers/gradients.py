"""What the gradients of a task say of adaptations: how the loss would change at their parameters, and which of them matter.

A bank gives each member its own gradient in one backward pass, so that all sources run together on the target's rows; and
a bank of copies, one a row, gives the gradient of every row, whose squares are the Fisher information.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.bank import on_the_same
from prompttransfer.adaptations.method import Member, Method
from prompttransfer.adaptations.running import Group
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import USUAL, Encoding
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import batches
from tasks.task import Example, Task

ROWS_AT_ONCE = 16
MOST_NUMBERS = 20_000_000
"""Parameters of all copies that the rows of one Fisher pass may have together."""


def loss_gradients(
    backbone: Backbone,
    method: Method,
    points: Sequence[Mapping[str, Tensor]],
    task: Task,
    examples: Sequence[Example],
    encoding: Encoding = USUAL,
    *,
    reserved: int,
) -> Tensor:
    """Gradient of the mean loss on `examples` at each of the adaptations `points`, [points, parameters] float64."""
    members = [method.restored(tensors) for tensors in points]
    encoded = encode_task(backbone, task, examples, encoding, reserved=reserved)
    total: Tensor | float = 0.0
    for _, batch in batches(
        backbone, encoded, prompts=2 * len(members)
    ):  # a backward pass keeps twice as much
        own, wide = on_the_same(method.bank(backbone, members), batch)
        loss = backbone.row_losses(own, wide).sum() / len(examples)
        total = total + _gradients(loss, members)
    return torch.as_tensor(total)


def fisher_diagonal(
    backbone: Backbone,
    adaptation: Adaptation,
    task: Task,
    examples: Sequence[Example],
    encoding: Encoding = USUAL,
) -> Tensor:
    """Diagonal of the Fisher information of an adaptation's parameters on rows of a task, [parameters] float64.

    E over rows x and labels y ~ p(y|x) of (d log p(y|x) / d parameter)^2 (Achille et al. 2019, arXiv 1902.03545, eq. 1);
    the expectation over the task's labels is exact, so labels of rows play no part.
    """
    method, reserved = adaptation.method, Group((0,), (adaptation,)).reserved
    encoded = encode_task(backbone, task, examples, encoding, reserved=reserved)
    size = sum(parameter.numel() for parameter in method.restored(adaptation.tensors).parameters())
    at_once = max(1, min(ROWS_AT_ONCE, MOST_NUMBERS // size))
    total: Tensor | float = 0.0
    for start in range(0, len(encoded.rows), at_once):
        rows = encoded.rows[start : start + at_once]
        members = [method.restored(adaptation.tensors) for _ in rows]
        owners = torch.arange(len(rows), device=backbone.device)
        batch = backbone.batch(rows, layout=encoded.layout)
        scores = backbone.label_scores(method.bank(backbone, members).rows(owners), batch)
        shares = scores.detach().exp().double().cpu()
        for label in range(scores.shape[1]):
            each = _gradients(scores[:, label].sum(), members, keep=label + 1 < scores.shape[1])
            total = total + shares[:, label] @ each.square()
    return torch.as_tensor(total) / len(encoded.rows)


def _gradients(value: Tensor, members: Sequence[Member], *, keep: bool = False) -> Tensor:
    """The gradient of a number for each member's parameters in one row, [members, parameters] float64 on the CPU."""
    own = [list(member.parameters()) for member in members]
    flat = [parameter for parameters in own for parameter in parameters]
    found = torch.autograd.grad(value, flat, retain_graph=keep, allow_unused=True)
    parts = [
        torch.zeros(p.numel(), dtype=torch.float64) if g is None else g.detach().double().cpu().flatten()
        for p, g in zip(flat, found, strict=True)
    ]
    return torch.cat(parts).unflatten(0, (len(members), -1))


def parameters_of(method: Method, tensors: Mapping[str, Tensor]) -> Tensor:
    """An adaptation's parameters in the order of the gradients, [parameters] float64."""
    return torch.cat([p.detach().double().cpu().flatten() for p in method.restored(tensors).parameters()])


def cosine(one: Tensor, other: Tensor) -> float:
    """Of two vectors; 0 with one that is zero."""
    norms = float(one.norm() * other.norm())
    return float(one @ other) / norms if norms else 0.0


def task2vec_cosine(one: Tensor, other: Tensor) -> float:
    """Cosine of F1 / (F1 + F2) and F2 / (F1 + F2), which no parameter of large scale decides alone (eq. 2 of the paper)."""
    both = one + other
    both = torch.where(both == 0, 1.0, both)
    return cosine(one / both, other / both)
