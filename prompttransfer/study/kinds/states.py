"""Kind `states`: which feed-forward neurons a prompt activates on its own.

Its files: `states.safetensors`, as `neurons capture` writes.
"""

from __future__ import annotations

from collections.abc import Mapping

from prompttransfer.study.cell import Context, Json, Unit
from prompttransfer.study.kinds.loading import load_backbone_of, prompt_of, setting
from prompttransfer.study.kinds.versions import VERSIONS

STATES = "states.safetensors"


class States:
    """One prompt a cell; a unit shares the backbone."""

    version = VERSIONS["states"]

    def run(self, unit: Unit, context: Context) -> Mapping[str, Mapping[str, Json]]:
        """Capture each prompt's neurons."""
        from prompttransfer.neurons.capture import capture
        from prompttransfer.neurons.states import save_states

        backbone = load_backbone_of(setting(unit.cells[0].settings, "backbone"), context)
        for cell in unit.cells:
            prompt = prompt_of(cell, "prompt", context)
            captured = capture(backbone, [prompt], rule=setting(cell.settings, "rule"))
            save_states(captured, context.output(cell) / STATES)
        return {cell.id: {"rows": 1} for cell in unit.cells}
