"""`plot`: figures from files; each is written as PNG and SVG, and the same file gives the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompttransfer.cli.options import Overwrite, Types
from prompttransfer.cli.values import OneOf, Output, Seed, Whole, checked

if TYPE_CHECKING:
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
    file: Annotated[Path, typer.Argument(help="A matrix as CSV: rows source prompts, columns target tasks.")],
    output: Picture = None,
    overwrite: Overwrite = False,
    types: Types = None,
    cluster: Annotated[bool, typer.Option(help="Order by clustering, with the tree, not by type.")] = False,
    title: Title = "",
    label: Annotated[str, typer.Option(help="What a value is, beside the colour bar.")] = "",
    leave_out: Annotated[list[str] | None, typer.Option(help="Task to leave out, may be repeated.")] = None,
    json_: Json = False,
) -> None:
    """Heatmap of transfer or of any indicator, tasks of one type together, reference rows apart."""
    picture = Drawing("heatmap", output or file.with_suffix(".png"), dict(locals()))
    from analysis.figures import heatmap as draw
    from prompttransfer.cli.tables import read_matrix, say_written, task_types

    table = without(read_matrix(file), leave_out or [])
    kinds = task_types([*map(str, table.index), *map(str, table.columns)], types or [])
    figure = draw(table, kinds, title=title, value_label=label, cluster=cluster)
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
    """Map of prompts coloured by type; several seeds or checkpoints of a task are joined."""
    picture = Drawing("map", output or Path("runs/map.png"), dict(locals()))
    import pandas as pd
    import torch

    from analysis.figures import coordinates, prompt_map
    from prompttransfer.cli.tables import (
        check_comparable,
        read_prompts,
        say_written,
        task_types,
    )

    found = read_prompts(prompts)
    check_comparable(found)
    places = coordinates(torch.stack([p.vectors for p in found]).flatten(1).double().numpy(), method, seed)
    kinds = task_types([p.task for p in found], types or [])
    points = pd.DataFrame(places, columns=["x", "y"])
    points["task"] = [p.task for p in found]
    points["type"] = [kinds.get(p.task, "") for p in found]
    figure = prompt_map(points, title=title, method={"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}[method])
    say_written(picture.write(figure), json_)


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
    """An indicator against transfer, with the fit and its interval."""
    picture = Drawing(
        "scatter",
        output or indicator.with_name(f"scatter_{indicator.stem.removeprefix('similarity_')}.png"),
        dict(locals()),
    )
    from analysis.figures import scatter as draw
    from prompttransfer.cli.tables import read_matrix, say_written, task_types

    table = read_matrix(transfer)
    kinds = task_types(map(str, table.columns), types or [])
    name = indicator.stem.removeprefix("similarity_")
    figure = draw(
        table, read_matrix(indicator), kinds, name=name, transfer_label=label, title=title, common=common
    )
    say_written(picture.write(figure), json_)


@plot_app.command("curves")
@checked
def curves(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Prompt folders, or one CSV with columns task, start, seed, step, score."),
    ],
    output: Picture = Path("runs/curves.png"),
    overwrite: Overwrite = False,
    title: Title = "",
    json_: Json = False,
) -> None:
    """Learning curves from scratch against from a transferred prompt, a panel a task."""
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
    file: Annotated[
        Path, typer.Argument(help="A matrix as CSV: rows projectors and controls, columns tasks.")
    ],
    control: Annotated[list[str] | None, typer.Option(help="Row that is a control, may be repeated.")] = None,
    output: Picture = None,
    overwrite: Overwrite = False,
    title: Title = "",
    decimals: Annotated[int, typer.Option(help="Places after the point."), Whole(0, 15)] = 1,
    json_: Json = False,
) -> None:
    """The projector table, controls below the rule."""
    picture = Drawing("projectors", output or file.with_suffix(".png"), dict(locals()))
    from analysis.figures import projector_table
    from analysis.matrices import is_reference
    from prompttransfer.cli.tables import read_matrix, say_written

    table = read_matrix(file)
    controls = control if control is not None else [str(r) for r in table.index if is_reference(str(r))]
    figure = projector_table(table, controls, title=title, decimals=decimals)
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
    from prompttransfer.neuron_states import load_all

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
    from prompttransfer.neuron_states import load_all
    from tasks.errors import UserError

    captured = load_all(files)
    if len(captured.states.names) < 2:
        raise UserError("overlap is of two prompts: give states of at least two")
    table = overlap_by_layer(captured.states, prompt_types(captured, types or []), measure=measure)
    figure = layer_curves(table, title=title, value_label=f"mean overlap {measure}")
    say_written(picture.write(figure), json_)


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
    from prompttransfer.report_pictures import curve_table as table_of

    return table_of(read_prompts(paths))
