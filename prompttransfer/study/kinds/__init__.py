"""Kinds: how each sort of cell is made, one module a kind, by the functions that the commands use too.

The modules import what is heavy only when they run. A kind finds all that it needs in the cell's settings, its inputs
and what this machine knows (`context.local`).
"""

from __future__ import annotations

from prompttransfer.study.cell import Kind
from prompttransfer.study.kinds.carried import Carried
from prompttransfer.study.kinds.figure import Figure
from prompttransfer.study.kinds.indicator import IndicatorCells
from prompttransfer.study.kinds.projector import FittedProjector
from prompttransfer.study.kinds.prompt import TrainedPrompt
from prompttransfer.study.kinds.score import Scored
from prompttransfer.study.kinds.shared import Shared
from prompttransfer.study.kinds.states import States
from prompttransfer.study.kinds.tuned import Tuned

KINDS: dict[str, Kind] = {
    "prompt": TrainedPrompt(),
    "score": Scored(),
    "tuned": Tuned(),
    "projector": FittedProjector(),
    "carried": Carried(),
    "states": States(),
    "indicator": IndicatorCells(),
    "figure": Figure(),
    "shared": Shared(),
}
"""Name -> how its cells are made."""

WHERE = "prompttransfer.study.kinds:KINDS"
"""How worker processes find them."""
