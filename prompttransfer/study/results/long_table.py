"""All results of a study in one long table: one number a row, each with the cell that it comes from.

COLUMNS documents the table column by column. Rows stand in the order of the plan and hold nothing that differs from run
to run (no times), so that two ways to the same results give the same file, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompttransfer.study.cell import Cell, Graph
from prompttransfer.study.contents import TriedRun, read_projector_report, read_score, read_tried, read_tuned
from prompttransfer.study.engine.store import Store
from prompttransfer.study.methods import PROMPT, Use, labels_of, use_of
from tasks.catalog import all_tasks
from tasks.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {
    "cell": "id of the cell that the value comes from; `study explain` tells all about it",
    "kind": "kind of that cell: prompt, score, tuned, projector or indicator",
    "backbone": "the model that was run",
    "method": "what was trained on it: prompt, lora, p-tuning, ... with the settings that differ from the method's defaults",
    "source_backbone": "the model that the prompt was first trained on; another one where it came through a projector",
    "source": "task of the source prompt; empty for references, and for runs from scratch",
    "target": "task whose rows were scored",
    "relation": "of source and target: own, same type, different type; empty without a source. For a projector its group of tasks",
    "seed": "seed of the prompts",
    "condition": "what was scored: own prompt, zero-shot, no prompt (as it is and calibrated), random prompt, majority, scratch, from source (TPT_task), "
    "from projected (TPT_model), trained; `16 rows` of a system on so few; `..., tried` where it was one of several that validation "
    "rows chose among; for a projector the rows of its report",
    "by": "the indicator, the projector that a prompt came through, or the setting that was tried; empty elsewhere",
    "measure": "what the value is: a metric on test rows, `calibrated <metric>`, `validation <metric>`, steps, a speed-up, similarity",
    "value": "the number; empty where there is none (a speed-up over a run that learned nothing)",
    "bound": "of a speed-up: `at least` where the value is a lower bound, as the run had converged before its first "
    "step; `did not learn`, `never reached` or `scratch learned nothing` where there is no value",
    "rows": "number of test rows behind the value; empty where it is not from test rows",
    "low": "of a speed-up, the number that it is known to be above, as runs are looked at every few steps only",
    "high": "of a speed-up, the number that it is known to be at or below; inf where nothing bounds it",
}
"""Column of results.csv and results.parquet -> what it is."""

OWN, ZERO_SHOT, SCRATCH = "own prompt", "zero-shot", "scratch"
CALIBRATED = "calibrated"
FROM_SOURCE, FROM_PROJECTED = "from source", "from projected"
SAME, DIFFERENT = "same type", "different type"
STEPS = {
    "steps_to_converge_from_source": "steps to converge",
    "steps_to_converge_from_scratch": "steps to converge from scratch",
    "steps_to_scratch_score": "steps to the score of scratch",
    "convergence_speedup": "convergence speed-up",
    "comparable_speedup": "comparable speed-up",
    "step0_validation": "validation at step 0",
    "test_from_source": "test",
    "test_from_scratch": "test from scratch",
}
"""Field of `tuned.json` -> measure."""

TableRow = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """A finished study, or what there is of it, as one looks things up in it."""

    graph: Graph
    store: Store
    types: Mapping[str, str]
    """Task -> type."""
    own: frozenset[str]
    """Ids of the prompts that are sources: trained from scratch with the study's recipe."""
    finished: frozenset[str]
    labels: Mapping[Use, str]
    """A method on a backbone -> what it is called."""
    systems: Mapping[str, str] = field(default_factory=dict)
    """Cell of a study of few rows, a score or what was scored -> what its system is called."""

    def folder(self, cell: Cell) -> Path:
        """Where the files of a finished cell are."""
        return self.store.folder(cell.id)

    def input(self, cell: Cell, role: str) -> Cell:
        """The cell that plays a role."""
        return self.graph.cells[cell.inputs[role]]

    def of_kind(self, kind: str) -> list[Cell]:
        """Finished cells of a kind, in the plan's order."""
        return [cell for cell in self.graph.cells.values() if cell.kind == kind and cell.id in self.finished]

    def method(self, cell: Cell) -> str:
        """What the method of a cell is called."""
        return self.systems.get(cell.id) or self.labels[use_of(cell, self.graph.cells)]

    @property
    def methods(self) -> list[str]:
        """What the study's methods are called, in the plan's order."""
        return list(dict.fromkeys(self.labels.values()))

    def relation(self, source: str, target: str) -> str:
        """own, same type or different type."""
        if source == target:
            return "own"
        for task in (source, target):
            if task not in self.types:
                raise UserError(f"a finished cell names task {task!r}, which is none of this study")
        return SAME if self.types[source] == self.types[target] else DIFFERENT

    def origin(self, prompt: Cell) -> Cell:
        """The prompt that was trained from scratch at the root of one that was carried."""
        return self.origin(self.input(prompt, "prompt")) if prompt.kind == "carried" else prompt


def open_results(graph: Graph, store: Store) -> Results:
    """The results of a graph in a store."""
    own = {
        name
        for cell in graph.cells.values()
        if "references" in cell.settings
        for name in cell.inputs.values()
    }
    finished = frozenset(store.ids() & set(graph.cells))
    trained = [cell for cell in graph.cells.values() if cell.kind == "prompt"]
    labels = labels_of(use_of(cell, graph.cells) for cell in trained)
    labels |= {use_of(graph.cells[name], graph.cells): label for name, label in graph.labels.items()}
    systems = {run.score: run.system for run in reversed(graph.runs)}
    systems |= {graph.cells[score].inputs["prompt"]: name for score, name in systems.items()}
    return Results(graph, store, types_in(graph), frozenset(own), finished, labels, systems)


def types_in(graph: Graph) -> dict[str, str]:
    """Types of tasks: of the catalogue, and of own tasks as the plan says."""
    types = {name: task.type for name, task in all_tasks().items()}
    for cell in graph.cells.values():
        if "references" in cell.settings:
            types[str(cell.settings["task"])] = str(cell.settings["type"])
    return types


def long_table(results: Results) -> pd.DataFrame:
    """Every number of the study, one a row, with the columns of COLUMNS."""
    import pandas as pd

    rows = [
        {"cell": cell.id, "kind": cell.kind, "method": results.method(cell), **row}
        for kind, read in READERS.items()
        for cell in results.of_kind(kind)
        for row in read(results, cell)
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers = ["value", "low", "high"]
    texts = [column for column in COLUMNS if column not in (*numbers, "rows", "seed")]
    table[texts] = table[texts].fillna("").astype("string")
    table[numbers] = table[numbers].astype("float64")
    for column in ("rows", "seed"):
        table[column] = table[column].astype("Int64")
    return table


def name_of(cell: Cell, key: str = "backbone") -> str:
    named: Any = cell.settings[key]
    return str(named["name"])


def _through(results: Results, prompt: Cell) -> dict[str, str]:
    """Where the prompt that a run started from is from, and the projector that it came through."""
    origin = results.origin(prompt)
    by = projector_name(results.input(prompt, "projector")) if prompt.kind == "carried" else ""
    return {"source_backbone": name_of(origin), "source": str(origin.settings["task"]), "by": by}


def projector_name(cell: Cell) -> str:
    """Short, the same for all seeds."""
    settings: Any = cell.settings
    return f"{name_of(cell, 'source')} to {name_of(cell, 'target')}, {settings['method']} on {'+'.join(settings['fitting'])}"


def _prompt_rows(results: Results, cell: Cell) -> Iterator[TableRow]:
    from prompttransfer.adaptations.artifacts import read_record

    folder = results.folder(cell) / "prompt"
    metric = str(cell.settings["metric"])
    best = read_record(folder).scores.get("validation")
    if not isinstance(best, dict) or not {metric, "step"} <= best.keys():
        raise UserError(
            f"{folder} has no validation {metric} of its best step: it was made by another version"
        )
    row: TableRow = {
        "backbone": name_of(cell),
        "source_backbone": name_of(cell),
        "target": cell.settings["task"],
        "seed": cell.settings["seed"],
    }
    row |= condition_of(results, cell)
    yield {**row, "measure": f"validation {metric}", "value": best[metric]}
    yield {**row, "measure": "best step", "value": best["step"]}
    for text, run in tried_of(results, cell):
        tried = {"condition": f"{row['condition']}, tried", "by": text}
        yield {**row, **tried, "measure": f"validation {metric}", "value": run.validation}


def tried_of(results: Results, cell: Cell) -> Iterator[tuple[str, TriedRun]]:
    """Each run of a cell that tried several, with what it is called."""
    runs = read_tried(results.folder(cell))
    starts = {run.start for run in runs}
    for run in runs:
        parts = [f"{axis} {value}" for axis, value in run.setting.items()]
        yield ", ".join([*parts, *([f"from {run.start}"] if len(starts) > 1 else [])]), run


def condition_of(results: Results, prompt: Cell) -> TableRow:
    """What a prompt is: trained from scratch for the study or beside a run, or from another prompt."""
    target = str(prompt.settings["task"])
    if "split_seed" in prompt.settings:
        return {
            "condition": f"{'probe, ' * (prompt.id not in results.systems)}{prompt.settings['limit_train']} rows"
        }
    if "source" not in prompt.inputs:
        return {"condition": OWN if prompt.id in results.own else SCRATCH}
    start = results.input(prompt, "source")
    through = _through(results, start)
    condition = FROM_PROJECTED if start.kind == "carried" else FROM_SOURCE
    return {"condition": condition, "relation": results.relation(through["source"], target), **through}


def _score_rows(results: Results, cell: Cell) -> Iterator[TableRow]:
    record = read_score(results.folder(cell))
    target = record["task"]
    row = {
        "backbone": name_of(cell),
        "source_backbone": name_of(cell),
        "target": target,
        "measure": record["metric"],
        "rows": record["rows"],
    }
    if "references" in record:
        row["seed"] = cell.settings["references"]
        for condition, value in record["references"].items():
            yield {**row, "condition": condition, "value": value}
        for condition, value in record.get("calibrated references", {}).items():
            yield {**row, **_calibrated(record, value), "condition": condition}
        return
    prompt = results.input(cell, "prompt")
    row |= {"seed": prompt.settings["seed"], "value": record["value"]}
    if prompt.id in results.own and "split_seed" not in prompt.settings:
        source = record["prompt_task"]
        condition = OWN if source == target else ZERO_SHOT
        row |= {"source": source, "condition": condition, "relation": results.relation(source, target)}
        yield row
        if "calibrated" in record:
            yield {**row, **_calibrated(record, record["calibrated"])}
    else:
        yield {**row, **condition_of(results, prompt)}


def _calibrated(record: TableRow, value: float) -> TableRow:
    """A calibrated score as another measure, so that no table takes it for a raw one."""
    return {"measure": f"{CALIBRATED} {record['metric']}", "value": value}


def with_methods(table: pd.DataFrame) -> pd.DataFrame:
    """A long table whose every row names its method: where none stands, as in tables of before, it is soft prompts."""
    named = table["method"] if "method" in table else table["backbone"].map(lambda _: PROMPT)
    return table.assign(method=named.astype("object").where(named.notna() & (named != ""), PROMPT))


def raw_scores(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the long table that are scores as they are, not calibrated."""
    return table[(table["kind"] == "score") & ~table["measure"].str.startswith(CALIBRATED)]


def _tuned_rows(results: Results, cell: Cell) -> Iterator[TableRow]:
    record = read_tuned(results.folder(cell))
    run = results.input(cell, "run")
    row = {
        "backbone": name_of(run),
        "target": record["target"],
        "seed": record["seed"],
        **condition_of(results, run),
    }
    steps = {
        "convergence": record["steps_to_converge_from_source"],
        "comparable": record["steps_to_scratch_score"],
    }
    for key, measure in STEPS.items():
        one = {**row, "measure": measure, "value": record[key]}
        name = key.removesuffix("_speedup")
        yield one | _known(record, name, steps[name]) if name in steps else one


def _known(record: dict[str, Any], name: str, steps: int | None) -> TableRow:
    """The range of a speed-up, and why it has no value or only a bound."""
    low, high = record[f"{name}_low"], record[f"{name}_high"]
    if low is None:
        return {"bound": record["outcome"]}
    bound = "never reached" if steps is None else "at least" if steps == 0 else ""
    return {"bound": bound, "low": low, "high": math.inf if high is None else high}


def _projector_rows(results: Results, cell: Cell) -> Iterator[TableRow]:
    tasks: Any = cell.settings["tasks"]
    row = {
        "backbone": name_of(cell, "target"),
        "source_backbone": name_of(cell, "source"),
        "seed": cell.settings["seed"],
        "by": projector_name(cell),
    }
    for line in read_projector_report(results.folder(cell) / "projector"):
        if line.task not in tasks:
            raise UserError(
                f"the report of {cell.label!r} names task {line.task!r}, which is not one of its tasks"
            )
        yield {
            **row,
            "target": line.task,
            "relation": line.group,
            "condition": line.condition,
            "measure": tasks[line.task]["metric"],
            "value": line.value,
        }


def _indicator_rows(results: Results, cell: Cell) -> Iterator[TableRow]:
    measure = measure_of(cell)
    table = indicator_table(results, cell)
    prompts = [results.origin(_prompt_behind(results, cell, role)) for role in cell.inputs]
    first = prompts[0]
    for source in table.index:
        for target in table.columns:
            if table.loc[source, target] != table.loc[source, target]:
                continue  # an indicator need not have a value for every pair
            yield {
                "backbone": name_of(first),
                "source_backbone": name_of(first),
                "source": source,
                "target": target,
                "relation": results.relation(source, target),
                "seed": first.settings["seed"],
                "by": measure,
                "measure": "similarity",
                "value": float(table.loc[source, target]),
            }


def measure_of(cell: Cell) -> str:
    """The indicator of a cell."""
    names = (cell.settings.get(kind) for kind in ("similarity", "estimate", "overlap"))
    return str(next(filter(None, names)))


def _prompt_behind(results: Results, cell: Cell, role: str) -> Cell:
    found = results.input(cell, role)
    return results.input(found, "prompt") if found.kind == "states" else found


def indicator_table(results: Results, cell: Cell) -> pd.DataFrame:
    """The table of an indicator over all layers, by task."""
    import pandas as pd

    from prompttransfer.reports.run_folder import read_square

    measure = measure_of(cell)
    path = results.folder(cell) / f"similarity_{measure}.csv"
    table = read_square(path)
    tasks = [str(_prompt_behind(results, cell, role).settings["task"]) for role in cell.inputs]
    if table.shape != (len(tasks), len(tasks)):
        raise UserError(
            f"{path} is {table.shape[0]} x {table.shape[1]}, its cell compares {len(tasks)} prompts"
        )
    table.index = pd.Index(tasks)
    table.columns = pd.Index(tasks)
    return table


READERS: dict[str, Callable[[Results, Cell], Iterator[TableRow]]] = {
    "prompt": _prompt_rows,
    "score": _score_rows,
    "tuned": _tuned_rows,
    "projector": _projector_rows,
    "indicator": _indicator_rows,
}
"""Kind -> how its files become rows."""
