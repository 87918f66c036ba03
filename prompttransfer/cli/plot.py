"""`plot`: figures from files; each is written as PNG and SVG, and the same file gives the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompttransfer.cli.options import Overwrite, Types
from prompttransfer.cli.values import OneOf, Output, Seed, Whole, checked
from tasks.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

plot_app = typer.Typer(help="Draw figures from files.", no_args_is_help=True)

Picture = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Name of the picture; PNG and SVG are written beside each other."),
    Output(folder=False),
]
Title = Annotated[str, typer.Option(help="Title above the figure.")]
Json = Annotated[bool, typer.Option("--json", help="Print the paths as JSON.")]


class Drawing:
    """A picture that is about to be drawn: its place is looked at first, so that nothing is drawn in vain."""

    def __init__(self, verb: str, place: Path, given: dict[str, Any]):
        from prompttransfer.cli.tables import figure_paths
        from prompttransfer.outputs import Files, settings_of

        self.place = place
        self.files = Files(tuple(figure_paths(place)), settings_of(f"plot {verb}", given))
        self.files.check(overwrite=given["overwrite"])

    def write(self, figure: Figure) -> list[Path]:
        """Write the figure, and return the paths."""
        from prompttransfer.cli.tables import write_figure

        self.files.claim()
        return write_figure(figure, self.place)


@plot_app.command("heatmap")
@checked
def heatmap(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="A matrix as CSV: rows sources, columns target tasks; several stand side by side."
        ),
    ],
    output: Picture = None,
    overwrite: Overwrite = False,
    types: Types = None,
    cluster: Annotated[bool, typer.Option(help="Order by clustering, with the tree, not by type.")] = False,
    title: Title = "",
    label: Annotated[
        str, typer.Option(help="What a value is, beside the colour bar; as the file's own record says.")
    ] = "",
    leave_out: Annotated[list[str] | None, typer.Option(help="Task to leave out, may be repeated.")] = None,
    json_: Json = False,
) -> None:
    """Heatmap of transfer or of any indicator, tasks of one type together, reference rows apart.

    Several matrices, or one of sources of several methods, are drawn side by side with one scale of colours.
    """

    picture = Drawing("heatmap", output or files[0].with_suffix(".png"), dict(locals()))
    from analysis.figures import heatmap as draw
    from analysis.figures import heatmaps
    from prompttransfer.cli.tables import read_matrix, say_written, task_types

    panels = panels_of({file: without(read_matrix(file), leave_out or []) for file in files})
    names = dict.fromkeys(str(name) for t in panels.values() for name in (*t.index, *t.columns))
    kinds = task_types(names, types or [])
    meanings = {meaning_of(file) for file in files}
    said = label or (meanings.pop() if len(meanings) == 1 else "score")
    if len(panels) == 1:
        figure = draw(next(iter(panels.values())), kinds, title=title, value_label=said, cluster=cluster)
    elif cluster:
        raise UserError("--cluster orders one matrix by itself: drop it, or draw one matrix at a time")
    else:
        figure = heatmaps(panels, kinds, title=title, value_label=said)
    say_written(picture.write(figure), json_)


@plot_app.command("map")
@checked
def map_(
    prompts: Annotated[
        list[Path], typer.Argument(help="Prompt folders, or safetensors files with many keys.")
    ],
    output: Picture = Path("runs/map.png"),
    overwrite: Overwrite = False,
    method: Annotated[
        str,
        typer.Option(help="pca, tsne or umap (umap takes half a minute to start)."),
        OneOf("method", ("pca", "tsne", "umap")),
    ] = "pca",
    seed: Annotated[int, typer.Option(help="Seed of tsne and umap."), Seed] = 0,
    types: Types = None,
    title: Title = "",
    json_: Json = False,
) -> None:
    """Map of prompts coloured by type; several seeds or checkpoints of a task are joined and named once.

    Prompts of several seeds are placed by what training added to the vectors that they started from.
    """
    picture = Drawing("map", output or Path("runs/map.png"), dict(locals()))
    from analysis.figures import prompt_map
    from prompttransfer.cli.tables import (
        check_comparable,
        read_prompts,
        say_written,
        task_types,
    )
    from prompttransfer.reports.pictures import map_points

    found = read_prompts(prompts)
    check_comparable(found)
    points, what = map_points(found, method, seed)
    kinds = task_types([p.task for p in found], types or [])
    points["type"] = [kinds.get(p.task, "") for p in found]
    say_written(picture.write(prompt_map(points, title=title, method=what)), json_)


@plot_app.command("scatter")
@checked
def scatter(
    transfer: Annotated[Path, typer.Option(help="The transfer matrix, CSV.")],
    indicator: Annotated[Path, typer.Option(help="The indicator, a square CSV (as `compare` writes).")],
    output: Picture = None,
    overwrite: Overwrite = False,
    types: Types = None,
    common: Annotated[bool, typer.Option(help="Keep the tasks that both have.")] = False,
    title: Title = "",
    label: Annotated[str, typer.Option(help="What a value of the transfer matrix is.")] = "transfer",
    json_: Json = False,
) -> None:
    """An indicator against transfer within targets, with the fit and its interval; seeds of a task are averaged."""
    picture = Drawing(
        "scatter",
        output or indicator.with_name(f"scatter_{indicator.stem.removeprefix('similarity_')}.png"),
        dict(locals()),
    )
    from analysis.figures import scatter as draw
    from analysis.matrices import merge_seeds
    from prompttransfer.cli.tables import read_matrix, say_written, task_types

    table = read_matrix(transfer)
    tasks = [str(task) for task in table.columns]
    kinds = task_types(tasks, types or [])
    name = indicator.stem.removeprefix("similarity_")
    figure = draw(
        merge_seeds(table, tasks)[0],
        merge_seeds(read_matrix(indicator), tasks)[0],
        kinds,
        name=name,
        transfer_label=label,
        title=title,
        common=common,
    )
    say_written(picture.write(figure), json_)


@plot_app.command("curves")
@checked
def curves(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Prompt folders, or one CSV with columns task, start, seed, step, score, and recipe."
        ),
    ],
    output: Picture = Path("runs/curves.png"),
    overwrite: Overwrite = False,
    title: Title = "",
    json_: Json = False,
) -> None:
    """Learning curves from scratch against from a transferred prompt, a panel a task.

    Seeds of one recipe are averaged; runs of other recipes have lines of their own.
    """
    picture = Drawing("curves", output or Path("runs/curves.png"), dict(locals()))
    from analysis.figures import learning_curves
    from prompttransfer.cli.tables import read_long_table, say_written

    one_table = len(sources) == 1 and sources[0].suffix.lower() == ".csv"
    table = read_long_table(sources[0]) if one_table else curve_table(sources)
    say_written(picture.write(learning_curves(table, title=title)), json_)


@plot_app.command("masking")
@checked
def masking(
    file: Annotated[Path, typer.Argument(help="CSV with columns share, kind, draw, score.")],
    output: Picture = None,
    overwrite: Overwrite = False,
    title: Title = "",
    label: Annotated[str, typer.Option(help="What a score is.")] = "score",
    json_: Json = False,
) -> None:
    """How the score falls when neurons are switched off: the specific ones against random ones."""
    picture = Drawing("masking", output or file.with_suffix(".png"), dict(locals()))
    from analysis.figures import masking_curves
    from prompttransfer.cli.tables import read_long_table, say_written

    figure = masking_curves(read_long_table(file), title=title, score_label=label)
    say_written(picture.write(figure), json_)


@plot_app.command("projectors")
@checked
def projectors(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Folders or report.csv of projectors as `project fit` writes them, or one matrix as CSV: rows projectors "
            "and controls, columns tasks."
        ),
    ],
    control: Annotated[list[str] | None, typer.Option(help="Row that is a control, may be repeated.")] = None,
    output: Picture = None,
    overwrite: Overwrite = False,
    title: Title = "",
    decimals: Annotated[
        int | None, typer.Option(help="Places after the point; 3 for scores up to 1, else 1."), Whole(0, 15)
    ] = None,
    json_: Json = False,
) -> None:
    """The table of projectors, controls below the rule."""
    beside = files[0] / "projectors.png" if files[0].is_dir() else files[0].with_suffix(".png")
    picture = Drawing("projectors", output or beside, dict(locals()))
    from analysis.figures import projector_table
    from prompttransfer.cli.tables import say_written

    table, controls = projector_scores(files)
    places = decimals if decimals is not None else 3 if table.abs().max().max() <= 1 else 1
    figure = projector_table(table, controls if control is None else control, title=title, decimals=places)
    say_written(picture.write(figure), json_)


@plot_app.command("neurons")
@checked
def neurons(
    files: Annotated[list[Path], typer.Argument(help="Files of states, as `neurons PROMPT...` writes.")],
    layers: Annotated[
        list[int] | None,
        typer.Option("--layers", help="Layers to show, from 0; four if not given."),
        Whole(0),
    ] = None,
    count: Annotated[int, typer.Option(help="Neurons shown of each layer."), Whole(1, 10_000)] = 120,
    output: Picture = None,
    overwrite: Overwrite = False,
    types: Types = None,
    title: Title = "",
    json_: Json = False,
) -> None:
    """Which of a layer's most telling neurons each prompt activates."""
    picture = Drawing("neurons", output or files[0].with_name("neurons.png"), dict(locals()))
    from analysis.figures import neuron_map
    from prompttransfer.cli.tables import say_written
    from prompttransfer.neurons.states import load_all

    captured = load_all(files)
    figure = neuron_map(
        captured.states, prompt_types(captured, types or []), layers=layers, neurons=count, title=title
    )
    say_written(picture.write(figure), json_)


@plot_app.command("layers")
@checked
def layers(
    files: Annotated[list[Path], typer.Argument(help="Files of states, as `neurons PROMPT...` writes.")],
    measure: Annotated[str, typer.Option(help="ON or jaccard."), OneOf("overlap", ("ON", "jaccard"))] = "ON",
    output: Picture = None,
    overwrite: Overwrite = False,
    types: Types = None,
    title: Title = "",
    json_: Json = False,
) -> None:
    """Overlap of prompts of one type and of two types, layer by layer."""
    picture = Drawing("layers", output or files[0].with_name("layers.png"), dict(locals()))
    from analysis.figures import layer_curves, overlap_by_layer
    from prompttransfer.cli.tables import say_written
    from prompttransfer.neurons.states import load_all
    from tasks.errors import UserError

    captured = load_all(files)
    if len(captured.states.names) < 2:
        raise UserError("overlap is of two prompts: give states of at least two")
    table = overlap_by_layer(captured.states, prompt_types(captured, types or []), measure=measure)
    figure = layer_curves(table, title=title, value_label=f"mean overlap {measure}")
    say_written(picture.write(figure), json_)


def projector_scores(files: list[Path]):
    """The table of projectors (rows conditions, columns groups of tasks) or of a matrix, and its rows that are controls."""
    import pandas as pd

    from analysis.matrices import is_reference
    from prompttransfer.cli.tables import read_matrix

    if len(files) == 1 and files[0].is_file() and not _is_projector_report(files[0]):
        table = read_matrix(files[0])
        return table, [str(row) for row in table.index if is_reference(str(row))]
    columns: dict[str, dict[str, float]] = {}
    folders = [file if file.is_dir() else file.parent for file in files]
    alike = len({folder.resolve().name for folder in folders}) < len(files)
    for file, folder in zip(files, folders, strict=True):
        prefix = f"{folder if alike else folder.resolve().name}: " if len(files) > 1 else ""
        for group, means in _projector_means(file).items():
            columns[prefix + group] = means
    table = pd.DataFrame(columns)
    return table, [str(row) for row in table.index if row not in CARRIED]


CARRIED = ("projected", "projected, validated step")
"""The rows that a projector made; the target's own prompt is what there is to reach, and stands with the controls."""
REPORT_COLUMNS = ("task", "group", "condition", "seed", "value")


def _is_projector_report(file: Path) -> bool:
    from tasks.documents import read_text

    first = read_text(file, "table").partition("\n")[0].strip()
    return file.suffix.lower() == ".csv" and first.startswith(",".join(REPORT_COLUMNS))


def _projector_means(file: Path) -> dict[str, dict[str, float]]:
    """Group of tasks -> condition -> mean, of a projector's folder or of the cells in its report.csv."""
    from projectors.artifacts import read_record
    from projectors.report import ConditionScore, summarise
    from prompttransfer.cli.tables import read_long_table
    from tasks.errors import UserError

    if file.is_dir() or file.name == "projector.json":
        scores = read_record(file if file.is_dir() else file.parent).scores
        return {group: {name: entry.mean for name, entry in rows.items()} for group, rows in scores.items()}
    table = read_long_table(file)
    missing = [name for name in REPORT_COLUMNS if name not in table.columns]
    if missing or table.empty:
        raise UserError(
            f"{file} is no table of a projector: it needs columns {', '.join(REPORT_COLUMNS)} and a row; missing: "
            f"{', '.join(missing) or 'rows'}"
        )
    table = table.assign(draw=table["draw"] if "draw" in table.columns else 0)
    try:
        cells = [
            ConditionScore(str(t), str(g), str(c), int(s), float(v), int(d))
            for t, g, c, s, v, d in table[[*REPORT_COLUMNS, "draw"]].to_numpy()
        ]
    except (TypeError, ValueError) as error:
        raise UserError(f"{file}: seed, value and draw are numbers: {error}") from error
    return {
        group: {name: entry.mean for name, entry in rows.items()} for group, rows in summarise(cells).items()
    }


def panels_of(tables: dict[Path, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The tables that are drawn beside one another: a file each, and each method of a file that says them."""
    from prompttransfer.reports.pictures import by_method

    panels = {}
    for (file, table), place in zip(tables.items(), told_apart(list(tables)), strict=True):
        parts = by_method(table, methods_beside(file))
        if len(parts) < 2:
            panels[place] = table
        else:
            beside = f"{place} " if len(tables) > 1 else ""
            panels |= {f"{beside}{kind}": part for kind, part in parts.items()}
    return panels


def told_apart(files: Sequence[Path]) -> list[str]:
    """What files are called beside one another: without their suffix, and with as many of their folders as tell them apart."""
    parts = [file.absolute().with_suffix("").parts for file in files]
    depth = 1
    while len({part[-depth:] for part in parts}) < len({*parts}):
        depth += 1
    return ["/".join(part[-depth:]) for part in parts]


def methods_beside(matrix: Path) -> dict[str, str]:
    """Source -> method, from the `transfer.json` beside a matrix; nothing where there is none."""
    from prompttransfer.reports.run_folder import MATRIX, read_transfer

    record = matrix.with_name(MATRIX)
    if not record.is_file() or record == matrix:
        return {}
    raw = read_transfer(record).raw
    return dict(zip(raw.sources, raw.methods, strict=False))


def meaning_of(file: Path) -> str:
    """What the values of a matrix are, by the record beside it (transfer.json) or by the name of its file."""
    from prompttransfer.reports.run_folder import MATRIX, read_transfer
    from tasks.errors import UserError

    relative = file.stem == "transfer_relative"
    if file.stem.startswith("similarity_"):
        return file.stem.removeprefix("similarity_")
    if not (relative or file.stem == "transfer"):
        return file.stem
    try:
        metrics = list(dict.fromkeys(read_transfer(file.with_name(MATRIX)).raw.metrics))
    except UserError:
        metrics = []
    return f"{', '.join(metrics) or 'score'}, {'relative to own prompt' if relative else 'raw'}"


def prompt_types(captured, given):
    """Prompt -> type, by the task that it was trained on where its own name says nothing."""
    from prompttransfer.cli.tables import task_types

    names = captured.states.names
    known = task_types([*names, *captured.tasks], given)
    pairs = (
        (name, known.get(name) or known.get(task)) for name, task in zip(names, captured.tasks, strict=True)
    )
    return {name: kind for name, kind in pairs if kind}


def without(table, names):
    """The table less the rows and columns of these names; a name that is in neither is a mistake."""
    from tasks.errors import unknown

    for name in names:
        if name not in table.index and name not in table.columns:
            raise unknown("task in the matrix", name, map(str, table.columns))
    return table.drop(
        index=[n for n in names if n in table.index], columns=[n for n in names if n in table.columns]
    )


def curve_table(paths: list[Path]):
    """The stored learning curves of prompts as one long table; a prompt started from another names it."""
    from prompttransfer.cli.tables import read_prompts
    from prompttransfer.reports.pictures import curve_table as table_of

    return table_of(read_prompts(paths))
