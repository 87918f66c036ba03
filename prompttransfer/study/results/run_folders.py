"""A study's results as run folders, one a backbone and method, in the form that the report page reads.

The form is that of reports/run_folder.py. In a study of several methods <backbone> is <backbone>-<method>.

report/<backbone>/prompts/      the source prompts
report/<backbone>/transfer/     the matrix, with the tuned runs
report/<backbone>/compare/      indicators, mean over seeds
report/<backbone>/neurons/      states
report/<backbone>/projectors/   those that lead to this backbone, with the controls of all seeds
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompttransfer.files import atomic_folder, write_text
from prompttransfer.reports.calls import Call, note_call
from prompttransfer.study.cell import Cell
from prompttransfer.study.contents import read_projector_report, read_score, read_tuned
from prompttransfer.study.methods import PROMPT, Use, slug, use_of
from prompttransfer.study.results.long_table import Results, indicator_table, measure_of, projector_name
from prompttransfer.study.results.matrices import transfer_matrix

if TYPE_CHECKING:
    import pandas as pd

    from prompttransfer.transfers.tuned_pairs import TunedPair

MARKER = "transfer"


def sides_scored(results: Results) -> list[Use]:
    """The backbones and methods that have scores, in the plan's order."""
    return list(dict.fromkeys(use_of(cell, results.graph.cells) for cell in results.of_kind("score")))


def titled(results: Results, side: Use) -> str:
    """Backbone and method, where the study has several methods; the backbone where it has one."""
    return f"{side.backbone}, {results.labels[side]}" if len(results.methods) > 1 else side.backbone


def _backbone(cell: Cell, key: str = "backbone") -> str:
    named: Any = cell.settings[key]
    return str(named["name"])


def _cells(results: Results, kind: str, side: Use) -> list[Cell]:
    """Finished cells of a kind on one backbone under one method."""
    return [cell for cell in results.of_kind(kind) if use_of(cell, results.graph.cells) == side]


def write_run_folder(results: Results, side: Use, folder: Path, again: Call | None = None) -> Path:
    """Write the run folder of one backbone and method, whole or not at all; `again` is what runs the study."""
    with atomic_folder(folder, marker=MARKER) as temporary:
        prompts = _copy_prompts(results, side, temporary / "prompts")
        _write_transfer(results, side, prompts, temporary / "transfer", again)
        _write_indicators(results, side, temporary / "compare")
        _copy_states(results, side, temporary / "neurons")
        _write_projectors(results, side, temporary / "projectors")
    return folder


def _copy_prompts(results: Results, side: Use, folder: Path) -> list[Cell]:
    cells = [cell for cell in _cells(results, "prompt", side) if cell.id in results.own]
    for cell in cells:
        shutil.copytree(
            results.folder(cell) / "prompt", folder / f"{cell.settings['task']}-s{cell.settings['seed']}"
        )
    return cells


def _write_transfer(
    results: Results, side: Use, prompts: Sequence[Cell], folder: Path, again: Call | None
) -> None:
    """The matrix of zero-shot scores with the pairs of TPT_task, as `transfer --tune` writes it."""
    from prompttransfer.adaptations.artifacts import library_versions, load_adaptation
    from prompttransfer.training.train import Trained
    from prompttransfer.transfers.files import write_transfer

    scores = [
        read_score(results.folder(cell))
        for cell in _cells(results, "score", side)
        if "references" in cell.settings or cell.inputs["prompt"] in results.own
    ]
    matrix = transfer_matrix(scores)
    pairs, runs = _tuned(results, side)
    loaded = [load_adaptation(results.folder(cell) / "prompt") for cell in prompts]
    record = {
        "backbone": side.backbone,
        **({} if results.labels[side] == PROMPT else {"method": results.labels[side]}),
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
        "versions": library_versions(),
    }
    trained = [Trained(load_adaptation(results.folder(cell) / "prompt"), "steps", 0) for cell in runs]
    folder.mkdir(parents=True)
    write_transfer(folder, matrix, record, pairs, trained)
    if again is not None:
        note_call([folder / "transfer.json"], again.model_dump())


def _tuned(results: Results, side: Use) -> tuple[list[TunedPair], list[Cell]]:
    """The pairs of TPT_task of one side, and the prompts behind their curves, each once."""
    from prompttransfer.transfers.tuned_pairs import TunedPair

    pairs, runs = [], {}
    for cell in _cells(results, "tuned", side):
        run = results.input(cell, "run")
        if results.input(cell, "source").kind == "carried":
            continue
        record = read_tuned(results.folder(cell))
        pairs.append(TunedPair.of(record))
        for each in (results.input(cell, "scratch"), run):
            runs[each.id] = each
    return pairs, list(runs.values())


def _write_indicators(results: Results, side: Use, folder: Path) -> None:
    """Every indicator as one table by task, mean over seeds."""
    for name, table in mean_indicators(results, side).items():
        write_text(folder / f"similarity_{name}.csv", table.to_csv(float_format="%.10g", lineterminator="\n"))


def mean_indicators(results: Results, side: Use) -> dict[str, pd.DataFrame]:
    """Indicator -> table over tasks, mean over the seeds that are there."""
    found: dict[str, list[pd.DataFrame]] = {}
    for cell in _cells(results, "indicator", side):
        found.setdefault(measure_of(cell), []).append(indicator_table(results, cell))
    return {name: sum(tables[1:], tables[0]) / len(tables) for name, tables in found.items()}


def _copy_states(results: Results, side: Use, folder: Path) -> None:
    for cell in _cells(results, "states", side):
        prompt = results.input(cell, "prompt").settings
        folder.mkdir(parents=True, exist_ok=True)
        name = f"states-{prompt['task']}-s{prompt['seed']}.safetensors"
        shutil.copyfile(results.folder(cell) / "states.safetensors", folder / name)


def _write_projectors(results: Results, side: Use, folder: Path) -> None:
    """Each projector that leads here, of the first seed, with the table of all seeds."""
    from projectors.artifacts import load_projector, save_projector

    groups: dict[str, list[Cell]] = {}
    for cell in results.of_kind("projector"):
        learned = results.input(cell, next(role for role in cell.inputs if role.startswith("target ")))
        if use_of(learned, results.graph.cells) == side:
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
