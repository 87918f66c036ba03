"""How alike prompts are, from their vectors alone: indicators that cost no run of a model.

An indicator is a function from prompts [n, length, width] (and, for some, the vectors they were trained from) to a
float64 matrix [n, n]. The four metrics of Su et al. 2022 (arXiv 2111.06719, section 5.1) see two things that are not
transfer: that prompts often start from one initialisation, and that the order of tokens is arbitrary. So each comes
with controls: minus the initial vectors, minus the mean prompt, and after the best assignment of tokens.
Token pairs are never looped over: means of cosines are cosines of means, and distances come from blocked products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from tasks.errors import UserError, unknown

Similarity = Callable[[Tensor, "Tensor | None"], Tensor]

_BLOCK_TOKENS = 2_000  # tokens in one block of distances: 2,000 x 20,000 float64 is 320 MB


def check_prompts(prompts: Tensor) -> Tensor:
    """Prompts as float64 [n, length, width], or a UserError for another shape or values that are not finite."""
    if prompts.ndim != 3 or 0 in prompts.shape:
        raise UserError(f"prompts must be [prompts, length, width]; given {list(prompts.shape)}")
    if not torch.isfinite(prompts).all():
        bad = [i for i in range(len(prompts)) if not torch.isfinite(prompts[i]).all()]
        raise UserError(f"prompts {bad[:8]} hold values that are not finite: train them again")
    return prompts.detach().to("cpu", torch.float64)


def euclidean_concat(prompts: Tensor) -> Tensor:
    """E_concat = 1 / (1 + ||P1 - P2||_F), [n, n]."""
    flat = check_prompts(prompts).flatten(1)
    distances = torch.zeros(len(flat), len(flat), dtype=torch.float64)
    upper = torch.triu_indices(len(flat), len(flat), offset=1)
    distances[upper[0], upper[1]] = torch.pdist(
        flat
    )  # differences, not |a|²+|b|²-2ab: exact for near-equal prompts
    return 1 / (1 + distances + distances.T)


def euclidean_average(prompts: Tensor) -> Tensor:
    """E_average = 1 / (1 + mean over token pairs of ||p1_i - p2_j||), [n, n]; not 1 for a prompt with itself."""
    values = check_prompts(prompts)
    count, length, width = values.shape
    tokens = values.reshape(-1, width)
    tokens = tokens - tokens.mean(0)  # distances do not see a shift, rounding does
    norms = tokens.square().sum(1)
    step = max(1, _BLOCK_TOKENS // length)
    means = torch.zeros(count, count, dtype=torch.float64)
    for first in range(0, count, step):
        rows = slice(first * length, (first + step) * length)
        rest = slice(first * length, None)  # symmetric: only this block and those after it
        block = torch.addmm(norms[None, rest], tokens[rows], tokens[rest].T, alpha=-2).add_(norms[rows, None])
        block = block.clamp_(min=0).sqrt_().reshape(-1, length, count - first, length)
        means[first : first + step, first:] = block.sum((1, 3)) / length**2
    means = means.triu()
    return 1 / (1 + means + means.triu(1).T)


def cosine_concat(prompts: Tensor) -> Tensor:
    """C_concat = cos(vec P1, vec P2), [n, n]."""
    return _cosines(check_prompts(prompts).flatten(1))


def cosine_average(prompts: Tensor) -> Tensor:
    """C_average = mean over token pairs of cos(p1_i, p2_j), [n, n]; equals the product of the means of unit tokens."""
    units = _unit(check_prompts(prompts)).mean(1)
    return units @ units.T


def average_token_cosine(prompts: Tensor) -> Tensor:
    """cos(mean token of P1, mean token of P2), [n, n] (SPoT, Vu et al. 2022, arXiv 2110.07904, section 4.2)."""
    return _cosines(check_prompts(prompts).mean(1))


def matched_cosine(prompts: Tensor) -> Tensor:
    """C_concat after the assignment of tokens that makes it largest, [n, n]: blind to the order of tokens."""
    values = check_prompts(prompts)
    norms = values.flatten(1).norm(dim=1)
    return _matched_products(values) / _not_zero(norms[:, None] * norms[None, :])


def matched_euclidean(prompts: Tensor) -> Tensor:
    """E_concat after the assignment of tokens that makes the distance least, [n, n] (the same assignment)."""
    values = check_prompts(prompts)
    squares = values.square().sum((1, 2))
    distances = squares[:, None] + squares[None, :] - 2 * _matched_products(values)
    return 1 / (1 + distances.clamp(min=0).sqrt())


def _matched_products(values: Tensor) -> Tensor:
    """Largest sum of p1_i . p2_pi(i) over permutations pi, for every pair, [n, n]."""
    count = len(values)
    best = torch.zeros(count, count, dtype=torch.float64)
    for first in range(count):
        products = torch.einsum("id,njd->nij", values[first], values[first:]).numpy()
        for offset, product in enumerate(products):
            rows, columns = linear_sum_assignment(product, maximize=True)
            best[first, first + offset] = best[first + offset, first] = float(product[rows, columns].sum())
    return best


def _unit(vectors: Tensor) -> Tensor:
    return vectors / _not_zero(vectors.norm(dim=-1, keepdim=True))


def _cosines(vectors: Tensor) -> Tensor:
    units = _unit(vectors)
    return (units @ units.T).clamp_(-1, 1)


def _not_zero(norms: Tensor) -> Tensor:
    """A zero vector has no direction: its cosine with anything is taken as 0, not NaN."""
    return torch.where(norms == 0, torch.ones_like(norms), norms)


def minus_mean(prompts: Tensor) -> Tensor:
    """Prompts less the mean prompt, which holds what they share (an initialisation, the backbone's habits)."""
    values = check_prompts(prompts)
    if len(values) < 3:
        raise UserError(
            f"the mean prompt says nothing over {len(values)} prompts: give at least 3, or another metric"
        )
    return values - values.mean(0)


def minus_initial(prompts: Tensor, initial: Tensor | None) -> Tensor:
    """What training changed: prompts less the vectors they were trained from, [n, length, width] each."""
    if initial is None or initial.shape != prompts.shape:
        raise UserError(
            "a minus-initial metric needs the initial vectors of every prompt, and some have none stored: "
            "train with this version, or leave the metric out"
        )
    return check_prompts(prompts) - check_prompts(initial)


METRICS: dict[str, Callable[[Tensor], Tensor]] = {
    "E_concat": euclidean_concat,
    "E_average": euclidean_average,
    "C_concat": cosine_concat,
    "C_average": cosine_average,
    "C_average-token": average_token_cosine,
    "E_matched": matched_euclidean,
    "C_matched": matched_cosine,
}
PAPER_METRICS = ("E_concat", "E_average", "C_concat", "C_average")


def _plain(metric: str) -> Similarity:
    return lambda prompts, initial: METRICS[metric](prompts)


def _without_mean(metric: str) -> Similarity:
    return lambda prompts, initial: METRICS[metric](minus_mean(prompts))


def _without_initial(metric: str) -> Similarity:
    return lambda prompts, initial: METRICS[metric](minus_initial(prompts, initial))


INDICATORS: dict[str, Similarity] = {
    **{name: _plain(name) for name in METRICS},
    # a common shift changes no distance, so minus-mean is for the cosines only
    **{f"{name}-minus-mean": _without_mean(name) for name in METRICS if name.startswith("C_")},
    **{f"{name}-minus-initial": _without_initial(name) for name in METRICS},
}


def similarity(
    name: str, prompts: Tensor, labels: Sequence[str], initial: Tensor | None = None
) -> pd.DataFrame:
    """The indicator `name` over prompts [n, length, width] as a table with `labels` on both sides."""
    if name not in INDICATORS:
        raise unknown("similarity metric", name, INDICATORS)
    if len(labels) != len(prompts):
        raise ValueError(f"{len(labels)} labels for {len(prompts)} prompts")
    values = INDICATORS[name](prompts, initial)
    return pd.DataFrame(values.numpy(), index=list(labels), columns=list(labels))
