"""What a study tried before it kept the best by validation rows: the table of settings, their curves, and who was chosen.

report/tuning.csv                       every run of every cell that tried several
report/tuning/<backbone>-<method>.png   validation curves of one method, a panel a task, a line a setting (svg too)
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompttransfer.files import atomic_path
from prompttransfer.study.cell import Cell
from prompttransfer.study.contents import TriedRun, read_tried
from prompttransfer.study.methods import slug
from prompttransfer.study.results.long_table import Results, condition_of, name_of, tried_of
from prompttransfer.study.tuning import grid_of

if TYPE_CHECKING:
    import pandas as pd

TUNING_COLUMNS = {
    "backbone": "the model that was run",
    "method": "what was tuned",
    "target": "task that was learned",
    "condition": "what the kept one is: own prompt, scratch, from source, ...; `16 rows` of a system on so few",
    "source": "task of the member that it started from; empty where there is none",
    "seed": "seed of the run",
    "setting": "what was tried",
    "validation": "its best score on the validation rows, which chose; too high by what chance adds, as it is the best of many looks",
    "steps": "steps that it took",
    "ended": "steps, patience, stopped early (by halving) or not finite",
    "chosen": "whether it was kept",
    "cell": "id of the cell",
}
"""Column of tuning.csv -> what it is."""


def tuning_table(results: Results) -> pd.DataFrame:
    """Every run that was tried, one a row, with the columns of TUNING_COLUMNS."""
    import pandas as pd

    rows = [
        {**_of_cell(results, cell), **_of_run(text, run)}
        for cell in results.of_kind("prompt")
        for text, run in tried_of(results, cell)
    ]
    return pd.DataFrame(rows, columns=list(TUNING_COLUMNS))


def curve_table(results: Results) -> pd.DataFrame:
    """The curves of those runs, one evaluation a row: backbone and method beside the columns of `sweep_curves`."""
    import pandas as pd

    rows = []
    for cell in results.of_kind("prompt"):
        if cell.id not in results.own and cell.id not in results.systems:
            continue  # runs beside others have the table alone
        few = f", {cell.settings['limit_train']} rows" if "split_seed" in cell.settings else ""
        of_cell = {
            "backbone": name_of(cell),
            "method": results.method(cell),
            "panel": f"{cell.settings['task']}{few}",
            "seed": cell.settings["seed"],
        }
        for text, run in tried_of(results, cell):
            of_run = {"line": text, "stopped": run.ended == "stopped early", "chosen": run.chosen}
            rows += [{**of_cell, **of_run, "step": step, "score": score} for step, score in run.curve]
    return pd.DataFrame(rows)


def _of_cell(results: Results, cell: Cell) -> dict[str, Any]:
    found = condition_of(results, cell)
    return {
        "backbone": name_of(cell),
        "method": results.method(cell),
        "target": cell.settings["task"],
        "condition": found["condition"],
        "source": found.get("source", ""),
        "seed": cell.settings["seed"],
        "cell": cell.id,
    }


def _of_run(text: str, run: TriedRun) -> dict[str, Any]:
    return {
        "setting": text,
        "validation": run.validation,
        "steps": run.steps,
        "ended": run.ended,
        "chosen": run.chosen,
    }


def untold(results: Results) -> int:
    """Finished cells that tried several settings and do not say what came of each: an earlier version made them."""
    tuned = [cell for cell in results.of_kind("prompt") if grid_of(cell)]
    return sum(not read_tried(results.folder(cell)) for cell in tuned)


def draw_tuning(results: Results, folder: Path) -> list[Path]:
    """The curves of every backbone and method that was tuned, as PNG and SVG; nothing where there are none."""
    from analysis.figures import figure_bytes, sweep_curves

    shutil.rmtree(folder, ignore_errors=True)  # under earlier labels methods had other files
    table = curve_table(results)
    files: list[Path] = []
    if table.empty:
        return files
    folder.mkdir(parents=True, exist_ok=True)
    for (backbone, method), part in table.groupby(["backbone", "method"], sort=False):
        figure = sweep_curves(part, title=f"{backbone}: {method}")
        name = slug(f"{backbone}-{method}", len(".svg"))
        if folder / f"{name}.png" in files:  # systems on few rows may have labels that are one name of files
            name = slug(f"{name}-{len(files)}", len(".svg"))
        for kind in ("png", "svg"):
            path = folder / f"{name}.{kind}"
            with atomic_path(path) as temporary:
                temporary.write_bytes(figure_bytes(figure, kind))
            files.append(path)
    return files


def tuning_means(table: pd.DataFrame) -> pd.DataFrame:
    """Over tasks and seeds, a row a setting of each method: its mean score, that of its worst and best task, how often chosen."""
    keys = ["backbone", "method", "condition", "setting"]
    tasks = table.groupby([*keys, "target"], sort=False)["validation"].mean().groupby(keys, sort=False)
    runs = table.groupby(keys, sort=False)
    found = tasks.agg(["mean", "min", "max"])
    found["steps"] = runs["steps"].mean()
    found["chosen"] = runs["chosen"].sum()
    found["runs"] = runs["chosen"].size()
    return found.reset_index()
