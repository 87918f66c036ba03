"""The options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prompttransfer.backbones.layouts import LAYOUTS
from prompttransfer.cli.completion import backbones, methods, tasks
from prompttransfer.cli.values import OneOf, Output, Rate, Real, Seed, Whole
from prompttransfer.distributed.placement import STRATEGIES

LONGEST_PROMPT = 100_000
"""Vectors; no backbone takes as many, and what would be allocated for more does not fit."""

BackboneName = Annotated[
    str,
    typer.Option(
        "--backbone",
        "-b",
        help="Embedded name, hub name or folder of the frozen model.",
        autocompletion=backbones,
    ),
]
Revision = Annotated[
    str | None,
    typer.Option("--revision", help="Commit, branch or tag of a hub backbone; what a folder must be at."),
]
OtherBackbone = Annotated[
    bool,
    typer.Option(
        "--other-backbone", help="Use prompts as they are on a backbone that they were not trained on."
    ),
]
DataFolder = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder with <task>/{train,validation}.jsonl (or .csv, .tsv, .parquet), or with these themselves, or one file; "
        "instead of the hub or the embedded world. A YAML task's own folder goes before it, where there is one.",
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option("--columns", help="What columns of the data hold, as text=body label=stars."),
]
LabelValues = Annotated[
    list[str] | None,
    typer.Option("--labels", help="What values of the label column stand for, as 0=negative 1=positive."),
]
SplitNames = Annotated[
    list[str] | None,
    typer.Option("--splits", help="Files or splits of other names, as train=learn test=dev.csv."),
]
HeadAsked = Annotated[
    bool,
    typer.Option(
        "--head",
        help="Train a linear head with the adaptation, in place of label words: for classes that no words stand for.",
    ),
]
SkipEmpty = Annotated[
    bool,
    typer.Option("--skip-empty", help="Leave out rows with an empty text, which are otherwise an error."),
]
TaskNames = Annotated[
    list[str],
    typer.Option(
        "--task",
        "-t",
        help="Task names, YAML files of own tasks, files of rows, or hub:OWNER/NAME; several are allowed.",
        autocompletion=tasks,
    ),
]
LabelWords = Annotated[
    list[str] | None,
    typer.Option("--label-words", help="Label words for this run, as negative=terrible positive=great."),
]
Aggregation = Annotated[
    str | None,
    typer.Option(help="Allow label words of several tokens, combined by mean, sum or first."),
    OneOf("aggregation", ("mean", "sum", "first")),
]
LayoutName = Annotated[
    str, typer.Option("--layout", help="prompt-first, after-bos or su2022."), OneOf("layout", LAYOUTS)
]
OtherLayout = Annotated[
    bool,
    typer.Option(
        "--other-layout", help="Use a prompt under a layout or template that it was not trained with."
    ),
]
Template = Annotated[
    str | None,
    typer.Option(
        "--template",
        help=r"What a decoder reads in place of each task's own, as '{text}\nIt was' or "
        r"'{text_a}\n{text_b}\nAnswer:'; \n is a new line.",
    ),
]
MaxLength = Annotated[
    int | None,
    typer.Option("--max-length", help="Text tokens kept (128; 384 where text is written)."),
    Whole(1, 1_000_000),
]
LimitTrain = Annotated[
    int | None,
    typer.Option(
        "--limit-train",
        help="Use at most this many training rows, and a ninth as many (at least 32, at most as many) to validate.",
    ),
    Whole(),
]
MetricName = Annotated[
    str | None,
    typer.Option(
        "--metric",
        help="What scores the tasks, and so chooses checkpoints: accuracy, macro-f1, balanced-accuracy, mcc, 1-ece "
        "(calibration), f1:LABEL; token-f1, exact-match. The task's own if not given.",
    ),
]
Predictions = Annotated[
    Path | None,
    typer.Option(
        "--predictions",
        help="Also write what was said to each test row, as JSON lines: gold, predicted, probabilities.",
    ),
    Output(folder=False),
]
Shots = Annotated[
    int | None,
    typer.Option(
        "--shots",
        help="Train on this many rows of each label, drawn by seed, and validate on as many others (few-shot).",
    ),
    Whole(1, 1_000_000),
]
LimitTest = Annotated[
    int | None, typer.Option("--limit-test", help="Use at most this many test rows."), Whole()
]
Precision = Annotated[
    str,
    typer.Option(
        help="auto (bf16 where the hardware has it), bf16, fp32, or nf4 (linear maps held in four bits by bitsandbytes)."
    ),
    OneOf("precision", ("auto", "bf16", "fp32", "nf4")),
]
OneSplit = Annotated[
    bool,
    typer.Option(
        "--one-split",
        help="Give all seeds the validation rows of seed 0; as a rule each seed draws its own, beside start and row order.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what was finished there with other settings.")
]
Steps = Annotated[int | None, typer.Option("--steps", help="Training steps."), Whole(0)]
Batch = Annotated[int | None, typer.Option("--batch", help="Rows a step and prompt."), Whole(1, 1_000_000)]
LearningRate = Annotated[float | None, typer.Option("--lr", help="Learning rate."), Rate]
EmbedAt = Annotated[
    int | None,
    typer.Option(
        "--embed-at",
        help="Keep what was learned by this step beside the best, as an embedding of the task that retrieval goes by.",
    ),
    Whole(1),
]
Optimizer = Annotated[
    str | None,
    typer.Option("--optimizer", help="adamw or adafactor."),
    OneOf("optimizer", ("adafactor", "adamw")),
]
EvaluateEvery = Annotated[
    int | None, typer.Option("--evaluate-every", help="Steps between evaluations."), Whole()
]
Patience = Annotated[
    int | None,
    typer.Option("--patience", help="Stop after this many evaluations without a better score; 0: never."),
    Whole(0),
]
WeightDecay = Annotated[
    float | None, typer.Option("--weight-decay", help="Weight decay."), Real(0, 1e30, below=True)
]
Length = Annotated[
    int | None, typer.Option("--length", help="Number of prompt vectors."), Whole(1, LONGEST_PROMPT)
]
Seeds = Annotated[list[int] | None, typer.Option("--seeds", help="Seeds, several are allowed."), Seed]
Types = Annotated[
    list[str] | None,
    typer.Option("--types", help="task=type, may be repeated, or a file of such lines, for names not known."),
]
Devices = Annotated[
    int,
    typer.Option("--devices", help="GPUs (or CPU processes) of each machine that share the work."),
    Whole(1, 1024),
]
Strategy = Annotated[
    str,
    typer.Option(
        "--strategy",
        help="ddp: each device has the whole model and a share of the rows; fsdp: also a share of the model; auto: ddp.",
    ),
    OneOf("strategy", STRATEGIES),
]
Nodes = Annotated[
    int,
    typer.Option("--nodes", help="Machines, where torchrun or srun starts the command on each."),
    Whole(1, 100_000),
]
Calibrate = Annotated[
    str,
    typer.Option(
        "--calibrate",
        help="Scores with the bias of the label words taken off, beside the raw ones: content-free (an empty text and "
        "N/A in the task's format), train-mean (training rows without labels; never test rows), or none.",
    ),
]
RandomDraws = Annotated[
    int | None,
    typer.Option(
        "--random-draws",
        help="Random adaptations for each method that the random row is the mean of; 12 or more if not given.",
    ),
    Whole(2, 1000),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
EMBEDDED_DEFAULT = "microworld-roberta"
MethodText = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="prompt, p-tuning:encoder=mlp, lora:rank=8,targets=query+value ...; prompt, or that of the start, if not given.",
        autocompletion=methods,
    ),
]
SourceMethods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        help="Use only those of this method, as lora or lora:rank=8; several are allowed, all if not given.",
    ),
]
Schedule = Annotated[
    str | None,
    typer.Option(
        "--schedule", help="constant, or linear: the learning rate falls to 0 behind the last step."
    ),
    OneOf("schedule", ("constant", "linear")),
]
WarmUp = Annotated[
    int | None, typer.Option("--warm-up", help="Steps in which the learning rate rises."), Whole(0)
]
Sweeps = Annotated[
    list[str] | None,
    typer.Option(
        "--sweep",
        help="Settings to try, as lr=1e-3,1e-2,0.1 length=5,20: of the recipe or of the method; validation rows choose.",
    ),
]
