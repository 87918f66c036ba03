"""Carrying updates of weights (LoRA and its kin) to another model, from the weights of both alone: nothing is fitted.

    copy         W_t + B A, where the maps have the same shape: the control of every other one (PortLLM, arXiv 2410.10870)
    cross-lora   L B A R^T with L = U_t U_s^T and R = V_t V_s^T, of the truncated SVDs of both weights (arXiv 2508.05232):
                 of all maps those that bring U_s to U_t and V_s to V_t in the Frobenius norm, and of these the smallest
    lora-x       L B A R^T with L = U_t U_t^T and R = V_t V_t^T: what of the update lies in the directions that the target's
                 weight uses (arXiv 2501.16559), where the maps have the same shape

Each is a map L on what an update writes and a map R on what it reads, so rank and factors stay: B becomes L B, A becomes A R^T.

An SVD fixes u_i and v_i up to one sign for both, and L B A R^T changes with it. The papers say nothing of that. `signs="words"`
takes for each i the sign under which words that both models know lie on the same side of v_i (of u_i for a map that writes
into the stream); `signs="found"` makes the largest entry of u_i positive, which is arbitrary but the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from projectors.closed_form import SharedWords
from prompttransfer.adaptations.updates import Update
from tasks.errors import UserError, unknown

SIGNS = ("words", "found")


@dataclass(frozen=True)
class Carrier:
    """How updates are carried."""

    method: str = "cross-lora"
    rank: int | None = None
    """Directions kept of each weight's SVD; None: all for cross-lora, half of them for lora-x, which keeps all otherwise."""
    signs: str = "words"

    def __post_init__(self) -> None:
        if self.method not in CARRIERS:
            raise unknown("way to carry updates of weights", self.method, CARRIERS)
        if self.rank is not None and self.rank < 1:
            raise UserError(f"{self.method}: rank {self.rank}: it must be at least 1")
        if self.signs not in SIGNS:
            raise unknown("way to choose signs", self.signs, SIGNS)

    @property
    def needs_words(self) -> bool:
        """Whether it reads the words that both models know."""
        return self.method == "cross-lora" and self.signs == "words"


@dataclass(frozen=True, eq=False)
class Maps:
    """The weights of two linear maps [out, in] of two models that stand for each other, and what else is known of them."""

    source: Tensor
    target: Tensor
    site: str
    """The target's map, for messages."""
    words: SharedWords | None = None
    writes: bool = False
    """Whether they write into the stream between layers; others read from it."""


Side = tuple[Tensor, Tensor] | None
"""P [target size, n] and Q [source size, n] of a map P Q^T; None for the identity."""


def copied(maps: Maps, carrier: Carrier) -> tuple[Side, Side]:
    """Nothing is changed."""
    _check_shapes(maps, carrier)
    return None, None


def cross_lora(maps: Maps, carrier: Carrier) -> tuple[Side, Side]:
    """U_t U_s^T and V_t V_s^T, float64."""
    rank = _rank(maps, carrier, min(*maps.source.shape, *maps.target.shape))
    (u_s, v_s), (u_t, v_t) = (_bases(weight, rank) for weight in (maps.source, maps.target))
    if carrier.signs == "words":
        sign = _signs((u_s, u_t) if maps.writes else (v_s, v_t), maps.words)
        u_t, v_t = u_t * sign, v_t * sign
    return (u_t, u_s), (v_t, v_s)


def lora_x(maps: Maps, carrier: Carrier) -> tuple[Side, Side]:
    """U_t U_t^T and V_t V_t^T, float64."""
    _check_shapes(maps, carrier)
    u, v = _bases(maps.target, _rank(maps, carrier, max(1, min(maps.target.shape) // 2)))
    return (u, u), (v, v)


CARRIERS: dict[str, Callable[[Maps, Carrier], tuple[Side, Side]]] = {
    "copy": copied,
    "cross-lora": cross_lora,
    "lora-x": lora_x,
}


def carried(update: Update, sides: tuple[Side, Side]) -> Update:
    """A R^T and L B of an update."""
    (a, b), (left, right) = update, sides
    return _through(right, a.T).T.contiguous(), _through(left, b)


def _through(side: Side, columns: Tensor) -> Tensor:
    if side is None:
        return columns
    into, out_of = side
    return (into @ (out_of.T @ columns.double())).float()


def _bases(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """U [out, rank] and V [in, rank] of the truncated SVD, float64, the largest entry of each u positive."""
    u, _, vh = torch.linalg.svd(weight.double(), full_matrices=False)
    u, v = u[:, :rank], vh[:rank].T
    sign = u.gather(0, u.abs().argmax(dim=0, keepdim=True)).sign()
    return u * sign, v * sign


def _signs(directions: tuple[Tensor, Tensor], words: SharedWords | None) -> Tensor:
    """+1 or -1 for each pair of directions [size, rank] of both models, by the sides on which shared words lie."""
    assert words is not None
    tables = (table.double() - table.double().mean(0) for table in (words.source, words.target))
    source, target = (table @ basis for table, basis in zip(tables, directions, strict=True))
    return torch.where((source * target).sum(0) < 0, -1.0, 1.0)


def _rank(maps: Maps, carrier: Carrier, usual: int) -> int:
    rank, most = carrier.rank or usual, min(*maps.source.shape, *maps.target.shape)
    if rank > most:
        raise UserError(
            f"{carrier.method}: rank {rank} is above the size of {maps.site}: use a rank of at most {most}"
        )
    return rank


def _check_shapes(maps: Maps, carrier: Carrier) -> None:
    if maps.source.shape != maps.target.shape:
        raise UserError(
            f"{carrier.method} needs models of the same widths: {maps.site} is {list(maps.target.shape)}, its counterpart "
            f"{list(maps.source.shape)}, and no entry of one is an entry of the other; use cross-lora"
        )
