"""Kind `indicator`: how alike the prompts of one backbone and seed are, by their vectors or by their neurons.

Its files: `similarity_<measure>.csv` over the prompts' names, as `compare` and `neurons overlap` write, one more for
every window of layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from prompttransfer.files import write_text
from prompttransfer.study.cell import Cell, Context, Json, Unit
from prompttransfer.study.kinds.loading import prompt_of, setting
from prompttransfer.study.kinds.states import STATES
from prompttransfer.study.kinds.versions import VERSIONS

if TYPE_CHECKING:
    import pandas as pd


class IndicatorCells:
    """One measure a cell."""

    version = VERSIONS["indicator"]

    def run(self, unit: Unit, context: Context) -> Mapping[str, Mapping[str, Json]]:
        """Compare the prompts, or the states, that are the inputs."""
        for cell in unit.cells:
            tables = (
                similarity_of(cell, context) if "similarity" in cell.settings else overlap_of(cell, context)
            )
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


def overlap_of(cell: Cell, context: Context) -> dict[str, pd.DataFrame]:
    """The tables of an overlap of neurons: over all layers, and by windows where they are asked for."""
    from analysis.neurons import overlaps, windows
    from prompttransfer.neurons.states import load_all

    measure, window = setting(cell.settings, "overlap"), setting(cell.settings, "window")
    states = load_all([context.input(cell, role) / STATES for role in cell.inputs]).states
    spans = {"all": slice(None), **(windows(states.layers, window) if window else {})}
    found = overlaps(states, spans, measure)
    return {measure if span == "all" else f"{measure}_layers-{span}": table for span, table in found.items()}
