"""Kind `indicator`: how alike what was trained with one seed on one backbone is, by tensors, rows of the tasks, or neurons.

Its files: `similarity_<measure>.csv` over the prompts' names, as `compare` and `neurons overlap` write, one more for
every window of layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from prompttransfer.files import write_text
from prompttransfer.study.cell import Cell, Context, Json, Unit
from prompttransfer.study.kinds.loading import (
    check_rows,
    data_of,
    encoding_of,
    load_backbone_of,
    prompt_of,
    setting,
    task_of,
)
from prompttransfer.study.kinds.states import STATES
from prompttransfer.study.kinds.versions import VERSIONS
from prompttransfer.study.plan.lookup import load_rows

if TYPE_CHECKING:
    import pandas as pd

    from prompttransfer.backbones.base import Backbone
    from prompttransfer.transfers.compared import Compared
    from prompttransfer.transfers.zero_shot import Target


class IndicatorCells:
    """One measure a cell."""

    version = VERSIONS["indicator"]

    def run(self, unit: Unit, context: Context) -> Mapping[str, Mapping[str, Json]]:
        """Compare the prompts, or the states, that are the inputs; cells of the same ones share their passes over rows."""
        from analysis.similarity import INDICATORS as VECTORS

        groups: dict[tuple[str, ...], Compared] = {}
        for cell in unit.cells:
            if "overlap" in cell.settings:
                tables = overlap_of(cell, context)
            elif cell.settings.get("similarity") in VECTORS:
                tables = similarity_of(cell, context)
            else:
                tables = table_of(cell, context, groups)
            for name, table in tables.items():
                text = table.to_csv(float_format="%.10g", lineterminator="\n")
                write_text(context.output(cell) / f"similarity_{name}.csv", text)
        return {cell.id: {} for cell in unit.cells}


def similarity_of(cell: Cell, context: Context) -> dict[str, pd.DataFrame]:
    """The table of a measure on vectors."""
    import torch

    from analysis.similarity import similarity

    measure = setting(cell.settings, "similarity")
    prompts = [prompt_of(cell, role, context) for role in cell.inputs]
    starts = [prompt.first_vectors for prompt in prompts if prompt.first_vectors is not None]
    initial = torch.stack(starts) if len(starts) == len(prompts) else None
    vectors = torch.stack([prompt.vectors for prompt in prompts])
    return {measure: similarity(measure, vectors, [prompt.name for prompt in prompts], initial)}


def table_of(
    cell: Cell, context: Context, groups: dict[tuple[str, ...], Compared]
) -> dict[str, pd.DataFrame]:
    """The table of any other measure; `groups` are those that were made for cells of the same inputs."""
    from prompttransfer.transfers.indicators import indicator_table

    measure = str(cell.settings.get("similarity") or cell.settings["estimate"])
    key = tuple(cell.inputs.values())
    if key not in groups:
        groups[key] = compared(cell, context)
    return {measure: indicator_table(measure, groups[key])}


def compared(cell: Cell, context: Context) -> Compared:
    """The inputs of a cell, with the backbone and the rows that it names."""
    from prompttransfer.transfers.compared import Compared

    adaptations = tuple(prompt_of(cell, role, context) for role in cell.inputs)
    if "backbone" not in cell.settings:
        return Compared(adaptations)

    def backbone() -> Backbone:
        return load_backbone_of(setting(cell.settings, "backbone"), context)

    if "targets" not in cell.settings:
        return Compared(adaptations, backbone=backbone)
    return Compared(
        adaptations,
        backbone=backbone,
        rows=lambda names: [few_rows(cell, name, context) for name in names],
        encoding=encoding_of(cell),
    )


def few_rows(cell: Cell, name: str, context: Context) -> Target:
    """A task of a cell with as many of its training rows as that asks for; UserError where they are not those planned with."""
    from prompttransfer.transfers.zero_shot import Target
    from tasks.loading import sample

    given = setting(cell.settings, "targets", name)
    task = task_of(name, given["words"], context)
    splits, learned, _ = load_rows(task, data_of(context), given["limit_train"], 1)
    check_rows(task, learned, given["learned"])
    return Target(task, replace(splits, train=sample(splits.train, 0, setting(cell.settings, "limit"))))


def overlap_of(cell: Cell, context: Context) -> dict[str, pd.DataFrame]:
    """The tables of an overlap of neurons: over all layers, and by windows where they are asked for."""
    from analysis.neurons import overlaps, windows
    from prompttransfer.neurons.states import load_all

    measure, window = setting(cell.settings, "overlap"), setting(cell.settings, "window")
    states = load_all([context.input(cell, role) / STATES for role in cell.inputs]).states
    spans = {"all": slice(None), **(windows(states.layers, window) if window else {})}
    found = overlaps(states, spans, measure)
    return {measure if span == "all" else f"{measure}_layers-{span}": table for span, table in found.items()}
