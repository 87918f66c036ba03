"""What `project fit` and `project show` print of a projector."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from projectors.projector import Projector


def show_fit(projector: Projector, output: Path, *, as_json: bool) -> None:
    """What came of a fit, whether it was made now or before: the table, the input sensitivity and the verdict."""
    from prompttransfer.cli.common import print_json, say

    if as_json:
        print_json(
            {
                "method": projector.method,
                "tasks": list(projector.tasks),
                "collapsed": projector.collapsed,
                "verdict": projector.verdict,
                "sensitivity": dict(projector.sensitivity),
                "scores": dict(projector.scores),
                "folder": str(output),
            }
        )
        return
    show_scores(projector)
    for line in measured_lines(projector.sensitivity):
        say(line)
    say(f"verdict: {projector.verdict}")
    say(f"it lies in {output}; carry prompts with `prompttransfer project apply {output} PROMPT...`")


def measured_lines(measured: Mapping[str, float]) -> list[str]:
    """How far apart outputs lie, and what the input is worth, as far as it was measured."""
    lines = []
    if "inputs" in measured:
        lines.append(
            f"input sensitivity: outputs are {measured['outputs']:.3g} apart where inputs are {measured['inputs']:.3g} "
            f"(ratio {measured['ratio']:.3g}), pairwise cosine of outputs {measured['cosine']:.6f}; their directions are "
            f"{measured['relative']:.3g} times as far apart as those of the target's own prompts"
        )
    if "projected_minus_random" in measured:
        ends = [measured.get(f"projected_minus_random_{end}") for end in ("low", "high")]
        span = "" if None in ends else f" (95 % {ends[0]:+.3f} to {ends[1]:+.3f})"
        kept = measured.get("kept_by_random")
        share = "" if kept is None else f"; a random source keeps {kept:.0%} of the gain"
        lines.append(f"projected minus random source: {measured['projected_minus_random']:+.3f}{span}{share}")
    return lines


def show_scores(projector: Projector) -> None:
    """One table a group of tasks: every condition with mean, spread and share of the own prompt."""
    from projectors.report import CONDITIONS
    from prompttransfer.cli.common import number, table

    for group, conditions in projector.scores.items():
        own = conditions.get("own prompt", {}).get("mean")
        count = max(entry["tasks"] for entry in conditions.values())
        rows = [
            [
                name,
                number(entry["mean"]),
                number(entry["spread"]) if entry["seeds"] > 1 else "-",
                number(entry["mean"] / own) if own else "-",
                CONDITIONS.get(name, ""),
            ]
            for name, entry in conditions.items()
        ]
        title = f"\ntasks {group} ({count}): test score, mean over tasks and seeds; spread over seeds, of random prompts over draws"
        table(title, ["condition", "mean", "spread", "of own", "what it is"], rows)
