"""The options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BackboneName = Annotated[
    str, typer.Option("--backbone", "-b", help="Embedded name, hub name or folder of the frozen model.")
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
        help="Folder with <task>/{train,validation}.jsonl, instead of the hub or the embedded world. A YAML task's own "
        "folder goes before it, where there is one.",
    ),
]
TaskNames = Annotated[
    list[str],
    typer.Option("--task", "-t", help="Task names or YAML files of own tasks; several are allowed."),
]
LabelWords = Annotated[
    list[str] | None,
    typer.Option("--label-words", help="Label words for this run, as negative=terrible positive=great."),
]
Aggregation = Annotated[
    str | None,
    typer.Option(help="Allow label words of several tokens, combined by mean, sum or first."),
]
LayoutName = Annotated[str, typer.Option("--layout", help="prompt-first, after-bos or su2022.")]
OtherLayout = Annotated[
    bool, typer.Option("--other-layout", help="Use a prompt under a layout that it was not trained with.")
]
MaxLength = Annotated[
    int | None,
    typer.Option("--max-length", min=1, help="Text tokens kept (128; 384 where text is written)."),
]
LimitTrain = Annotated[
    int | None,
    typer.Option(
        "--limit-train",
        help="Use at most this many training rows, and a ninth as many (at least 32, at most as many) to validate.",
    ),
]
OneSplit = Annotated[
    bool,
    typer.Option(
        "--one-split",
        help="Give all seeds the validation rows of seed 0; as a rule each seed draws its own, beside start and row order.",
    ),
]
LimitTest = Annotated[int | None, typer.Option("--limit-test", help="Use at most this many test rows.")]
Precision = Annotated[str, typer.Option(help="auto (bf16 where the hardware has it), bf16 or fp32.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Devices = Annotated[
    int, typer.Option("--devices", help="GPUs (or CPU processes) of each machine that share the work.")
]
Strategy = Annotated[
    str,
    typer.Option(
        "--strategy",
        help="ddp: each device has the whole model and a share of the rows; fsdp: also a share of the model; auto: ddp.",
    ),
]
Nodes = Annotated[
    int, typer.Option("--nodes", help="Machines, where torchrun or srun starts the command on each.")
]
Calibrate = Annotated[
    str,
    typer.Option(
        "--calibrate",
        help="Scores with the bias of the label words taken off, beside the raw ones: content-free (an empty text and "
        "N/A in the task's format), train-mean (training rows without labels; never test rows), or none.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
EMBEDDED_DEFAULT = "microworld-roberta"
