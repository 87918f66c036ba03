"""Composition: one adaptation out of several without training.

Each part is a method with an artifact's tensors and a weight; out come a method and its tensors. Prompts are combined vector
by vector. For a LoRA what counts is the product s B A and not its factors, whose sum is not the sum of the products: a
weighted sum sets the factors side by side, which is exact, in a rank that is the sum of ranks; TIES and DARE work on the
products, one map at a time, and come back to that rank by a truncated SVD.

One part of weight 1 is itself, bit for bit, in all of them: trimming and dropping are there to keep parts apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prompttransfer.adaptations.method import Method
from prompttransfer.adaptations.methods.low_rank import Lora, LowRankMember
from prompttransfer.adaptations.methods.maps import PREFIX, parsed
from prompttransfer.adaptations.methods.prompt import PROMPT_KEY
from tasks.errors import UserError


@dataclass(frozen=True, eq=False)
class Part:
    """An adaptation that enters a composition."""

    method: Method
    tensors: Mapping[str, Tensor]
    weight: float = 1.0


Composed = tuple[Method, dict[str, Tensor]]


def weighted_sum(parts: Sequence[Part]) -> Composed:
    """The sum of vectors, or of products s B A, each times its weight."""
    counted = _checked(parts)
    if len(counted) == 1 and counted[0].weight == 1:
        return counted[0].method, dict(counted[0].tensors)
    if PROMPT_KEY in counted[0].tensors:
        return counted[0].method, {
            PROMPT_KEY: _sum(part.weight * part.tensors[PROMPT_KEY] for part in counted)
        }
    tables = [_factors(part) for part in counted]
    scale = _lora(counted[0]).scale
    found: dict[str, Tensor] = {}
    for site in tables[0][0]:
        found[f"{PREFIX}{site}.lora_A.weight"] = torch.cat([into[site] for into, _ in tables])
        found[f"{PREFIX}{site}.lora_B.weight"] = torch.cat(
            [
                part.weight * _lora(part).scale / scale * out[site]
                for part, (_, out) in zip(counted, tables, strict=True)
            ],
            dim=1,
        )
    return _lora_of(sum(_lora(part).rank for part in counted), scale), found


def ties(parts: Sequence[Part], *, density: float = 0.2) -> Composed:
    """TIES (Yadav et al. 2023, arXiv 2306.01708): of each part the `density` share of largest values (over all its vectors or
    products together), then for every value the mean of those parts whose sign is that of the sum."""
    if not 0 < density <= 1:
        raise UserError(f"ties: density {density}: the share of values that is kept, above 0 and at most 1")

    def trimmed(values: Sequence[Tensor]) -> list[Tensor]:
        sizes = torch.cat([value.abs().flatten() for value in values])
        kept = max(1, round(density * len(sizes)))
        least = sizes.kthvalue(len(sizes) - kept + 1).values
        return [torch.where(value.abs() >= least, value, 0.0) for value in values]

    return _elementwise(parts, trimmed, _agreed)


def dare(parts: Sequence[Part], *, drop: float = 0.5, generator: torch.Generator) -> Composed:
    """DARE (Yu et al. 2023, arXiv 2311.03099): each value is dropped with probability `drop`, those left are divided by
    1 - drop, and the parts are added up."""
    if not 0 <= drop < 1:
        raise UserError(f"dare: drop {drop}: the share of values that is dropped, from 0 up to below 1")

    def thinned(values: Sequence[Tensor]) -> list[Tensor]:
        kept = [torch.rand(value.shape, generator=generator) >= drop for value in values]
        return [value * keep / (1 - drop) for value, keep in zip(values, kept, strict=True)]

    return _elementwise(parts, thinned, lambda values: values.sum(0))


def _agreed(values: Tensor) -> Tensor:
    """For values [parts, ...] the mean of those whose sign is that of their sum; 0 where there are none."""
    chosen = (values.sign() == values.sum(0).sign()) & (values != 0)
    return (values * chosen).sum(0) / chosen.sum(0).clamp(min=1)


def _elementwise(
    parts: Sequence[Part],
    each: Callable[[Sequence[Tensor]], list[Tensor]],
    together: Callable[[Tensor], Tensor],
) -> Composed:
    """`each` of what a part holds, times the part's weight, then `together` of all parts, [parts, ...] to one."""
    counted = _checked(parts)
    if len(counted) == 1 and counted[0].weight == 1:
        return counted[0].method, dict(counted[0].tensors)
    held = [_held(part) for part in counted]
    changed = [
        [part.weight * value for value in each(list(own.values()))]
        for part, own in zip(counted, held, strict=True)
    ]
    found = {
        name: together(torch.stack(values))
        for name, values in zip(held[0], zip(*changed, strict=True), strict=True)
    }
    if PROMPT_KEY in found:
        return counted[0].method, found
    rank = sum(_lora(part).rank for part in counted)
    rank = min(rank, *(min(value.shape) for value in found.values()))
    tensors: dict[str, Tensor] = {}
    for site, value in found.items():
        into, out = truncated(value, rank)
        tensors |= {f"{PREFIX}{site}.lora_A.weight": into, f"{PREFIX}{site}.lora_B.weight": out}
    return _lora_of(rank, 1.0), tensors


def truncated(product: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A [rank, in] and B [out, rank] whose product is nearest to `product` [out, in], the size shared between them."""
    left, values, right = torch.linalg.svd(product.double(), full_matrices=False)
    root = values[:rank].sqrt()
    return (root[:, None] * right[:rank]).float(), (left[:, :rank] * root).float()


def _held(part: Part) -> dict[str, Tensor]:
    """The vectors of a prompt, or the products s B A of a LoRA under the names of their maps."""
    if PROMPT_KEY in part.tensors:
        return {PROMPT_KEY: part.tensors[PROMPT_KEY]}
    into, out = _factors(part)
    return {site: _lora(part).scale * (out[site] @ a) for site, a in into.items()}


def _lora(part: Part) -> Lora:
    assert isinstance(part.method, Lora)
    return part.method


def _factors(part: Part) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A and B by map."""
    tables = parsed(part.tensors, LowRankMember.names, part.method.name)
    return tables["into"], tables["out"]


def _lora_of(rank: int, scale: float) -> Lora:
    """The LoRA of this rank whose s is `scale`."""
    return Lora(rank=rank, alpha=scale * rank)


def _sum(tensors: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(tensors)).sum(0)


PRODUCTS = ("lora", "lora-plus", "lora-fa")
"""Methods whose artifacts are s B A and nothing else."""


def _checked(parts: Sequence[Part]) -> list[Part]:
    """Those of `parts` that count. Raises UserError where they cannot be composed."""
    counted = [part for part in parts if part.weight != 0]
    if not counted:
        raise UserError("nothing to compose: give at least one adaptation with a weight other than 0")
    check_parts(counted)
    return counted


def check_parts(parts: Sequence[Part]) -> None:
    """Raise UserError unless these can be composed: prompts of one shape, or LoRAs at the same linear maps."""
    for part in parts:
        if not (PROMPT_KEY in part.tensors or part.method.name in PRODUCTS):
            raise UserError(
                f"{part.method.name} cannot be composed: give prompts, or adaptations of {', '.join(PRODUCTS)}"
            )
    first = parts[0]
    vectors = PROMPT_KEY in first.tensors
    if any((PROMPT_KEY in part.tensors) is not vectors for part in parts):
        raise UserError("prompts and LoRAs cannot be composed with each other: give one kind")
    if vectors:
        shapes = {tuple(part.tensors[PROMPT_KEY].shape) for part in parts}
        if len(shapes) > 1:
            raise UserError(
                f"prompts of different shapes cannot be composed: {', '.join(map(str, sorted(shapes)))}"
            )
    elif any(part.tensors.keys() != first.tensors.keys() for part in parts):
        raise UserError("LoRAs at different linear maps cannot be composed: give those of equal targets")
