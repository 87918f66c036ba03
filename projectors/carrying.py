"""Carrying adaptations between two models: which map stands for which, and the adaptation that comes out.

Maps are counterparts where their names differ in nothing but the number of the layer, and their layers lie at the same
relative depth: of n_s and n_t layers, layer j of the target takes up that of layer floor((j + 1/2) n_s / n_t) of the source.
So equal counts go one to one; in a deeper target several layers take up the same update, in a shallower one some are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from torch import Tensor

from projectors.lessons import words_between
from projectors.weights import CARRIERS, Carrier, Maps, Side, carried
from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.method import Method
from prompttransfer.adaptations.methods.maps import frozen
from prompttransfer.adaptations.running import check_on
from prompttransfer.adaptations.updates import Updates, lora_of, updates_of
from prompttransfer.backbones.base import Backbone
from tasks.errors import UserError

WRITERS = (
    *("attention.output.dense", "output.dense", "o", "wo", "o_proj", "out_proj", "down_proj", "c_proj"),
    *("attention.dense", "dense_4h_to_h", "fc2"),
)
"""Ends of the names of maps that write into the stream between layers."""


@dataclass(frozen=True, eq=False)
class Bridge:
    """What carries updates from one backbone to another, worked out once for all adaptations."""

    source: Backbone
    target: Backbone
    carrier: Carrier
    places: Mapping[str, str]
    """Map of the target -> its counterpart."""
    sides: Mapping[str, tuple[Side, Side]]
    """Map of the target -> what carries the update of its counterpart."""

    def carry(self, updates: Updates) -> dict[str, tuple[Tensor, Tensor]]:
        """The updates of the source as those of the target."""
        return {
            site: carried(updates[place], self.sides[site])
            for site, place in self.places.items()
            if place in updates
        }


def bridge(source: Backbone, target: Backbone, sites: Sequence[str], carrier: Carrier) -> Bridge:
    """What carries updates at the source's maps `sites`.

    Raises UserError for backbones whose maps do not stand for each other, widths that the carrier cannot join, or, where it
    reads shared words, vocabularies without such.
    """
    wanted = set(sites)
    places = {site: place for site, place in counterparts(source, target).items() if place in wanted}
    if not places:
        raise UserError(
            f"none of the linear maps that were changed on {source.name} has a counterpart in {target.name}: adaptations of "
            f"weights are carried between models of one architecture"
        )
    words = words_between(source, target) if carrier.needs_words else None
    sides = {}
    for site, place in places.items():
        weights = frozen(source, place)[0].cpu(), frozen(target, site)[0].cpu()
        writes = any(site.endswith(f".{end}") for end in WRITERS)
        sides[site] = CARRIERS[carrier.method](Maps(*weights, site, words, writes), carrier)
    return Bridge(source, target, carrier, places, sides)


def counterparts(source: Backbone, target: Backbone) -> dict[str, str]:
    """Linear map of the target -> map of the source at the same place in the layer of the same relative depth.

    Raises UserError for backbones of two families.
    """
    if source.family != target.family:
        raise UserError(
            f"{source.name} is a {source.family}, {target.name} a {target.family} backbone: their layers do not stand for "
            f"each other, so only prompts can be carried between them (`project fit`)"
        )
    here, there = _by_place(source), _by_place(target)
    return {
        layers[j]: here[kind][(2 * j + 1) * len(here[kind]) // (2 * len(layers))]
        for kind, layers in there.items()
        if kind in here
        for j in range(len(layers))
    }


def _by_place(backbone: Backbone) -> dict[str, list[str]]:
    """Place in a layer -> the maps there, layer by layer; what the model is called in front does not count."""
    found: dict[str, dict[int, str]] = {}
    for name in backbone.linear_maps:
        parts = name.removeprefix(f"{backbone.model.base_model_prefix}.").split(".")
        at = next((index for index, part in enumerate(parts) if part.isdigit()), None)
        if at is not None:
            kind = ".".join([*parts[:at], "*", *parts[at + 1 :]])
            found.setdefault(kind, {})[int(parts[at])] = name
    return {kind: [layers[number] for number in sorted(layers)] for kind, layers in found.items()}


def check_carried(adaptation: Adaptation, source: Backbone) -> None:
    """Raise UserError unless `adaptation` changes weights and is of the backbone that it is to be carried from."""
    if adaptation.has_vectors:
        raise UserError(
            f"{adaptation.name!r} is a soft prompt, and this carries updates of weights: fit a projector with `project fit`"
        )
    check_on(
        adaptation,
        source,
        layout=adaptation.layout,
    )
    adaptation.method.check_fits(source, adaptation.tensors, adaptation.name)


def sites_of(source: Backbone, adaptations: Sequence[Adaptation]) -> tuple[str, ...]:
    """The source's maps that some of these adaptations change."""
    found = (updates_of(source, each.method, each.tensors) for each in adaptations)
    return tuple(dict.fromkeys(site for updates in found for site in updates))


def carried_tensors(
    over: Bridge, method: Method, tensors: Mapping[str, Tensor]
) -> tuple[Method, dict[str, Tensor]]:
    """A LoRA of the target that does what these tensors do on the source."""
    return lora_of(over.carry(updates_of(over.source, method, tensors)))


def carry(over: Bridge, adaptation: Adaptation) -> Adaptation:
    """The adaptation as a plain LoRA of the target for the same task; label words are left open, they are the target's own."""
    check_carried(adaptation, over.source)
    method, tensors = carried_tensors(over, adaptation.method, adaptation.tensors)
    settings = {f"carried_{key}": value for key, value in asdict(over.carrier).items() if key != "method"}
    origin = replace(
        adaptation.origin,
        backbone=over.target.name,
        revision=over.target.revision,
        start=f"carried:{over.carrier.method}",
        words={},
        recipe={
            "carried_from": adaptation.backbone,
            "source_revision": adaptation.revision,
            "source_method": str(adaptation.method),
            "source_digest": adaptation.digest,
            **settings,
        },
    )
    return replace(
        adaptation,
        method=method,
        tensors=tensors,
        origin=origin,
        initial=None,
        encoder={},
        embedding=None,
        scores={},
        curve=(),
    )
