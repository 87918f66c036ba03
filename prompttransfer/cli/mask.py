"""`neurons mask`: switch off a prompt's neurons by steps, and score it beside random neurons in equal number."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prompttransfer.cli.options import (
    AsJson,
    Columns,
    DataFolder,
    Device,
    LabelValues,
    LimitTest,
    MaxLength,
    Overwrite,
    Precision,
    Shots,
    SkipEmpty,
    SplitNames,
)
from prompttransfer.cli.values import OneOf, Output, Seed, Share, Whole, checked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.backbones.base import Backbone
    from prompttransfer.cli.data import DataOptions
    from prompttransfer.evaluation.encoding import EncodedTask
    from prompttransfer.neurons.masking import Masked
    from tasks.task import Task


@checked
def mask(
    prompt: Annotated[Path, typer.Argument(help="The prompt whose neurons are switched off.")],
    others: Annotated[
        list[Path] | None,
        typer.Option("--others", help="Prompts to be specific against: folders, or folders of them."),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            help="Which go first: specific (active for this prompt, seldom for the others) or largest (largest activations)."
        ),
        OneOf("order", ("largest", "specific")),
    ] = "specific",
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="Task to score on; the prompt's own if not given.")
    ] = None,
    rows: Annotated[
        int,
        typer.Option(help="Read activations over so many training rows; 0: of the prompt alone."),
        Whole(0),
    ] = 0,
    shares: Annotated[
        list[float] | None,
        typer.Option("--shares", help="Shares of all neurons, 0 to 1, several are allowed."),
        Share,
    ] = None,
    draws: Annotated[int, typer.Option(help="Draws of random neurons."), Whole(1, 10_000)] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the draws, and of ties."), Seed] = 0,
    rule: Annotated[
        str, typer.Option(help="positive or top, as for capturing."), OneOf("rule", ("positive", "top"))
    ] = "positive",
    share: Annotated[
        float, typer.Option(help="Share of a layer that is active under --rule top."), Share
    ] = 0.1,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Name of the CSV and figure."), Output(folder=False)
    ] = Path("runs/neurons/masking.csv"),
    overwrite: Overwrite = False,
    data: DataFolder = None,
    columns: Columns = None,
    labels: LabelValues = None,
    splits: SplitNames = None,
    skip_empty: SkipEmpty = False,
    shots: Shots = None,
    limit_test: LimitTest = 500,
    max_length: MaxLength = None,
    precision: Precision = "auto",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Switch off the neurons most specific to a prompt, by steps, and score it; random neurons in equal number beside.

    Specific are neurons that the prompt activates and the others seldom do; `--by largest` takes those with the largest
    activations (v2.0 of the authors' code, which switches off 20 %). The model is proved unchanged afterwards.
    """
    given = dict(locals())
    from dataclasses import replace

    from prompttransfer.adaptations.artifacts import load_adaptation
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.cli.common import say
    from prompttransfer.cli.data import asked, data_options
    from prompttransfer.cli.evaluate import backbone_of
    from prompttransfer.evaluation.encoding import encode_task
    from prompttransfer.neurons.capture import read_activations
    from prompttransfer.neurons.masking import SHARES, masking_curve
    from prompttransfer.outputs import Files, settings_of
    from prompttransfer.reports.calls import note_call, precision_name, remember
    from tasks.errors import MachineError

    own = load_adaptation(prompt)
    group = [own, *_others(own, others or [])]
    chosen = check_shares(shares or SHARES)
    written = Files(
        tuple(output.with_suffix(kind) for kind in (".csv", ".png", ".svg")),
        settings_of("neurons mask", asked(given)),
    )
    written.check(overwrite=overwrite)
    read = data_options(given)
    (scored,) = read.tasks([task or own.task], group)
    (target,) = replace(read, shots=None).targets([scored])
    model = backbone_of(group, None, precision, device)
    before = model.digest()
    counted = bool(rows) or shots is not None
    on = training_rows(model, group, scored, read.at_most(rows), max_length) if counted else None
    reading = read_activations(model, group, encoded=on, rule=rule, share=share)
    states = reading.states().states
    encoded = encode_task(
        model,
        target.task,
        target.splits.test,
        Encoding(own.layout, max_length, template=own.encoding.template),
        reserved=reserved_by([own]),
    )
    say(
        f"{own.name} on {target.task.name}: {len(chosen) * (1 + 2 * draws)} evaluations of {len(encoded.rows)} test "
        f"rows; activations of {reading.tensor}; {reading.shown}",
        quiet=as_json,
    )
    curve = masking_curve(
        model, own, encoded, states, reading.values, order=by, shares=chosen, draws=draws, seed=seed
    )
    if model.digest() != before:
        raise MachineError(
            "the backbone changed while neurons were switched off: this is a bug, please report it"
        )
    written.claim()
    _finish(curve, own, target.task.metric, output, as_json)
    call = remember("neurons mask", mask, given, precision=precision_name(model.precision))
    note_call([output.with_suffix(".csv")], call)


def check_shares(shares: Sequence[float]) -> list[float]:
    """The shares in order, each once; a UserError for one that is none, before any model is loaded."""
    from tasks.errors import UserError

    wrong = [share for share in shares if not 0 <= share <= 1]
    if wrong:
        raise UserError(
            f"--shares {' '.join(map(str, wrong))}: shares of all neurons lie between 0 and 1, as 0 0.1 0.2"
        )
    return sorted(dict.fromkeys(shares))


def training_rows(
    model: Backbone,
    prompts: Sequence[Adaptation],
    task: Task,
    rows: DataOptions,
    max_length: int | None,
) -> EncodedTask:
    """The training rows of a task, encoded for the prompts: test rows are never read activations on."""
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.evaluation.encoding import encode_task

    (target,) = rows.targets([task])
    encoding = Encoding(prompts[0].layout, max_length, template=prompts[0].encoding.template)
    return encode_task(model, target.task, target.splits.train, encoding, reserved=reserved_by(prompts))


def reserved_by(prompts: Sequence[Adaptation]) -> int:
    """Positions that the text leaves free so that each of these has room in front of the same rows."""
    from prompttransfer.adaptations.running import groups_of

    return max(group.reserved for group in groups_of(prompts))


def _others(own: Adaptation, folders: Sequence[Path]) -> list[Adaptation]:
    """The other prompts, less the one that is masked."""
    from dataclasses import replace

    from prompttransfer.cli.tables import read_prompts

    if not folders:
        return []
    found = [other for other in read_prompts(folders) if other.digest != own.digest]
    return [replace(o, name=f"{o.name}@other") if o.name == own.name else o for o in found]


def _finish(curve: Sequence[Masked], own: Adaptation, metric: str, output: Path, as_json: bool) -> None:
    """Write the CSV and the figure, and print the means."""
    from dataclasses import asdict

    import pandas as pd

    from analysis.figures import masking_curves
    from prompttransfer.cli.common import number, table
    from prompttransfer.cli.tables import say_written, write_figure
    from prompttransfer.files import write_text
    from prompttransfer.neurons.masking import mean_scores

    long = pd.DataFrame([asdict(point) for point in curve])
    path = output.with_suffix(".csv")
    write_text(path, long.to_csv(index=False, float_format="%.10g", lineterminator="\n"))
    figure = masking_curves(long, title=f"{own.name}: neurons switched off", score_label=metric)
    written = [path, *write_figure(figure, output.with_suffix(".png"))]
    overall = mean_scores(curve)
    if as_json:
        say_written(written, True, {"curve": [asdict(point) for point in curve], "mean_scores": overall})
        return
    means = long.groupby(["share", "kind"])["score"].mean().unstack("kind")[list(dict.fromkeys(long["kind"]))]
    rows = [
        [f"{100 * value:g} %", *map(number, row)]
        for value, row in zip(means.index, means.to_numpy(), strict=True)
    ]
    if overall:
        rows.append(["mean", *(number(overall[kind]) for kind in means.columns)])
    table(f"{metric} without neurons, mean over draws", ["switched off", *map(str, means.columns)], rows)
    say_written(written)
