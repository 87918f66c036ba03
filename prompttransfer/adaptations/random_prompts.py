"""Random prompts at matched norm: the control for what any vectors of that size do, with one definition everywhere.

A random prompt is drawn for one given prompt: its vectors have the norms of that prompt's own vectors, in random
order, and random directions. The norm is part of what a prompt is (trained ones differ by a factor of forty), so a
mean of norms would be the norm of none of them (docs/transfer-statistics.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

LEAST_DRAWS, MOST_DRAWS = 12, 48
"""Random prompts that stand for a set of given ones: whole rounds over them, or a part of one where there are many."""


def random_draws(prompts: int, least: int = LEAST_DRAWS, most: int = MOST_DRAWS) -> int:
    """How many random prompts to draw for so many given ones: the fewest whole rounds with `least`, at most `most`.

    12 for 1 prompt, 16 for 8, 13 for 13; 48 for 200, which are then those of 48 of them.
    """
    return min(prompts * -(-least // prompts), max(most, least))


def rounds(count: int, draws: int, generator: torch.Generator) -> Tensor:
    """`draws` numbers below `count`, round after round in a random order, so that each is as frequent as any other."""
    order = [torch.randperm(count, generator=generator) for _ in range(-(-draws // count))]
    return torch.cat(order)[:draws]


def scrambled(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Vectors [..., width] of the same norms in random order, in directions that are uniform on the sphere."""
    flat = tensor.detach().float().reshape(-1, tensor.shape[-1])
    norms = flat.norm(dim=-1)[torch.randperm(len(flat), generator=generator)]
    directions = functional.normalize(torch.randn(flat.shape, generator=generator), dim=-1)
    return (directions * norms[:, None]).reshape(tensor.shape)


def random_like(prompts: Sequence[Tensor] | Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """`draws` random prompts [draws, length, width] for the given ones [n, length, width].

    They go round the given prompts in a random order, so that each is stood for as often as any other (to within
    one). Each has the norms of its prompt's vectors, permuted, and directions that are uniform on the sphere.
    """
    norms = torch.stack([prompt.detach().float().norm(dim=-1) for prompt in prompts])
    count, length = norms.shape
    chosen = norms[rounds(count, draws, generator)]
    order = torch.stack([torch.randperm(length, generator=generator) for _ in range(draws)])
    directions = functional.normalize(
        torch.randn(draws, length, prompts[0].shape[-1], generator=generator), dim=-1
    )
    return directions * chosen.gather(1, order)[..., None]
