"""`prompttransfer evaluate`: score prompts on tasks, beside chance and the backbone without a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prompttransfer.cli.options import (
    Aggregation,
    AsJson,
    DataFolder,
    Device,
    LabelWords,
    LimitTest,
    MaxLength,
    OtherLayout,
    Overwrite,
    Precision,
)
from prompttransfer.cli.values import OneOf, Output, checked
from prompttransfer.layouts import LAYOUTS
from prompttransfer.placement import SINGLE, Placement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prompttransfer.backbones import Backbone
    from prompttransfer.evaluation import Score
    from prompttransfer.prompt import Prompt


@checked
def evaluate(
    prompts: Annotated[list[Path], typer.Argument(help="Prompt folders, or folders of them.")],
    task: Annotated[
        list[str] | None,
        typer.Option("--task", "-t", help="Tasks to score on; each prompt's own if not given."),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", "-b", help="Another backbone than the prompts' own.")
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option("--layout", help="Another layout, with --other-layout."),
        OneOf("layout", LAYOUTS),
    ] = None,
    data: DataFolder = None,
    label_words: LabelWords = None,
    aggregation: Aggregation = None,
    other_layout: OtherLayout = False,
    max_length: MaxLength = None,
    limit_test: LimitTest = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Also write the scores as JSON."),
        Output(folder=False),
    ] = None,
    overwrite: Overwrite = False,
    precision: Precision = "auto",
    device: Device = "auto",
    as_json: AsJson = False,
) -> list[Score]:
    """Score prompts on the test split of tasks. The label words are the task's own, never the prompt's."""
    given = dict(locals())
    import torch

    from prompttransfer.cli.common import load_targets, number, print_json, resolve_tasks, say, table
    from prompttransfer.evaluation import encode_task, evaluate_bank
    from prompttransfer.files import write_json
    from prompttransfer.layouts import find_layout
    from prompttransfer.outputs import Files, settings_of
    from prompttransfer.prompt import check_runs_on

    loaded = load_prompts(prompts)
    tasks = resolve_tasks(task or list(dict.fromkeys(p.task for p in loaded)), label_words)
    written = Files(() if output is None else (output,), settings_of("evaluate", given))
    written.check(overwrite=overwrite)
    targets = load_targets(tasks, data=data, limit_test=limit_test)
    model = backbone_of(loaded, backbone, precision, device)
    rows, records, scores = [], [], []
    for prompt in loaded:
        chosen = layout or prompt.layout
        check_runs_on(
            prompt,
            backbone=model.name,
            width=model.width,
            family=model.family,
            layout=chosen,
            other_layout=other_layout,
        )
        for target in targets:
            encoded = encode_task(
                model,
                target.task,
                target.splits.test,
                length=prompt.length,
                layout=find_layout(chosen, model.family),
                max_length=max_length,
                aggregation=aggregation,
            )
            score = evaluate_bank(model, prompt.vectors[None], encoded)[0]
            bare = evaluate_bank(model, torch.zeros(1, 0, model.width), encoded)[0]
            scores.append(score)
            records.append({"prompt": prompt.name, **score.as_dict(), "no_prompt": bare.value})
            rows.append(
                [prompt.name, target.task.name, score.metric]
                + [number(v) for v in (score.chance, bare.value, score.value, score.cut)]
                + [str(score.rows)]
            )
    if output is not None:
        written.claim()
        write_json(output, records)
    if as_json:
        print_json(records)
    else:
        table(
            f"scores on {model.name}",
            ["prompt", "task", "metric", "chance", "no prompt", "score", "share cut", "rows"],
            rows,
            left=3,
        )
        if output is not None:
            say(f"written to {output}")
    return scores


def load_prompts(folders: list[Path]) -> list[Prompt]:
    """Every prompt in the given folders."""
    from prompttransfer.artifacts import find_prompts, load_prompt

    return [load_prompt(path) for folder in folders for path in find_prompts(folder)]


def backbone_of(
    prompts: Sequence[Prompt],
    name: str | None,
    precision: str,
    device: str,
    placement: Placement = SINGLE,
) -> Backbone:
    """The named backbone, or the one that all prompts were trained on."""
    from prompttransfer.backbones import load_backbone
    from tasks.errors import UserError

    names = list(dict.fromkeys(prompt.backbone for prompt in prompts))
    if name is None and len(names) > 1:
        raise UserError(
            f"the prompts are of several backbones ({', '.join(names)}): choose one with --backbone"
        )
    return load_backbone(name or names[0], precision=precision, device=device, placement=placement)
