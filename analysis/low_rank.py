"""How alike updates of low rank are (LoRA and its kin), from A [rank, in] and B [out, rank] at each linear map.

The products B A have as many values as the weights, and are never formed: <B1 A1, B2 A2> = <B1^T B2, A1 A2^T>, which is
[rank, rank]. Scales (alpha / rank) change no cosine where each adaptation has one, and no angle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from scipy.linalg import subspace_angles
from torch import Tensor

from tasks.errors import UserError

LowRank = Mapping[str, tuple[Tensor, Tensor]]
"""Name of a linear map -> A [rank, in] and B [out, rank]."""


def inner_products(updates: Sequence[LowRank]) -> dict[str, Tensor]:
    """Of all pairs of updates, <B1 A1, B2 A2> at each map, [n, n] float64. Ranks may differ."""
    checked = _checked(updates)
    found = {}
    for site in checked[0]:
        pairs = [update[site] for update in checked]
        found[site] = torch.stack(
            [torch.stack([((b1.T @ b2) * (a1 @ a2.T)).sum() for a2, b2 in pairs]) for a1, b1 in pairs]
        )
    return found


def product_cosines(updates: Sequence[LowRank]) -> dict[str, Tensor]:
    """Cosine of the products at each map, [n, n]; 0 with an update that is zero there."""
    return {site: _cosines(inner) for site, inner in inner_products(updates).items()}


def product_cosine(updates: Sequence[LowRank]) -> Tensor:
    """Cosine of the products of all maps in one, [n, n]."""
    return _cosines(torch.stack(list(inner_products(updates).values())).sum(0))


def principal_angles(first: LowRank, second: LowRank) -> dict[str, tuple[Tensor, Tensor]]:
    """At each map the angles between the row spaces of A and between the column spaces of B, in radians, largest first.

    The first says whether two updates read the same directions, the second whether they write the same. As many as the
    smaller rank; none where one side is zero. Columns of no length, as of an AdaLoRA that gave up some, do not count.
    """
    checked = _checked([first, second])
    return {
        site: tuple(_angles(left, right) for left, right in ((a1.T, a2.T), (b1, b2)))  # type: ignore[misc]
        for site, (a1, b1) in checked[0].items()
        for a2, b2 in [checked[1][site]]
    }


def overlaps_at_maps(updates: Sequence[LowRank], side: str) -> dict[str, Tensor]:
    """How far two updates read (`side` "A") or write ("B") the same directions at each map, [n, n] from 0 to 1.

    The mean of cos^2 of the principal angles; 0 where one side is zero.
    """
    place = {"A": 0, "B": 1}[side]
    sites = _checked(updates)[0]
    found = {site: torch.zeros(len(updates), len(updates), dtype=torch.float64) for site in sites}
    for row, one in enumerate(updates):
        for column in range(row, len(updates)):
            for site, angles in principal_angles(one, updates[column]).items():
                own = angles[place]
                overlap = own.cos().square().mean() if len(own) else 0.0
                found[site][row, column] = found[site][column, row] = overlap
    return found


def subspace_overlaps(updates: Sequence[LowRank], side: str) -> Tensor:
    """The same as the mean over the maps, [n, n]."""
    return torch.stack(list(overlaps_at_maps(updates, side).values())).mean(0)


SIMILARITIES: dict[str, Callable[[Sequence[LowRank]], Tensor]] = {
    "BA-cosine": product_cosine,
    "A-overlap": lambda updates: subspace_overlaps(updates, "A"),
    "B-overlap": lambda updates: subspace_overlaps(updates, "B"),
}
"""Name -> how alike updates are, [n, n], more is more alike."""
AT_MAPS: dict[str, Callable[[Sequence[LowRank]], dict[str, Tensor]]] = {
    "BA-cosine": product_cosines,
    "A-overlap": lambda updates: overlaps_at_maps(updates, "A"),
    "B-overlap": lambda updates: overlaps_at_maps(updates, "B"),
}
"""The same at each linear map by itself."""


def _angles(left: Tensor, right: Tensor) -> Tensor:
    """Between the spaces of the columns of [size, n] and [size, m]."""
    bases = [_basis(matrix.numpy()) for matrix in (left, right)]
    if any(basis.shape[1] == 0 for basis in bases):
        return torch.zeros(0, dtype=torch.float64)
    return torch.from_numpy(np.ascontiguousarray(subspace_angles(*bases)))


def _basis(matrix: np.ndarray) -> np.ndarray:
    """Orthonormal columns that span what those of `matrix` span."""
    left, values, _ = np.linalg.svd(matrix, full_matrices=False)
    least = values.max(initial=0.0) * max(matrix.shape) * np.finfo(np.float32).eps
    basis: np.ndarray = left[:, values > least]
    return basis


def _cosines(inner: Tensor) -> Tensor:
    norms = inner.diagonal().clamp(min=0).sqrt()
    norms = torch.where(norms == 0, torch.ones_like(norms), norms)
    return (inner / norms[:, None] / norms[None, :]).clamp(-1, 1)


def _checked(updates: Sequence[LowRank]) -> list[dict[str, tuple[Tensor, Tensor]]]:
    """`updates` in float64 on the CPU. Raises UserError for different maps, wrong shapes or values that are not finite."""
    if not updates or not updates[0]:
        raise UserError("no update of low rank given: name at least one adaptation such as a LoRA")
    if any(update.keys() != updates[0].keys() for update in updates):
        raise UserError("updates at different linear maps cannot be compared: give those of equal targets")
    for number, update in enumerate(updates):
        for site, (a, b) in update.items():
            first = updates[0][site]
            fits = a.ndim == b.ndim == 2 and len(a) == b.shape[1]
            if not fits or (a.shape[1], b.shape[0]) != (first[0].shape[1], first[1].shape[0]):
                raise UserError(
                    f"update {number} at {site}: A {list(a.shape)}, B {list(b.shape)}: they must be [rank, in], [out, rank]"
                )
            if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
                raise UserError(f"update {number} at {site} holds values that are not finite: train it again")
    return [
        {site: (a.detach().cpu().double(), b.detach().cpu().double()) for site, (a, b) in update.items()}
        for update in updates
    ]
