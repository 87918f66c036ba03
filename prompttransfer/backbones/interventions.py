"""What an adaptation does to one pass of a frozen model, at a few fixed sites.

    word embeddings -> VECTORS in front of them -> layers: [ LINEAR maps, named as the model's own modules ] -> answer

A pass is given one `Interventions`, bound to the rows that run in it: row i of everything below belongs to row i of
the batch, so that rows of different members of a bank run together. The base class does nothing at any site: it is
the bare model. The frozen engine calls the sites between its products; where the modules of transformers run
themselves, `at_modules` hangs the same calls behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from prompttransfer.backbones.rows import of_rows


class Interventions:
    """Nothing at any site: the bare model."""

    reserved: int = 0
    """Positions in front of the text."""
    sites: Collection[str] = ()
    """Full names of the linear modules whose outputs change, as in `model.named_modules()`."""

    def vectors(self) -> Tensor | None:
        """What stands in front of each row's text, [batch, reserved, width]; None for nothing."""
        return None

    def distinct(self) -> tuple[Interventions, Tensor] | None:
        """The same bound to one row for each different prompt, and which of these each row has, [batch].

        What stands first in a decoder does not see the text, so it runs once for all rows that share it. None where
        nothing stands there, or every row brings its own.
        """
        return None

    def linear(self, site: str, states: Tensor, output: Tensor) -> Tensor:
        """The output of the linear map `site` that counts: `output` [batch, (time,) out] is what its weights made of
        `states` [batch, (time,) in]. Called for `sites` only."""
        return output

    def repeat(self, times: int) -> Interventions:
        """The same for a batch in which each row stands `times` times, its copies next to each other."""
        return self

    def changes(self, *sites: str) -> bool:
        """Whether one of the linear maps `sites` is changed."""
        return any(site in self.sites for site in sites)

    def joined(self, sites: Sequence[str], states: Tensor, output: Tensor) -> Tensor:
        """`linear` for several maps of the same states, whose outputs of equal size stand side by side in `output`."""
        if not self.changes(*sites):
            return output
        parts = output.chunk(len(sites), dim=-1)
        changed = [
            self.linear(site, states, part) if site in self.sites else part
            for site, part in zip(sites, parts, strict=True)
        ]
        return torch.cat(changed, dim=-1)


def changed(
    product: Callable[..., Tensor],
    site: str,
    states: Tensor,
    own: Interventions,
    *,
    add: Tensor | None = None,
) -> Tensor:
    """A frozen product at `site` as `own` has it, plus the residual `add`, which the product takes in where it may."""
    if not own.changes(site):
        return product(states, add=add)
    output = own.linear(site, states, product(states))
    return output if add is None else output + add


BARE = Interventions()
"""The model without an adaptation."""


class Vectors(Interventions):
    """Soft prompts in front of the text, [batch, length, width]: each row brings its own.

    With `owners` [batch], `prompts` are those of a bank, [members, length, width], and each row names its own.
    """

    def __init__(self, prompts: Tensor, owners: Tensor | None = None):
        self._prompts, self._owners = prompts, owners
        self.reserved = int(prompts.shape[1])

    @cached_property
    def prompts(self) -> Tensor:
        """Each row's own, [batch, length, width]."""
        return self._prompts if self._owners is None else of_rows(self._prompts, self._owners)

    def vectors(self) -> Tensor:
        return self.prompts

    def distinct(self) -> tuple[Interventions, Tensor] | None:
        return None if self._owners is None else (Vectors(self._prompts), self._owners)

    def repeat(self, times: int) -> Vectors:
        if self._owners is None:
            return Vectors(self._prompts.repeat_interleave(times, dim=0))
        return Vectors(self._prompts, self._owners.repeat_interleave(times))


def interventions(own: Interventions | Tensor) -> Interventions:
    """`own` itself; soft prompts [batch, length, width] as what they do."""
    return Vectors(own) if isinstance(own, Tensor) else own


@contextmanager
def at_modules(model: nn.Module, own: Interventions, part: str = "") -> Iterator[None]:
    """Let those linear modules of `model` whose names begin with `part` do what `own` says, in this block."""
    handles = []
    try:
        for site in own.sites:
            if not site.startswith(part):
                continue

            def changed(module: Any, inputs: tuple[Any, ...], output: Tensor, site: str = site) -> Tensor:
                return own.linear(site, inputs[0], output)

            handles.append(model.get_submodule(site).register_forward_hook(changed))
        yield
    finally:
        for handle in handles:
            handle.remove()
