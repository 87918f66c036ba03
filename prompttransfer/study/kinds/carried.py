"""Kind `carried`: a prompt of one backbone through a projector, an ordinary prompt of the other.

Its files: `prompt/`, as of the kind `prompt`.
"""

from __future__ import annotations

from collections.abc import Mapping

from prompttransfer.study.cell import Context, Json, Unit
from prompttransfer.study.kinds.loading import PROMPT, prompt_of
from prompttransfer.study.kinds.projector import PROJECTOR
from prompttransfer.study.kinds.versions import VERSIONS


class Carried:
    """One application of a projector a cell."""

    version = VERSIONS["carried"]

    def run(self, unit: Unit, context: Context) -> Mapping[str, Mapping[str, Json]]:
        """Apply the projector; the name tells which one."""
        from projectors.artifacts import load_projector
        from projectors.projector import project
        from prompttransfer.adaptations.artifacts import save_adaptation

        for cell in unit.cells:
            projector = load_projector(context.input(cell, "projector") / PROJECTOR)
            prompt = prompt_of(cell, "prompt", context)
            method = projector.method.replace("+", "-")
            name = f"{prompt.name}-{method}-{cell.inputs['projector'][:6]}"
            save_adaptation(project(projector, prompt, name=name), context.output(cell) / PROMPT)
        return {cell.id: {} for cell in unit.cells}
