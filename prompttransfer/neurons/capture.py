"""Neurons of a backbone's feed-forward layers: reading which ones a prompt activates, and switching some of them off.

One idea: both are forward hooks on one module a layer, behind a context manager that takes them away again whatever
happens, so that the frozen backbone is never changed; inside it the plain engine runs, whose modules call their hooks.
What is read is the value at the slot where the answer is given, for the input of the prompt alone (Su et al. 2022,
arXiv 2111.06719, section 6) or over real rows. Over rows a neuron's 0/1 states are averaged, not its activations: those
of RoBERTa are read after GELU and those of T5 before ReLU, so the sign of a mean would be another event on each.

    RoBERTa, BERT     output of `intermediate`, after its activation; read at the mask
    T5 v1.0           output of the decoder's `wi`, before ReLU (the sign is the same); first decoding step
    T5 v1.1, LM       act(wi_0) of the decoder's gated layer, before it multiplies wi_1; first decoding step
    Llama and kin     act(gate_proj) of the gated layer, before it multiplies up_proj; each row's last token
    GPT-2, OPT, ...   output of the feed-forward's activation; each row's last token

Overlap and statistics of states are in analysis/neurons.py; files of states are in neurons/states.py; switching neurons
off by steps is in neurons/masking.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from analysis.neurons import RULES, pack
from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.bank import Bank, on_the_same
from prompttransfer.adaptations.running import Group, bank_of, common_encoding, groups_of
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.causal_lm import CausalLM
from prompttransfer.backbones.layouts import Layout
from prompttransfer.backbones.revisions import DECIDING, differing
from prompttransfer.backbones.rows import Batch
from prompttransfer.evaluation.encoding import EncodedTask
from prompttransfer.evaluation.evaluate import batches
from prompttransfer.neurons.states import Captured, backbone_label
from tasks.errors import UserError, unknown

Bits = NDArray[np.bool_]


@dataclass(frozen=True)
class Site:
    """Where the neurons of a backbone are: one module a layer, whose output [batch, time, neurons] holds them."""

    modules: tuple[nn.Module, ...]
    tensor: str
    """Which tensor that is, in words."""


def find_site(backbone: Backbone) -> Site:
    """Where the neurons of this backbone are. Raises UserError for one whose neurons are not known."""
    names, tensor = backbone.neuron_sites
    return Site(tuple(backbone.model.get_submodule(name) for name in names), tensor)


@dataclass
class Reading:
    """What the passes inside `reading` give: `slots` [batch] are set before a pass, `layers` is there after it."""

    layers: list[Tensor]
    """[batch, neurons] of each layer, at each row's slot."""
    slots: Tensor


@contextmanager
def reading(backbone: Backbone) -> Iterator[Reading]:
    """Inside the block every pass keeps its activations where its rows' answers are read."""
    site = find_site(backbone)
    found = Reading([torch.empty(0)] * len(site.modules), torch.zeros(0, dtype=torch.long))

    def keep(layer: int, module: nn.Module, inputs: object, output: Tensor) -> None:
        rows = torch.arange(len(found.slots), device=output.device)
        if output.ndim == 2:  # OPT puts the tokens of all rows in one line
            output = output.unflatten(0, (len(rows), -1))
        found.layers[layer] = output[rows, found.slots].detach().float()

    handles = [
        module.register_forward_hook(partial(keep, layer)) for layer, module in enumerate(site.modules)
    ]
    try:
        with backbone.on("plain"):
            yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def switched_off(backbone: Backbone, neurons: Bits) -> Iterator[None]:
    """Inside the block the neurons that are True in `neurons` [layers, neurons] give 0 at every position.

    Every activation in use is 0 at 0, so this also holds where the hook sits before it (T5 v1.0).
    """
    site = find_site(backbone)
    if len(neurons) != len(site.modules):
        raise UserError(
            f"neurons of {len(neurons)} layers cannot be switched off in {backbone.name}, which has "
            f"{len(site.modules)}: capture them on this backbone"
        )
    kept = (~torch.from_numpy(neurons)).to(backbone.device, backbone.dtype)

    def silence(layer: int, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return output * kept[layer]

    handles = [
        module.register_forward_hook(partial(silence, layer)) for layer, module in enumerate(site.modules)
    ]
    try:
        with backbone.on("plain"):
            yield
    finally:
        for handle in handles:
            handle.remove()


# Activations ---------------------------------------------------------------------------------------------------------


def prompt_alone(backbone: Backbone, layout: Layout) -> tuple[int, ...]:
    """The tokens that stand beside a prompt when it is read without any text.

    su2022 as the authors ran it: `<mask> P2 .. PL <s>`. The other masked layouts keep what they always have:
    `P1 .. PL <s> <mask> </s>`. T5: `P1 .. PL <extra_id_0>` into the encoder. Decoders: `P1 .. PL <s>` where the tokenizer
    begins with one, else the prompt itself.
    """
    tokenizer = backbone.tokenizer
    if isinstance(backbone, CausalLM):
        return backbone.reader.opening
    if backbone.family == "t5":
        sentinel = tokenizer.convert_tokens_to_ids("<extra_id_0>")
        if sentinel in (None, tokenizer.unk_token_id):
            raise UserError(
                f"{backbone.name} has no token <extra_id_0>, which the prompt alone is read with: "
                f"average over real rows with --task"
            )
        return (int(sentinel),)
    first = int(tokenizer.cls_token_id)
    if layout.mask_is_first_row:
        return (first,)
    return first, int(tokenizer.mask_token_id), int(tokenizer.sep_token_id)


def nothing_alone(backbone: Backbone, layout: Layout, ahead: int) -> str:
    """Why a member with `ahead` positions in front of the text has no input without a text; empty where it has one."""
    if ahead + len(prompt_alone(backbone, layout)):
        return ""
    return f"nothing stands in front of a text here, and {backbone.name} begins with no token of its own"


def input_in_words(backbone: Backbone, layout: Layout, in_front: bool = True) -> str:
    """The input without a text as one reads it, `P1 .. PL <s> <mask> </s>`; what stands not in front shows nowhere."""
    tokens = backbone.tokenizer.convert_ids_to_tokens(list(prompt_alone(backbone, layout)))
    masked = layout.mask_is_first_row and backbone.family == "masked-lm"
    if not in_front:
        return " ".join(tokens)
    prompt = f"{backbone.tokenizer.mask_token} P2 .. PL" if masked else "P1 .. PL"
    start = backbone.prompt_start(layout)
    return " ".join([*tokens[:start], prompt, *tokens[start:]])


def _any_answer(batch: Batch) -> Batch:
    """The batch with one token as its only answer: one pass, and for T5 one decoding step, whatever the task."""
    device = batch.ids.device
    return replace(
        batch,
        candidates=torch.zeros(batch.rows, 1, 1, dtype=torch.long, device=device),
        averaged=torch.zeros(batch.rows, device=device),
    )


@torch.no_grad()
def activations(backbone: Backbone, bank: Bank, layout: Layout) -> Tensor:
    """Activations that the members of `bank` stimulate on their own, [members, layers, neurons] float32."""
    tokens = prompt_alone(backbone, layout)
    ahead = bank.rows(torch.zeros(1, dtype=torch.long, device=backbone.device)).reserved
    if said := nothing_alone(backbone, layout, ahead):
        raise UserError(f"{said}: average over real rows with --task")
    at_once = max(1, backbone.tokens_at_once // (bank.reserved + len(tokens)))
    parts = []
    with reading(backbone) as found:
        for owners in torch.arange(bank.members, device=backbone.device).split(at_once):
            ids = torch.tensor([tokens] * len(owners), dtype=torch.long, device=backbone.device)
            batch = Batch(ids, torch.ones_like(ids), layout, None, None, None, None)
            own = bank.rows(owners)
            found.slots = backbone.answer_slots(own, batch)
            backbone.label_scores(own, _any_answer(batch))
            parts.append(torch.stack(found.layers, dim=1).cpu())
    return torch.cat(parts)


@torch.no_grad()
def over_rows(
    backbone: Backbone, bank: Bank, encoded: EncodedTask, *measures: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """The mean over the rows of a task of each measure of a row's activations, [members, layers, neurons] float32.

    A measure takes activations [..., layers, neurons] to values of that shape.
    """
    count = bank.members
    shape = (count, len(find_site(backbone).modules), -1)
    totals: list[Tensor | float] = [0.0] * len(measures)
    with reading(backbone) as found:
        for _, batch in batches(backbone, encoded, prompts=count):
            own, wide = on_the_same(bank, batch)
            found.slots = backbone.answer_slots(own, wide)
            backbone.label_scores(own, _any_answer(wide))
            values = torch.stack(found.layers, dim=1).unflatten(0, (count, batch.rows)).cpu()
            totals = [
                total + of(values).float().sum(dim=1) for total, of in zip(totals, measures, strict=True)
            ]
    return [torch.as_tensor(total).reshape(shape) / len(encoded.rows) for total in totals]


@dataclass(frozen=True)
class Activations:
    """Activations of prompts on one backbone, and the input they were read on, in words."""

    backbone: str
    names: tuple[str, ...]
    tasks: tuple[str, ...]
    values: NDArray[np.float32]
    """[prompts, layers, neurons]; over rows their mean."""
    tensor: str
    shown: str
    rule: str = "positive"
    share: float = 0.1
    often: NDArray[np.float32] | None = None
    """[prompts, layers, neurons] share of the rows in which a neuron is active by `rule`; None for the prompt alone."""

    def states(self, rule: str | None = None, share: float | None = None) -> Captured:
        """Which of them are active: `positive` (the paper's: active iff > 0) or `top` (the largest `share` of each layer).

        Over rows: `positive` in more than half of them, `top` the `share` of each layer that is most often among the
        largest of a row. The rule is that of the reading where none is given; over rows no other can be given.
        """
        rule, share = rule or self.rule, self.share if share is None else share
        check_rule(rule)
        if self.often is not None and (rule, share) != (self.rule, self.share):
            raise UserError(
                f"these activations were counted row by row under the rule {self.rule}, share {self.share:g}: "
                f"read them again for {rule}, share {share:g}"
            )
        active, words = (
            _states_alone(self.values, rule, share)
            if self.often is None
            else _states_over_rows(self.often, self.values, rule, share)
        )
        packed = pack(active, self.names, self.backbone, f"{words}; {self.shown}")
        return Captured(packed, self.tasks, self.tensor)


def check_rule(rule: str) -> None:
    """Raise UserError for a rule that is not in RULES."""
    if rule not in RULES:
        raise unknown("rule for active neurons", rule, RULES)


def _states_alone(values: NDArray[np.float32], rule: str, share: float) -> tuple[Bits, str]:
    """Which neurons are active on one input, and by which rule in words."""
    if rule == "positive":
        return RULES[rule](values), "above 0"
    return RULES[rule](values, share), f"largest {100 * share:g} % of a layer"


def _states_over_rows(
    often: NDArray[np.float32], values: NDArray[np.float32], rule: str, share: float
) -> tuple[Bits, str]:
    """Which neurons are active over rows, from how `often` they are; equally often, the larger mean goes first."""
    if rule == "positive":
        return often > 0.5, "above 0 in more than half of the rows"
    order = np.lexsort((values, often), axis=-1)
    places = np.argsort(order, axis=-1)
    return RULES[rule](places, share), f"most often among the largest {100 * share:g} % of a layer"


def read_activations(
    backbone: Backbone,
    prompts: Sequence[Adaptation],
    *,
    encoded: EncodedTask | None = None,
    other_layout: bool = False,
    rule: str = "positive",
    share: float = 0.1,
) -> Activations:
    """What every prompt stimulates, in all layers.

    `encoded` are rows of a task, in each of which the active neurons are counted by `rule`; without them the input is
    the prompt alone (for a method that puts nothing in front, the tokens beside it). Adaptations of several methods are
    read bank by bank. Raises UserError for those that do not belong to this backbone or to one another.
    """
    check_rule(rule)
    _check_origin(backbone, prompts)
    layout = common_encoding(backbone, prompts, other_layout=other_layout).place(backbone.family)
    groups = [(group, bank_of(backbone, group.adaptations)) for group in groups_of(prompts)]
    often = None
    if encoded is None:
        values = _placed([(group, activations(backbone, bank, layout)) for group, bank in groups])
        words = [input_in_words(backbone, layout, bank.reserved > 0) for _, bank in groups]
        shown = "; or ".join(dict.fromkeys(words))
    else:

        def active(rows: Tensor) -> Tensor:
            return torch.from_numpy(_states_alone(rows.numpy(), rule, share)[0])

        found = [over_rows(backbone, bank, encoded, lambda rows: rows, active) for _, bank in groups]
        values, counted = (
            _placed([(group, each[part]) for (group, _), each in zip(groups, found, strict=True)])
            for part in (0, 1)
        )
        often, shown = counted.numpy(), f"{len(encoded.rows)} rows of {encoded.task.name}"
    return Activations(
        backbone_label(backbone.name, backbone.revision),
        tuple(prompt.name for prompt in prompts),
        tuple(prompt.task for prompt in prompts),
        values.numpy(),
        find_site(backbone).tensor,
        shown,
        rule,
        share,
        often,
    )


def _placed(found: Sequence[tuple[Group, Tensor]]) -> Tensor:
    """The values [members, layers, neurons] of several banks in the order of the adaptations."""
    values = {
        place: own for group, of_bank in found for place, own in zip(group.places, of_bank, strict=True)
    }
    return torch.stack([values[place] for place in sorted(values)])


def capture(
    backbone: Backbone,
    prompts: Sequence[Adaptation],
    *,
    rule: str = "positive",
    share: float = 0.1,
    encoded: EncodedTask | None = None,
    other_layout: bool = False,
) -> Captured:
    """Which neurons each adaptation activates, in all layers: `read_activations` under a rule of RULES."""
    return read_activations(
        backbone, prompts, encoded=encoded, other_layout=other_layout, rule=rule, share=share
    ).states()


def _check_origin(backbone: Backbone, prompts: Sequence[Adaptation]) -> None:
    foreign = [
        p
        for p in prompts
        if p.revision and p.backbone == backbone.name and differing(p.revision, backbone.revision, DECIDING)
    ]
    if foreign:
        raise UserError(
            f"{foreign[0].method.called} {foreign[0].name!r} was trained on {backbone.name} at {foreign[0].revision}, here it is at "
            f"{backbone.revision}: its neurons are of another model; train it again"
        )
