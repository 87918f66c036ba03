"""Finished cells and the backbones that they name: what a study recognises, and what it says of the rest.

A cell's id holds the revision of its backbone. Versions up to 0.1 knew a folder by its weights alone; what they made is
found again where the weights are the same and were read as they are read now. Whatever else has changed is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from prompttransfer.backbones.locating import locate
from prompttransfer.backbones.revisions import differing, weights_alone
from prompttransfer.study.engine.store import PLAN, Store, read_graph
from prompttransfer.study.plan.graph import build_graph
from prompttransfer.study.plan.lookup import BackboneFacts, Facts
from prompttransfer.study.plan.plan import Plan
from tasks.documents import read_json_object
from tasks.errors import UserError

PLAIN = (
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"),
    *("use_cache", "transformers_version", "_from_model_config"),
)
"""Generation settings that steer nothing."""


def over_finished(plan: Plan, store: Store) -> tuple[Plan, list[str]]:
    """The plan under the names that finished cells of `store` have, and a line on each backbone that has changed."""
    finished = _revisions(store)
    backbones, notes = dict(plan.facts.backbones), []
    for name, facts in backbones.items():
        known = finished.get(facts.label, set())
        if not known or facts.revision in known:
            continue
        old = weights_alone(facts.revision)
        if old in known and not (wrong := _read_otherwise(facts)):
            backbones[name] = replace(facts, revision=old)
            notes.append(
                f"backbone {facts.label}: finished cells name it by its weights alone, as versions up to 0.1 did; the "
                f"weights are the same, so what is finished is taken as it is, and whether its configuration and "
                f"tokenizer were the same is not known"
            )
            continue
        for other in sorted(known):
            parts = "weights" if other == old else " and ".join(differing(other, facts.revision))
            what = wrong if other == old else f"its {parts} changed ({other}, now {facts.revision})"
            notes.append(f"backbone {facts.label}: {what}: cells that were made with it are made again")
    if backbones == dict(plan.facts.backbones):
        return plan, notes
    found = Facts(backbones, plan.facts.notes)
    return replace(plan, facts=found, graph=build_graph(plan.spec, found)), notes


def _revisions(store: Store) -> Mapping[str, set[str]]:
    """Label of a backbone -> the revisions that finished cells of the last plan name."""
    found: dict[str, set[str]] = {}
    if store.read_text(PLAN) is None:
        return found
    try:
        graph = read_graph(store)
    except UserError:  # a damaged plan is written anew
        return found
    ids = store.ids()
    for name, cell in graph.cells.items():
        if name in ids:
            for label, revision in _named(cell.settings):
                found.setdefault(label, set()).add(revision)
    return found


def _named(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for value in settings.values():
        if isinstance(value, Mapping) and {"name", "revision"} <= value.keys():
            yield str(value["name"]), str(value["revision"])


def _read_otherwise(facts: BackboneFacts) -> str:
    """Why versions up to 0.1 got other numbers from the same folder; empty where they got the same."""
    from prompttransfer.backbones.tokens import PROBES, load_tokenizer, otherwise_read

    folder = Path(locate(facts.place)[0])
    kind = read_json_object(folder / "config.json", "model configuration", any_number=True)["model_type"]
    if otherwise_read(load_tokenizer(facts.label, folder, kind), folder, PROBES):
        return "versions up to 0.1 read its texts in other tokens than its tokenizer.json says"
    generation = folder / "generation_config.json"
    if facts.family == "t5" and generation.exists():
        settings = read_json_object(generation, "generation settings", any_number=True)
        steering = [key for key, value in settings.items() if key not in PLAIN and value not in (None, False)]
        if steering:
            return f"versions up to 0.1 let its generation_config.json steer them ({', '.join(steering)})"
    return ""
