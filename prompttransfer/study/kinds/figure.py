"""Kind `figure`: the heatmap of zero-shot transfer, mean over seeds, relative to each target's own prompt.

Its files: `heatmap.png`, `heatmap.svg`, and the numbers that are drawn, `heatmap.csv`.
"""

from __future__ import annotations

from collections.abc import Mapping

from prompttransfer.files import write_text
from prompttransfer.study.cell import Context, Json, Unit
from prompttransfer.study.contents import read_score
from prompttransfer.study.kinds.loading import setting
from prompttransfer.study.kinds.versions import VERSIONS


class Figure:
    """One figure a cell."""

    version = VERSIONS["figure"]

    def run(self, unit: Unit, context: Context) -> Mapping[str, Mapping[str, Json]]:
        """Draw."""
        from analysis.figures import figure_bytes, heatmap
        from prompttransfer.study.results.matrices import mean_table, transfer_matrix

        for cell in unit.cells:
            scores = [read_score(context.input(cell, role)) for role in cell.inputs]
            matrix = transfer_matrix(scores)
            relative = matrix.has_own
            table = mean_table(matrix.relative() if relative else matrix)
            types = setting(cell.settings, "types")
            title = (
                f"Zero-shot transfer on {setting(cell.settings, 'backbone')}"
                + ", relative to own prompt" * relative
            )
            figure = heatmap(table, types, title=title)
            for kind in ("png", "svg"):
                (context.output(cell) / f"heatmap.{kind}").write_bytes(figure_bytes(figure, kind))
            write_text(
                context.output(cell) / "heatmap.csv", table.to_csv(float_format="%.10g", lineterminator="\n")
            )
        return {cell.id: {} for cell in unit.cells}
