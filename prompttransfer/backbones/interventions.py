"""What an adaptation does to one pass of a frozen model, at a few fixed sites.

    word embeddings, READ -> VECTORS in front of them
    -> layers: [ LINEAR maps | KEYS AND VALUES in front of an attention's own | AFTER what a linear map gives ]
    -> HEAD in place of the label words

or it brings WEIGHTS of its own in place of the model's. A pass is given one `Interventions`, bound to the rows that run in
it: row i of everything below belongs to row i of the batch, so that rows of different members of a bank run together. The
base class does nothing at any site: it is the bare model. Sites are named as the model's own modules. The frozen engine
calls them between its products; where the modules of transformers run themselves, `plain.py` hangs the same calls behind
them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from prompttransfer.backbones.rows import of_rows
from tasks.errors import UserError

KeysValues = tuple[Tensor, Tensor]
"""Keys and values, [batch, heads, extra, head width] each."""
OwnWeights = tuple[Callable[[], Mapping[str, Tensor]], Tensor]
"""What makes the weights that count in place of the model's own, by their full names, and the numbers of the rows of the
batch that run with them."""


Head = Callable[[Tensor], Tensor]
"""Logits [batch, classes] of states [batch, width]."""
NO_HEAD = "a task without label words is answered by a trained head, and there is none: train on it, or give the task label words"


class Interventions:
    """Nothing at any site: the bare model."""

    reserved: int = 0
    """Rows in front of the text, which go through the layers with it."""
    extra: int = 0
    """Keys and values in front of those of each of `attentions`; the text stands `extra` positions further back."""
    sites: Collection[str] = ()
    """Full names of the linear modules whose outputs change, as in `model.named_modules()`."""
    inputs: Collection[str] = ()
    """Those of `sites` whose inputs change too; not those of queries, keys and values."""
    attentions: Collection[str] = ()
    """Full names of the attention modules that are given more keys and values."""
    outputs: Collection[str] = ()
    """Full names of the linear modules behind which something stands, before the residual."""

    alike: bool = False
    """Whether all rows have one member, whose maps then take any number of rows."""
    has_head: bool = False
    """Whether `head` gives logits in place of label words where a task has such, too."""
    weights: Sequence[OwnWeights] = ()
    """Weights of their own for all rows of the batch, which then run one part after another, on the plain engine; none of
    the other sites has anything then."""

    placed: Mapping[str, Tensor] = MappingProxyType({})
    """Weights that stand in the model while this runs: those of one of `weights`."""

    def read(self, words: Tensor, mask: Tensor) -> tuple[Interventions, Tensor]:
        """Itself once the words of its rows are known, and the word embeddings that count in place of `words`
        [batch, time, width], of which `mask` [batch, time] says where there are some.

        Called once in a pass, before all else. What comes back may have other vectors; at all other sites it is the same.
        """
        return self, words

    def vectors(self) -> Tensor | None:
        """What stands in front of each row's text, [batch, reserved, width]; None for nothing."""
        return None

    def before(self, site: str, states: Tensor) -> Tensor:
        """What the linear map `site` reads in place of `states` [batch, (time,) in]. Called for `inputs` only."""
        return states

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

    def keys_values(self, attention: str) -> KeysValues:
        """What stands in front of the keys and values of an attention. Called for `attentions` only."""
        raise NotImplementedError

    def after(self, site: str, states: Tensor) -> Tensor:
        """What counts in place of `states` [batch, (time,) out], which the linear map `site` gave. Called for `outputs`
        only."""
        return states

    def head(self, state: Tensor) -> Tensor:
        """Logits over a task's labels, in their order, [batch, classes], of the state that the answer is read from,
        [batch, width]. Called where `has_head`, and for tasks that have no label words."""
        raise UserError(NO_HEAD)

    def head_of(self, rows: Tensor) -> Head:
        """`head` of those of its rows alone."""
        return self.head

    def without_head(self) -> Interventions:
        """The same for rows that label words answer."""
        return self

    def seen(self, state: Tensor) -> None:
        """Called with the state that an answer of label words or a head is read from, [batch, width]; for who only looks."""

    def repeat(self, times: int) -> Interventions:
        """The same for a batch in which each row stands `times` times, its copies next to each other."""
        return self

    def changes(self, *sites: str) -> bool:
        """Whether the output of one of the linear maps `sites` is changed."""
        return any(site in self.sites or site in self.outputs for site in sites)

    def given(self, attention: str) -> KeysValues | None:
        """`keys_values` where there are some."""
        return self.keys_values(attention) if attention in self.attentions else None

    def changed(self, site: str, states: Tensor, output: Tensor) -> Tensor:
        """`linear` and `after`, as far as `site` has them."""
        if site in self.sites:
            output = self.linear(site, states, output)
        return self.after(site, output) if site in self.outputs else output

    def joined(self, sites: Sequence[str], states: Tensor, output: Tensor) -> Tensor:
        """`changed` for several maps of the same states, whose outputs of equal size stand side by side in `output`."""
        if not self.changes(*sites):
            return output
        parts = output.chunk(len(sites), dim=-1)
        changed = [self.changed(site, states, part) for site, part in zip(sites, parts, strict=True)]
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
    if site in own.inputs:
        states = own.before(site, states)
    output = own.changed(site, states, product(states))
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


class Watched:
    """Interventions that keep the state which the answer was read from, and do nothing else than their own."""

    state: Tensor
    """[batch, width]"""

    def __init__(self, own: Interventions):
        self._own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def seen(self, state: Tensor) -> None:
        self.state = state


def interventions(own: Interventions | Tensor) -> Interventions:
    """`own` itself; soft prompts [batch, length, width] as what they do."""
    return Vectors(own) if isinstance(own, Tensor) else own
