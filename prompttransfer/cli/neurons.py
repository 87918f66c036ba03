"""`neurons`: which feed-forward neurons prompts activate, how much they share, and what happens without them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from prompttransfer.cli.options import (
    AsJson,
    DataFolder,
    Device,
    LimitTest,
    MaxLength,
    OtherLayout,
    Precision,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from prompttransfer.backbones import Backbone
    from prompttransfer.evaluation import EncodedTask
    from prompttransfer.neuron_states import Captured
    from prompttransfer.prompt import Prompt

DEFAULT = "capture"
_PRINTED_WHOLE = 6  # larger matrices are only written


class CaptureByDefault(TyperGroup):
    """`neurons PROMPT...` is `neurons capture PROMPT...`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Put the verb in front where the user left it out."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


neurons_app = typer.Typer(
    cls=CaptureByDefault,
    help="Activated neurons: `neurons PROMPT...` captures them (same as `neurons capture`).",
    no_args_is_help=True,
)


@neurons_app.command("capture")
def capture(
    prompts: Annotated[list[Path], typer.Argument(help="Prompt folders, or folders of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the states.")] = Path(
        "runs/neurons/states.safetensors"
    ),
    rule: Annotated[
        str,
        typer.Option(help="Active is: positive (the paper's, above 0) or top (largest share of a layer)."),
    ] = "positive",
    share: Annotated[float, typer.Option(help="Share of a layer that is active under --rule top.")] = 0.1,
    task: Annotated[
        str | None,
        typer.Option("--task", "-t", help="Average over rows of this task instead of the prompt alone."),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Training rows of that task.")] = 64,
    data: DataFolder = None,
    backbone: Annotated[str | None, typer.Option("--backbone", "-b", help="Another backbone.")] = None,
    other_layout: OtherLayout = False,
    max_length: MaxLength = None,
    precision: Precision = "auto",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Capture which neurons each prompt activates, in all layers, and keep them as bits.

    The input is the prompt alone, read where the answer is given (Su et al. 2022, section 6), or with --task the mean
    over real rows.
    """
    from prompttransfer.cli.evaluate import backbone_of
    from prompttransfer.cli.tables import read_prompts, say_written
    from prompttransfer.neuron_states import save_states
    from prompttransfer.neurons import capture as capture_states

    found = read_prompts(prompts)
    model = backbone_of(found, backbone, precision, device)
    encoded = _training_rows(model, found, task, rows, data, max_length) if task is not None else None
    captured = capture_states(
        model, found, rule=rule, share=share, encoded=encoded, other_layout=other_layout
    )
    path = save_states(captured, output)
    if as_json:
        say_written([path], True, _record(captured))
    else:
        _print_states(captured)
        say_written([path])


def _training_rows(
    model: Backbone,
    prompts: Sequence[Prompt],
    name: str,
    rows: int,
    data: Path | None,
    max_length: int | None,
) -> EncodedTask:
    from prompttransfer.cli.common import load_targets, resolve_tasks
    from prompttransfer.evaluation import encode_task
    from prompttransfer.layouts import find_layout

    target = load_targets(resolve_tasks([name]), data=data, limit_train=rows)[0]
    layout = find_layout(prompts[0].layout, model.family)
    return encode_task(
        model,
        target.task,
        target.splits.train,
        length=prompts[0].length,
        layout=layout,
        max_length=max_length,
    )


def _record(captured: Captured) -> dict[str, object]:
    from analysis.neurons import active_share

    states = captured.states
    shares = active_share(states)
    return {
        "backbone": states.backbone,
        "rule": states.rule,
        "tensor": captured.tensor,
        "layers": states.layers,
        "neurons": states.neurons,
        "active_share": {str(name): list(map(float, row)) for name, row in zip(shares.index, shares.to_numpy(), strict=True)},
    }  # fmt: skip


def _print_states(captured: Captured) -> None:
    """Active neurons a layer in per cent, and what that is the share of."""
    from analysis.neurons import active_share
    from prompttransfer.cli.common import say, table

    states = captured.states
    shares = active_share(states)
    say(f"{states.backbone}: {states.layers} layers of {states.neurons} neurons, {captured.tensor}")
    say(f"active: {states.rule}")
    rows = [
        [str(name), *(f"{100 * value:.1f}" for value in row)]
        for name, row in zip(shares.index, shares.to_numpy(), strict=True)
    ]
    table("active neurons, per cent of each layer", ["prompt", *shares.columns], rows)


@neurons_app.command("overlap")
def overlap(
    files: Annotated[list[Path], typer.Argument(help="Files of states, as `neurons PROMPT...` writes.")],
    measure: Annotated[
        list[str] | None,
        typer.Option("--measure", help="ON (the paper's cosine) or jaccard; both if not given."),
    ] = None,
    window: Annotated[
        list[int] | None,
        typer.Option(
            "--window", help="Also by windows of so many layers: 3 as in the paper, 1 for every layer."
        ),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option("--layers", help="Also over these layers, as 9-11 (from 0), may be repeated."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the CSV files.")] = Path(
        "runs/neurons"
    ),
    as_json: AsJson = False,
) -> None:
    """Overlap of every two prompts, over all layers and by windows, without the model; one CSV each, for `correlate`."""
    from analysis.neurons import OVERLAPS, overlaps
    from prompttransfer.cli.tables import say_written, write_table
    from prompttransfer.neuron_states import load_all

    captured = load_all(files)
    spans = layer_spans(captured.states.layers, window or [], layers or [])
    names = list(dict.fromkeys(measure or OVERLAPS))
    tables = {name: overlaps(captured.states, spans, name) for name in names}
    paths = [
        write_table(output / f"similarity_{name}{'' if span == 'all' else f'_layers-{span}'}.csv", table)
        for name, found in tables.items()
        for span, table in found.items()
    ]
    if as_json:
        matrices = {n: {s: t.to_numpy().tolist() for s, t in found.items()} for n, found in tables.items()}
        say_written(paths, True, {"prompts": list(captured.states.names), "overlap": matrices})
    else:
        _print_overlaps(tables)
        say_written(paths)


def layer_spans(layers: int, sizes: Sequence[int], given: Sequence[str]) -> dict[str, slice]:
    """Name -> layers: `all`, the windows of each size, and `first-last` as the user gave them."""
    import re

    from analysis.neurons import windows
    from tasks.errors import UserError

    spans = {"all": slice(None)}
    for size in sizes:
        spans.update(windows(layers, size))
    for text in given:
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
        first = int(found[1]) if found else -1
        last = int(found[2] or first) if found else -1
        if not 0 <= first <= last < layers:
            raise UserError(
                f"--layers {text!r}: give one layer or first-last within 0-{layers - 1}, as 0-{layers - 1}"
            )
        spans[text] = slice(first, last + 1)
    return spans


def _print_overlaps(tables: dict[str, dict[str, pd.DataFrame]]) -> None:
    """Small matrices whole, and for every span the mean over pairs."""
    import numpy as np

    from prompttransfer.cli.common import number, table

    for measure, found in tables.items():
        whole = found["all"]
        if len(whole) <= _PRINTED_WHOLE:
            rows = [[str(n), *map(number, r)] for n, r in zip(whole.index, whole.to_numpy(), strict=True)]
            table(f"{measure} over all layers", ["", *map(str, whole.columns)], rows)
        pairs = np.triu_indices(len(whole), k=1)
        spread = [
            [s, *(number(f(t.to_numpy()[pairs])) for f in (np.mean, np.min, np.max))]
            for s, t in found.items()
        ]
        if len(whole) > 1:
            table(f"{measure} of pairs", ["layers", "mean", "lowest", "highest"], spread)


@neurons_app.command("mask")
def mask(
    prompt: Annotated[Path, typer.Argument(help="The prompt whose neurons are switched off.")],
    others: Annotated[
        list[Path],
        typer.Option("--others", help="Prompts to be specific against: folders, or folders of them."),
    ],
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="Task to score on; the prompt's own if not given.")
    ] = None,
    shares: Annotated[
        list[float] | None,
        typer.Option("--shares", help="Shares of all neurons, 0 to 1, several are allowed."),
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="Draws of random neurons.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    rule: Annotated[str, typer.Option(help="positive or top, as for capturing.")] = "positive",
    share: Annotated[float, typer.Option(help="Share of a layer that is active under --rule top.")] = 0.1,
    output: Annotated[Path, typer.Option("--output", "-o", help="Name of the CSV and figure.")] = Path(
        "runs/neurons/masking.csv"
    ),
    data: DataFolder = None,
    limit_test: LimitTest = 500,
    max_length: MaxLength = None,
    precision: Precision = "auto",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Switch off the neurons most specific to a prompt, by steps, and score it; random neurons in equal number beside.

    Specific are neurons that the prompt activates and the others seldom do. The model is proved unchanged afterwards.
    """
    from prompttransfer.artifacts import load_prompt
    from prompttransfer.cli.common import load_targets, resolve_tasks, say
    from prompttransfer.cli.evaluate import backbone_of
    from prompttransfer.evaluation import encode_task
    from prompttransfer.layouts import find_layout
    from prompttransfer.neurons import SHARES, masking_curve
    from prompttransfer.neurons import capture as capture_states
    from tasks.errors import MachineError

    own = load_prompt(prompt)
    group = [own, *_others(own, others)]
    target = load_targets(resolve_tasks([task or own.task]), data=data, limit_test=limit_test)[0]
    model = backbone_of(group, None, precision, device)
    before = model.digest()
    states = capture_states(model, group, rule=rule, share=share).states
    layout = find_layout(own.layout, model.family)
    encoded = encode_task(
        model, target.task, target.splits.test, length=own.length, layout=layout, max_length=max_length
    )
    chosen = sorted(dict.fromkeys(shares or SHARES))
    count = len(chosen) * (1 + 2 * draws)
    say(
        f"{own.name} on {target.task.name}: {count} evaluations of {len(encoded.rows)} test rows",
        quiet=as_json,
    )
    curve = masking_curve(model, own, encoded, states, shares=chosen, draws=draws, seed=seed)
    if model.digest() != before:
        raise MachineError(
            "the backbone changed while neurons were switched off: this is a bug, please report it"
        )
    _finish(curve, own, target.task.metric, output, as_json)


def _others(own: Prompt, folders: Sequence[Path]) -> list[Prompt]:
    """The other prompts, less the one that is masked."""
    from dataclasses import replace

    from prompttransfer.cli.tables import read_prompts

    found = [other for other in read_prompts(folders) if other.digest != own.digest]
    return [replace(o, name=f"{o.name}@other") if o.name == own.name else o for o in found]


def _finish(curve: Sequence, own: Prompt, metric: str, output: Path, as_json: bool) -> None:
    """Write the CSV and the figure, and print the means."""
    from dataclasses import asdict

    import pandas as pd

    from analysis.figures import masking_curves
    from prompttransfer.cli.common import number, table
    from prompttransfer.cli.tables import say_written, write_figure
    from prompttransfer.files import write_text

    long = pd.DataFrame([asdict(point) for point in curve])
    path = output.with_suffix(".csv")
    write_text(path, long.to_csv(index=False, float_format="%.10g", lineterminator="\n"))
    figure = masking_curves(long, title=f"{own.name}: neurons switched off", score_label=metric)
    written = [path, *write_figure(figure, output.with_suffix(".png"))]
    if as_json:
        say_written(written, True, {"curve": [asdict(point) for point in curve]})
        return
    means = long.groupby(["share", "kind"])["score"].mean().unstack("kind")
    rows = [
        [f"{100 * value:g} %", *map(number, row)]
        for value, row in zip(means.index, means.to_numpy(), strict=True)
    ]
    table(f"{metric} without neurons, mean over draws", ["switched off", *map(str, means.columns)], rows)
    say_written(written)
