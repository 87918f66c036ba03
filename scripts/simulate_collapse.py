"""How often projectors are called collapsed, before and after, by simulation.

    python scripts/simulate_collapse.py [--repeats 300]

Projectors of several kinds are made up with the scores that they would have: four fitting tasks, 200 test rows, no prompt
at .50 and the own prompt at .90. `before` is this project's former rule: outputs that differ less than .3 of what the
inputs do (each side over its mean norm), or a random source that keeps more than .9 of the gain. `now` is
projectors.controls.verdict. Prints Markdown (docs/transfer-statistics.md).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from projectors.controls import Gains, sensitivity, verdict

TASKS, LENGTH, WIDTH, ROWS = 4, 20, 64, 200
FLOOR, TOP = 0.5, 0.9


class Given(nn.Module):
    """A projector that gives these outputs."""

    def __init__(self, outputs: Tensor):
        super().__init__()
        self.outputs = outputs

    def forward(self, sources: Tensor) -> Tensor:
        """The outputs, whatever the sources are."""
        return self.outputs


def noise(generator: torch.Generator, count: int = TASKS) -> Tensor:
    """Normal prompts [count, length, width]."""
    return torch.randn(count, LENGTH, WIDTH, generator=generator)


@dataclass(frozen=True)
class Kind:
    """A kind of projector: its outputs, given the target's own prompts, and how much random sources keep of its gain."""

    collapsed: bool
    outputs: Callable[[Tensor, torch.Generator], Tensor]
    kept: float
    gain: float = 1.0
    """Share of what the own prompt gains."""
    shared: float = 1.0
    """How far the target's own prompts lie from their shared start, in its size."""


def towards(share: float) -> Callable[[Tensor, torch.Generator], Tensor]:
    """The own prompts drawn towards their mean, a share of the way left, with noise as a fit has it."""
    return lambda own, g: (m := own.mean(0)) + share * (own - m) + 0.2 * (own - m).std() * noise(g)


KINDS = {
    "meets the own prompts": Kind(False, lambda own, g: own, kept=0.1),
    "meets own prompts that share a start (cosine .998)": Kind(False, lambda own, g: own, kept=0.1, shared=0.045),
    "half way to the mean": Kind(False, towards(0.5), kept=0.3),
    "outputs of cosine .998, scores that follow the input": Kind(
        False, lambda own, g: own.mean(0) + 0.045 * own.mean(0).std() * noise(g), kept=0.1
    ),
    "a constant": Kind(True, lambda own, g: own.mean(0).expand_as(own).clone(), kept=1.0),
    "a constant, longer or shorter": Kind(
        True, lambda own, g: own.mean(0) * (2.0 ** torch.arange(len(own)))[:, None, None], kept=1.0
    ),
    "one output for all and far-apart noise; random keeps 87 %": Kind(True, towards(1.0), kept=0.87),
    "outputs of cosine .998; random keeps 80 %": Kind(
        True, lambda own, g: own.mean(0) + 0.045 * own.mean(0).std() * noise(g), kept=0.8
    ),
    "gains nothing, outputs of cosine .998": Kind(
        True, lambda own, g: own.mean(0) + 0.045 * own.mean(0).std() * noise(g), kept=1.0, gain=0.0
    ),
}  # fmt: skip
"""What it is -> how it is made."""


def former_verdict(outputs: Tensor, sources: Tensor, gains: Gains) -> bool:
    """The rule before: distances over mean norms, inputs against outputs; then the share that random sources keep."""
    spread = [
        float(torch.pdist(p.flatten(1).double()).mean() / p.flatten(1).double().norm(dim=1).mean())
        for p in (outputs, sources)
    ]
    if spread[0] / spread[1] < 0.3:
        return True
    projected, random, floor = (float(np.mean(v)) for v in (gains.projected, gains.random, gains.floor))
    gain = projected - floor
    return (1.0 if gain <= 0 else min(max((random - floor) / gain, 0.0), 1.0)) > 0.9


def simulate(kind: Kind, spread: float, repeats: int) -> tuple[float, float]:
    """Share that is called collapsed, before and now; sources lie `spread` from a start that they share."""
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    called = np.zeros(2)
    for _ in range(repeats):
        own = noise(generator, 1) + kind.shared * noise(generator)
        sources = noise(generator, 1) + spread * noise(generator)
        outputs = kind.outputs(own, generator)
        top = FLOOR + kind.gain * (rng.uniform(TOP - 0.1, TOP + 0.05, TASKS) - FLOOR)
        kept = np.clip(kind.kept + 0.05 * rng.normal(size=TASKS), 0, 1)
        scores = [
            tuple(rng.binomial(rows, truth) / rows)
            for truth, rows in (
                (top, ROWS),
                (FLOOR + kept * (top - FLOOR), 3 * ROWS),
                (np.full(TASKS, FLOOR), ROWS),
            )
        ]
        gains = Gains(*scores)
        called[0] += former_verdict(outputs, sources, gains)
        called[1] += verdict(sensitivity(Given(outputs), sources, own), gains, TASKS)[0]
    before, now = called / repeats
    return float(before), float(now)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=300)
    repeats = parser.parse_args().repeats
    print("| projector | is | sources | called collapsed, before | now |\n|---|---|---|---|---|")
    for name, kind in KINDS.items():
        for said, spread in (("far apart", 3.0), ("share a start", 0.1)):
            before, now = simulate(kind, spread, repeats)
            truth = "collapsed" if kind.collapsed else "not"
            print(f"| {name} | {truth} | {said} | {before:.2f} | {now:.2f} |")


if __name__ == "__main__":
    main()
