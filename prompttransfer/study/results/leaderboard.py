"""`leaderboard`: test scores of many runs and methods, one row a method as it was used in a run, one column a task.

Runs are known by what they wrote: `results.parquet` of a study, `transfer.json` of a transfer, the folders of
adaptations. Scores of several seeds are one score, their mean. The page is analysis/report/board.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from analysis.report.board import Line, Value
from prompttransfer.adaptations.artifacts import holds_one, read_record
from prompttransfer.adaptations.library import line_of
from prompttransfer.adaptations.starts import source_of
from prompttransfer.reports.run_folder import MATRIX, TransferRecord, read_transfer
from prompttransfer.study.results.long_table import (
    FROM_SOURCE,
    OWN,
    SCRATCH,
    ZERO_SHOT,
    raw_scores,
    with_methods,
)
from prompttransfer.training.sweep import NOTE
from prompttransfer.transfers.matrix import NO_PROMPT_CALIBRATED, REFERENCE_ROWS
from tasks.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

RESULTS = "results.parquet"
DEPTH = 4
"""Folders below those that are given that are looked into."""
NEEDED = ("kind", "backbone", "source", "target", "seed", "condition", "measure", "value")
REFERENCES = tuple(row for row in REFERENCE_ROWS if row != NO_PROMPT_CALIBRATED)


@dataclass(frozen=True)
class Score:
    """One test score, as some run has it."""

    run: str
    backbone: str
    method: str
    how: str
    """own prompt, zero-shot, from source, scratch, or what it is read against."""
    task: str
    metric: str
    value: float
    seed: int = 0


def leaderboard(folders: Sequence[Path]) -> list[Line]:
    """The lines of all runs in folders. Raises UserError where there is no score, or a file is damaged."""
    scores = [score for folder in folders for score in _scores_in(folder, folders)]
    if not scores:
        raise UserError(
            f"no score in {', '.join(map(str, folders))}: give folders of studies ({RESULTS}), of transfers ({MATRIX}), or "
            f"of trained adaptations"
        )
    return lines_of(scores)


def lines_of(scores: Iterable[Score]) -> list[Line]:
    """One line for each run, backbone, method and way of use, with the mean over seeds of every task and metric.

    What was scored on several sources is averaged over them within a seed first, so that a spread is that of seeds.
    """
    cells: dict[tuple[str, str, str, str], dict[tuple[str, str], dict[int, list[float]]]] = {}
    for one in scores:
        key = (one.run, one.backbone, one.method, one.how)
        seeds = cells.setdefault(key, {}).setdefault((one.metric, one.task), {})
        seeds.setdefault(one.seed, []).append(one.value)
    found = []
    for (run, backbone, method, how), tasks in cells.items():
        values = {}
        for place, seeds in tasks.items():
            means = [fmean(each) for each in seeds.values()]
            values[place] = Value(fmean(means), stdev(means) if len(means) > 1 else None, len(means))
        found.append(Line(run, backbone, method, how, values, reference=how in REFERENCES))
    return found


def _scores_in(folder: Path, folders: Sequence[Path]) -> Iterator[Score]:
    """The scores below a folder: of a study its table alone, else of its transfers and of adaptations that are in none."""
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not a folder: give the folder of a study, of a run, or of trained adaptations"
        )
    seen: set[tuple[Any, ...]] = set()
    for place in _places(folder, DEPTH):
        run = _called(folder, place, folders)
        if (place / RESULTS).is_file():
            yield from study_scores(place / RESULTS, run)
        elif (place / MATRIX).is_file():
            for score in transfer_scores(read_transfer(place / MATRIX), run):
                seen.add(_key(score))
                yield score
        elif holds_one(place):
            own = own_score(place, run)
            if own is not None and _key(own) not in seen:
                yield own


def _key(score: Score) -> tuple[Any, ...]:
    return score.backbone, score.method, score.how, score.task, score.seed


def _places(folder: Path, depth: int) -> Iterator[Path]:
    """Folders in which something lies, transfers before adaptations; nothing below a study or an adaptation."""
    if (folder / RESULTS).is_file() or holds_one(folder):
        yield folder
        return
    if (folder / MATRIX).is_file():
        yield folder
    if depth:
        below = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
        found = [place for path in below for place in _places(path, depth - 1)]
        yield from sorted(found, key=lambda place: not (place / MATRIX).is_file())


def _called(folder: Path, place: Path, folders: Sequence[Path]) -> str:
    """What a run is called: the folder that was given; its whole path where two share the last part."""
    names = [path.resolve().name for path in folders]
    own = folder.resolve().name if names.count(folder.resolve().name) == 1 else str(folder)
    if (place / RESULTS).is_file() and place != folder:
        return f"{own}/{place.relative_to(folder)}"  # several studies in one folder
    return own


def study_scores(path: Path, run: str) -> Iterator[Score]:
    """The test scores in the table of a study."""
    import pandas as pd

    for row in raw_scores(with_methods(_read(path))).to_dict("records"):
        if not pd.isna(row["value"]) and row["condition"] != NO_PROMPT_CALIBRATED:  # another measure
            yield Score(
                run,
                str(row["backbone"]),
                "" if row["condition"] in REFERENCES else str(row["method"]),
                str(row["condition"]),
                str(row["target"]),
                str(row["measure"]),
                float(row["value"]),
                0 if pd.isna(row["seed"]) else int(row["seed"]),
            )


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        table = pd.read_parquet(path)
    except Exception as error:  # pyarrow has a name for each way in which a file can be damaged
        raise UserError(
            f"{path} is damaged: {str(error).splitlines()[0]}; write it anew with `study report`"
        ) from None
    missing = [name for name in NEEDED if name not in table.columns]
    if missing:
        raise UserError(f"{path} is no table of a study: it lacks {', '.join(missing)}")
    return table


def transfer_scores(record: TransferRecord, run: str) -> Iterator[Score]:
    """The scores of a transfer: own prompts, those of other tasks, references, and training from sources."""
    raw = record.raw
    metrics = dict(zip(raw.targets, raw.metrics or ["score"] * len(raw.targets), strict=True))
    methods = raw.methods or ["prompt"] * len(raw.sources)
    methods = [*methods, *[""] * (len(raw.sources) - len(methods))]  # reference rows have none
    seeds: dict[tuple[str, str], int] = {}
    for name, task, method, row in zip(raw.sources, raw.source_tasks, methods, raw.values, strict=True):
        if name == NO_PROMPT_CALIBRATED:
            continue  # another measure
        reference = name in REFERENCES
        seed = seeds[task, method] = seeds.get((task, method), -1) + 1
        for target, value in zip(raw.targets, row, strict=True):
            if value is None:
                continue
            how = name if reference else OWN if task == target else ZERO_SHOT
            kind = "" if reference else method
            yield Score(
                run, record.backbone, kind, how, target, metrics[target], value, 0 if reference else seed
            )
    kinds = dict(zip(raw.sources, methods, strict=True))
    for pair in record.tuned:
        for how, value in ((FROM_SOURCE, pair.tuned), (SCRATCH, pair.scratch)):
            kind = kinds.get(pair.source, "prompt")
            yield Score(run, record.backbone, kind, how, pair.target, metrics[pair.target], value, pair.seed)


def own_score(folder: Path, run: str) -> Score | None:
    """The test score that an adaptation keeps; None where it was not scored."""
    record = read_record(folder)
    line: Mapping[str, Any] = line_of(folder, record)
    if line["test"] is None:
        return None
    how = OWN if source_of(line["start"]) is None else FROM_SOURCE
    return Score(
        run,
        line["backbone"],
        f"{record.method.name}, settings swept" if NOTE in record.notes else line["method"],
        how,
        line["task"],
        line["metric"],
        float(line["test"]),
        line["seed"] or 0,
    )
