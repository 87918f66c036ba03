"""How alike prefixes are: keys and values in front of those of every attention, attention by attention.

One prefix is [length, attentions x 2 x size], of each attention its keys and then its values, as peft and the artifacts
have it. Keys are compared with keys and values with values of the same attention, by the cosines of prompts
(analysis/similarity.py): `concat` takes positions in their order, `average` all pairs of positions, since an attention
sees no order among what stands in front.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from analysis.similarity import cosine_average, cosine_concat, minus_initial
from tasks.errors import UserError

BySide = Callable[[Tensor, "Tensor | None"], Tensor]


def split_attentions(prefixes: Tensor, attentions: int) -> Tensor:
    """[n, length, attentions x 2 x size] as [attentions, keys or values, n, length, size]."""
    if prefixes.ndim != 3 or attentions < 1 or prefixes.shape[2] % (2 * attentions):
        raise UserError(
            f"prefixes of {attentions} attentions must be [n, length, {2 * attentions} x size]; given {list(prefixes.shape)}"
        )
    return prefixes.unflatten(2, (attentions, 2, -1)).permute(2, 3, 0, 1, 4)


def _of_side(side: int, cosine: Callable[[Tensor], Tensor], *, changes: bool = False) -> BySide:
    """Of prefixes [attentions, 2, n, length, size], and those that they were trained from, to [attentions, n, n]."""

    def by_attention(prefixes: Tensor, initial: Tensor | None) -> Tensor:
        starts = [None] * len(prefixes) if initial is None else list(initial[:, side])
        return torch.stack(
            [
                cosine(minus_initial(own, start) if changes else own)
                for own, start in zip(prefixes[:, side], starts, strict=True)
            ]
        )

    return by_attention


SIMILARITIES: dict[str, BySide] = {
    f"{name}-{way}{ending}": _of_side(side, cosine, changes=bool(ending))
    for ending in ("", "-minus-initial")
    for way, cosine in (("concat", cosine_concat), ("average", cosine_average))
    for side, name in enumerate(("keys", "values"))
}
"""Name -> how alike prefixes are at each attention; more is more alike."""
