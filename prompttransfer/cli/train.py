"""`prompttransfer train`: one soft prompt for each task and seed, all of them in one bank on one frozen backbone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompttransfer.cli.options import (
    EMBEDDED_DEFAULT,
    Aggregation,
    AsJson,
    BackboneName,
    Batch,
    Columns,
    DataFolder,
    Device,
    Devices,
    EmbedAt,
    EvaluateEvery,
    HeadAsked,
    LabelValues,
    LabelWords,
    LayoutName,
    LearningRate,
    Length,
    LimitTest,
    LimitTrain,
    MaxLength,
    MethodText,
    MetricName,
    Nodes,
    OneSplit,
    Optimizer,
    Overwrite,
    Patience,
    Precision,
    Predictions,
    Revision,
    Schedule,
    Seeds,
    Shots,
    SkipEmpty,
    SplitNames,
    Steps,
    Strategy,
    Sweeps,
    TaskNames,
    Template,
    WarmUp,
    WeightDecay,
)
from prompttransfer.cli.train_checks import (
    PROMPT,
    check_mixed_sources,
    check_mixture,
    grid_of,
    names_of,
    source_method,
)
from prompttransfer.cli.train_told import (
    predictions_of_runs,
    raise_failures,
    record_of,
    say_memory,
    say_strange,
    shares_line,
)
from prompttransfer.cli.values import OneOf, Output, Real, checked, lines_of

if TYPE_CHECKING:
    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.cli.sweep import Sweep


@checked
def train(
    task: TaskNames,
    backbone: BackboneName = EMBEDDED_DEFAULT,
    revision: Revision = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for one folder a prompt."),
        Output(standard="runs/prompts"),
    ] = None,
    data: DataFolder = None,
    columns: Columns = None,
    labels: LabelValues = None,
    splits: SplitNames = None,
    skip_empty: SkipEmpty = False,
    seeds: Seeds = None,
    one_split: OneSplit = False,
    method: MethodText = None,
    init: Annotated[
        str | None,
        typer.Option(
            "--init",
            "--start",
            help="random, vocabulary, label-words, text:WORDS, from:PATH, mixture:PATH=WEIGHT,... or "
            "retrieve:DIR,top=3,by=C_average; if not given random, or vocabulary for prompts of decoders.",
        ),
    ] = None,
    mixture: Annotated[
        bool,
        typer.Option(
            "--mixture",
            help="Train one prompt for all tasks together, which comes to each as often as it has rows.",
        ),
    ] = False,
    distil: Annotated[
        list[Path] | None,
        typer.Option(
            "--distil",
            help="Trained prompts, or folders of them, that teach the runs of their tasks: the distance to their answers is added "
            "to the loss.",
        ),
    ] = None,
    distil_weight: Annotated[
        float | None,
        typer.Option("--distil-weight", help="Of that distance (0.9)."),
        Real(0, 1e30, below=True),
    ] = None,
    distil_on: Annotated[
        str | None,
        typer.Option(
            "--distil-on",
            help="logits (scores of the label words; the default), states (of the last layer, where the answer is read) or both.",
        ),
        OneOf("part to distil", ("both", "logits", "states")),
    ] = None,
    distil_distance: Annotated[
        str | None,
        typer.Option(
            "--distil-distance", help="Of logits: kl (the default) or squared; states are always squared."
        ),
        OneOf("distance to a teacher", ("kl", "squared")),
    ] = None,
    distil_temperature: Annotated[
        float | None,
        typer.Option("--distil-temperature", help="That logits are divided by under kl (1)."),
        Real(0, 1e6, above=True),
    ] = None,
    layout: LayoutName = "prompt-first",
    template: Template = None,
    length: Length = None,
    steps: Steps = None,
    batch: Batch = None,
    lr: LearningRate = None,
    optimizer: Optimizer = None,
    weight_decay: WeightDecay = None,
    schedule: Schedule = None,
    warm_up: WarmUp = None,
    evaluate_every: EvaluateEvery = None,
    patience: Patience = None,
    metric: MetricName = None,
    embed_at: EmbedAt = None,
    sweep: Sweeps = None,
    halving: Annotated[
        bool,
        typer.Option(
            "--halving/--no-halving",
            help="Of a sweep: the better half of the settings goes on behind a quarter and behind half of their steps.",
        ),
    ] = True,
    label_words: LabelWords = None,
    head: HeadAsked = False,
    aggregation: Aggregation = None,
    max_length: MaxLength = None,
    limit_train: LimitTrain = None,
    shots: Shots = None,
    limit_test: LimitTest = None,
    predictions: Predictions = None,
    precision: Precision = "auto",
    device: Device = "auto",
    devices: Devices = 1,
    strategy: Strategy = "auto",
    nodes: Nodes = 1,
    checkpoint_activations: Annotated[
        bool,
        typer.Option(
            "--checkpoint-activations",
            help="Compute inner values again in the backward pass: less memory, more time, the same prompts.",
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be trained and its expected memory; train nothing."),
    ] = False,
    logger: Annotated[
        str,
        typer.Option(help="csv, tensorboard, wandb or none."),
        OneOf("logger", ("csv", "none", "tensorboard", "wandb")),
    ] = "csv",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> list[Adaptation]:
    """Train a soft prompt, or what --method says, for each task and seed on a frozen backbone.

    Prints the recipe, a live learning curve and the test scores beside chance and the backbone without a prompt. A
    killed run goes on from its last evaluation when the same command is given again; what it has finished is not trained
    again. From Python nothing is written without `output`. With --distil each run also learns from what a frozen teacher, an
    adaptation of its task on the same backbone, answers to the same rows.

    With --sweep every combination of the values is trained, and what is kept is the one that is best on the validation
    rows of its task, mean over seeds.

    With --devices every device takes a share of the rows, and with --strategy fsdp of the backbone; the prompts are
    those of one device, but for the rounding of sums.
    """
    given = dict(locals())
    from prompttransfer.adaptations.heads import check_head
    from prompttransfer.adaptations.methods import parse_method
    from prompttransfer.adaptations.starts import Retrieve, check_start, parse_start
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.backbones.locating import locate
    from prompttransfer.distributed.placement import Placement
    from tasks.errors import UserError

    placement = Placement(devices, strategy, nodes)
    encoding = Encoding(layout, max_length, aggregation, lines_of(template))
    locate(backbone, revision)  # before the heavy imports: a name that is nothing is said at once
    from prompttransfer.cli.common import (
        answers_line,
        describe,
        only_the_first_speaks,
        print_json,
        say,
        seeds_line,
    )
    from prompttransfer.cli.data import data_options, rows_of_sources, where_given
    from prompttransfer.cli.teachers import teachers_of
    from prompttransfer.distributed.launching import must_start, run_on
    from prompttransfer.training.grids import first_of
    from prompttransfer.training.recipes import check_warm_up
    from prompttransfer.training.run_logs import check_logger

    rows = data_options(given)
    tasks = rows.tasks(task)
    chosen = list(dict.fromkeys(seeds or [0]))
    together = "+".join(item.name for item in tasks)
    names = names_of([together] if mixture else [item.name for item in tasks], chosen, output)
    check_start(init or "random")
    if mixture:
        check_mixture(tasks, init or "random", distil)
    told = (distil_weight, distil_on, distil_distance, distil_temperature)
    if distil is None and any(value is not None for value in told):
        raise UserError(
            "--distil-weight and the like say how to learn from teachers: give --distil FOLDER, too"
        )
    method = method or source_method(init or "random")
    overrides = dict(
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        schedule=schedule,
        warm_up=warm_up,
        steps=steps,
        batch=batch,
        length=length,
        evaluate_every=evaluate_every,
        patience=patience,
        embed_at=embed_at,
    )
    grid = grid_of(sweep, method, overrides, dry_run=dry_run)
    wanted = parse_method(first_of(method, grid), length=length or 1)  # before the heavy imports, too
    wanted.check_complete()
    if wanted.trains and not wanted.searches:
        check_warm_up(warm_up, steps)
    for item in tasks:
        check_head(wanted, item)
    check_logger(logger)
    if not dry_run and must_start(placement, device):
        return run_on(placement, train, **given)
    from prompttransfer.adaptations.artifacts import save_adaptation
    from prompttransfer.backbones.loading import load_backbone, outline_backbone
    from prompttransfer.cli.runs import finished, print_results, run_jobs
    from prompttransfer.cli.sweep import (
        print_sweep,
        read_sweep,
        records_of,
        run_sweep_of,
        sweep_of,
        swept_before,
        write_sweep,
    )
    from prompttransfer.evaluation.predictions import write_predictions
    from prompttransfer.outputs import Files, settings_of
    from prompttransfer.reports.calls import commit_of, note_call, precision_name, remember
    from prompttransfer.training.distillation import Distance
    from prompttransfer.training.recipes import method_and_recipe
    from prompttransfer.training.train import Job, Trained

    teachers = teachers_of(
        [item.name for item in tasks],
        chosen,
        distil,
        weight=distil_weight,
        distance=Distance(distil_on or "logits", distil_distance or "kl", distil_temperature or 1.0),
    )
    targets = rows.targets(tasks, chosen)
    if dry_run:
        model = outline_backbone(backbone, revision, precision=precision)
    else:
        model = load_backbone(
            backbone, revision=revision, precision=precision, device=device, placement=placement
        )
    encoding.place(model.family)
    first = only_the_first_speaks(model)
    model.checkpoints = checkpoint_activations
    chosen_method, recipe = method_and_recipe(model.family, model.state_width, method, **overrides)
    if not dry_run:  # an outline of a backbone has neither precision nor place
        say(describe(model), quiet=as_json)
    if mixture:
        check_mixed_sources(chosen_method, model, tasks)
    if chosen_method.name != PROMPT:
        say(f"method: {chosen_method}", quiet=as_json)
    for remark in chosen_method.remarks(model, [item.name for item in tasks]):
        say(remark, quiet=as_json)
    but = f" (but for {', '.join(grid)})" if grid else ""
    say(f"recipe{but}: {recipe.told(chosen_method)}", quiet=as_json)
    say_strange(model, targets, quiet=as_json)
    say(seeds_line(chosen, one_split=one_split, shots=shots), quiet=as_json)
    for target in targets:
        answers = model.answers(target.task, encoding)
        say(answers_line(target.task, answers.mapping if answers else {}), quiet=as_json)
    start = parse_start(init) if init else None
    if mixture:
        parts = {seed: [(target.task, target.rows(seed)) for target in targets] for seed in chosen}
        jobs = [
            Job(*parts[seed][0], seed, start, names[together, seed], beside=tuple(parts[seed][1:]))
            for seed in chosen
        ]
        say(shares_line(jobs[0]), quiet=as_json)
    else:
        jobs = [
            Job(
                target.task,
                target.rows(seed),
                seed,
                start,
                names[target.task.name, seed],
                teacher=teachers.get((target.task.name, seed)),
            )
            for target in targets
            for seed in chosen
        ]
    if isinstance(start, Retrieve) and not dry_run:
        from prompttransfer.transfers.retrieval import with_retrieved

        jobs = with_retrieved(
            model, jobs, recipe, encoding, chosen_method,
            rows_of=rows_of_sources(data), tell=lambda line: say(line, quiet=as_json),
        )  # fmt: skip
    if dry_run:
        say_memory(
            model, jobs, recipe, encoding, chosen_method,
            precision=precision, device=device, placement=placement, quiet=as_json,
        )  # fmt: skip
        return []
    beside = Files((predictions,) if predictions else (), settings_of("train", where_given(given, "head")))
    beside.check(overwrite=overwrite)
    asked: Sweep | None = None
    if grid:
        asked = sweep_of(model, method, grid, overrides, halving=halving)
        for line in asked.told():
            say(line, quiet=as_json)
        there = {} if overwrite else swept_before(model, jobs, asked, encoding, output)
    else:
        there = finished(model, jobs, recipe, encoding, chosen_method, output, overwrite=overwrite)
    tried: dict[str, list[dict[str, Any]]] = {}
    if len(there) == len(jobs):
        say("trained before with the same settings: nothing is left to do", quiet=as_json)
        results = [Trained(there[job.name], "steps", recipe.steps) for job in jobs]
        if asked is not None and output is not None:
            tried = read_sweep(output, list(dict.fromkeys(job.task_name for job in jobs)))
    else:
        if asked is not None:
            swept, kept = run_sweep_of(
                model, jobs, asked, encoding, output=output, logger=logger, quiet=as_json
            )
            results, tried = list(swept.trained), records_of(swept)
        else:
            results, options = run_jobs(
                model, jobs, recipe, encoding, chosen_method, output=output, logger=logger, quiet=as_json
            )
            kept = [options]
        if first and output is not None:
            if asked is not None:  # before the adaptations, which tell that all is done
                write_sweep(swept, output)
            for run in results:
                if run.adaptation.name not in there:
                    save_adaptation(run.adaptation, output / run.adaptation.name)
            known = {} if asked is not None else recipe.as_dict()
            call = remember(
                "train",
                train,
                given,
                **known,
                backbone=model.name,
                revision=commit_of(model.revision),
                precision=precision_name(model.precision),
            )
            note_call([output / run.adaptation.name for run in results], call)
            for options in kept:
                options.clear()
    if predictions is not None:
        lines = predictions_of_runs(model, jobs, results, encoding)
        if first:
            beside.claim()
            write_predictions(predictions, lines)
    if as_json:
        print_json([record_of(run.adaptation, output, tried) for run in results])
    else:
        print_sweep(tried, output)
        print_results(results, jobs=jobs, output=output)
    raise_failures(results)
    return [run.adaptation for run in results]
