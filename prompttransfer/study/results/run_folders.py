"""A study's results as run folders, one a backbone, in the form that the report page reads (reports/run_folder.py).

report/<backbone>/prompts/      the source prompts
report/<backbone>/transfer/     the matrix, with the tuned runs
report/<backbone>/compare/      indicators, mean over seeds
report/<backbone>/neurons/      states
report/<backbone>/projectors/   those that lead to this backbone, with the controls of all seeds
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompttransfer.files import atomic_folder, write_text
from prompttransfer.reports.calls import Call, note_call
from prompttransfer.study.cell import Cell
from prompttransfer.study.contents import read_projector_report, read_score, read_tuned
from prompttransfer.study.results.long_table import Results, indicator_table, projector_name
from prompttransfer.study.results.matrices import transfer_matrix

if TYPE_CHECKING:
    import pandas as pd

    from prompttransfer.transfers.tuning import TunedPair

MARKER = "transfer"


def slug(name: str) -> str:
    """A backbone's or projector's name as the name of a folder."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("-.")


def backbones_scored(results: Results) -> list[str]:
    """The backbones that have scores, in the plan's order."""
    return list(dict.fromkeys(_backbone(cell) for cell in results.of_kind("score")))


def _backbone(cell: Cell, key: str = "backbone") -> str:
    named: Any = cell.settings[key]
    return str(named["name"])


def write_run_folder(results: Results, backbone: str, folder: Path, again: Call | None = None) -> Path:
    """Write the run folder of one backbone, whole or not at all, and return it; `again` is what runs the study."""
    with atomic_folder(folder, marker=MARKER) as temporary:
        prompts = _copy_prompts(results, backbone, temporary / "prompts")
        _write_transfer(results, backbone, prompts, temporary / "transfer", again)
        _write_indicators(results, backbone, temporary / "compare")
        _copy_states(results, backbone, temporary / "neurons")
        _write_projectors(results, backbone, temporary / "projectors")
    return folder


def _copy_prompts(results: Results, backbone: str, folder: Path) -> list[Cell]:
    cells = [c for c in results.of_kind("prompt") if c.id in results.own and _backbone(c) == backbone]
    for cell in cells:
        shutil.copytree(
            results.folder(cell) / "prompt", folder / f"{cell.settings['task']}-s{cell.settings['seed']}"
        )
    return cells


def _write_transfer(
    results: Results, backbone: str, prompts: Sequence[Cell], folder: Path, again: Call | None
) -> None:
    """The matrix of zero-shot scores with the pairs of TPT_task, as `transfer --tune` writes it."""
    from prompttransfer.adaptations.artifacts import load_adaptation, versions
    from prompttransfer.training.train import Trained
    from prompttransfer.transfers.files import write_transfer

    scores = [
        read_score(results.folder(cell))
        for cell in results.of_kind("score")
        if _backbone(cell) == backbone
        and ("references" in cell.settings or cell.inputs["prompt"] in results.own)
    ]
    matrix = transfer_matrix(scores)
    pairs, runs = _tuned(results, backbone)
    loaded = [load_adaptation(results.folder(cell) / "prompt") for cell in prompts]
    record = {
        "backbone": backbone,
        "revision": loaded[0].revision if loaded else "",
        "types": {task: results.types[task] for task in matrix.targets if task in results.types},
        "data": {
            p.task: {"source": p.origin.data.get("source"), "revision": p.origin.data.get("revision")}
            for p in loaded
        },
        "split": "test (the official validation split)",
        "raw": matrix.as_dict(),
        "relative": matrix.relative().as_dict() if matrix.has_own else None,
        **({"calibrated": matrix.calibrated.as_dict()} if matrix.calibrated else {}),
        "tuned": [pair.as_dict() for pair in pairs],
        "versions": versions(),
    }
    trained = [Trained(load_adaptation(results.folder(cell) / "prompt"), "steps", 0) for cell in runs]
    folder.mkdir(parents=True)
    write_transfer(folder, matrix, record, pairs, trained)
    if again is not None:
        note_call([folder / "transfer.json"], again.model_dump())


def _tuned(results: Results, backbone: str) -> tuple[list[TunedPair], list[Cell]]:
    """The pairs of TPT_task on a backbone, and the prompts behind their curves, each once."""
    from prompttransfer.transfers.tuning import TunedPair

    pairs, runs = [], {}
    for cell in results.of_kind("tuned"):
        run = results.input(cell, "run")
        if _backbone(run) != backbone or results.input(cell, "source").kind == "carried":
            continue
        record = read_tuned(results.folder(cell))
        pairs.append(
            TunedPair(
                source=record["source"],
                target=record["target"],
                seed=record["seed"],
                step0=record["step0_validation"],
                tuned=record["test_from_source"],
                scratch=record["test_from_scratch"],
                chance=record["chance"],
                tuned_steps=record["steps_to_converge_from_source"],
                scratch_steps=record["steps_to_converge_from_scratch"],
                reach_steps=record["steps_to_scratch_score"],
                evaluate_every=record["evaluate_every"],
                tuned_best=record["best_validation_from_source"],
                scratch_best=record["best_validation_from_scratch"],
                tuned_last=record["last_step_from_source"],
            )
        )
        for each in (results.input(cell, "scratch"), run):
            runs[each.id] = each
    return pairs, list(runs.values())


def _write_indicators(results: Results, backbone: str, folder: Path) -> None:
    """Every indicator as one table by task, mean over seeds."""
    for name, table in mean_indicators(results, backbone).items():
        write_text(folder / f"similarity_{name}.csv", table.to_csv(float_format="%.10g", lineterminator="\n"))


def mean_indicators(results: Results, backbone: str) -> dict[str, pd.DataFrame]:
    """Indicator -> table over tasks, mean over the seeds that are there."""
    found: dict[str, list[pd.DataFrame]] = {}
    for cell in results.of_kind("indicator"):
        prompt = results.input(cell, next(iter(cell.inputs)))
        prompt = results.input(prompt, "prompt") if prompt.kind == "states" else prompt
        if _backbone(prompt) == backbone:
            measure = str(cell.settings.get("similarity") or cell.settings["overlap"])
            found.setdefault(measure, []).append(indicator_table(results, cell))
    return {name: sum(tables[1:], tables[0]) / len(tables) for name, tables in found.items()}


def _copy_states(results: Results, backbone: str, folder: Path) -> None:
    for cell in results.of_kind("states"):
        if _backbone(cell) == backbone:
            prompt = results.input(cell, "prompt").settings
            folder.mkdir(parents=True, exist_ok=True)
            name = f"states-{prompt['task']}-s{prompt['seed']}.safetensors"
            shutil.copyfile(results.folder(cell) / "states.safetensors", folder / name)


def _write_projectors(results: Results, backbone: str, folder: Path) -> None:
    """Each projector of the first seed, with the table of all seeds."""
    from projectors.artifacts import load_projector, save_projector

    groups: dict[str, list[Cell]] = {}
    for cell in results.of_kind("projector"):
        if _backbone(cell, "target") == backbone:
            groups.setdefault(projector_name(cell), []).append(cell)
    for name, cells in groups.items():
        projector = load_projector(results.folder(cells[0]) / "projector")
        save_projector(replace(projector, scores=merged_scores(results, cells)), folder / slug(name))


def merged_scores(results: Results, cells: Sequence[Cell]) -> Mapping[str, Any]:
    """The report's table over the projectors of several seeds; every row counts for the seed of its projector."""
    from projectors.report import ConditionScore as Score
    from projectors.report import summarise

    scores = []
    for cell in cells:
        seed: Any = cell.settings["seed"]
        tasks: Any = cell.settings["tasks"]
        scores += [
            Score(
                line.task,
                line.group,
                line.condition,
                seed,
                line.value,
                line.draw,
                str(tasks[line.task]["metric"]),
            )
            for line in read_projector_report(results.folder(cell) / "projector")
        ]
    table = summarise(scores)
    return {group: {name: asdict(entry) for name, entry in rows.items()} for group, rows in table.items()}
