"""Progress of a training run: a live bar with loss, score and time left, or plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from prompttransfer.training.state import MemberState


class Watched(Protocol):
    """What is told of a bank in training (loop.py)."""

    last_losses: list[float]
    states: list[MemberState]
    steps_done: int

    @property
    def active(self) -> list[int]:
        """Indices of the prompts that still train."""


class TrainingProgress:
    """Watches a bank of prompts; a context manager around the run."""

    def __init__(self, console: Console, names: Sequence[str], steps: int):
        self.console = console
        self.names = names
        self.steps = steps
        self.live = console.is_terminal
        self.started = time.monotonic()
        self.first_step: int | None = None
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not self.live,
        )
        self._task = self._bar.add_task("train", total=steps, state="")
        self._scores = ""

    def __enter__(self) -> TrainingProgress:
        self.first_step = None  # of this stretch: a sweep takes up its banks by turns
        self._bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.__exit__(kind, error, trace)

    def resumed(self, step: int) -> None:
        """A killed run goes on."""
        self.console.print(f"going on from step {step} of the run that was interrupted", markup=False)

    def step(self, bank: Watched) -> None:
        """One step was taken."""
        if self.live and bank.last_losses:
            active = bank.active or range(len(bank.states))
            loss = sum(bank.last_losses[index] for index in active) / len(active)
            self._bar.update(self._task, completed=bank.steps_done, state=f"loss {loss:.3f}{self._scores}")

    def evaluated(self, bank: Watched) -> None:
        """Every active prompt was evaluated."""
        left = [index for index, state in enumerate(bank.states) if state.ended != "dropped"]
        points = [bank.states[index].curve[-1] for index in left]
        mean = sum(point.score for point in points) / len(points)
        self._scores = f"  validation {mean:.3f}"
        if self.first_step is None:
            self.first_step, self.started = bank.steps_done, time.monotonic()
        if self.live:
            self._bar.update(self._task, completed=bank.steps_done)
            return
        losses = [point.loss for point in points if point.loss is not None]
        loss = f", loss {sum(losses) / len(losses):.3f}" if losses else ""
        shown = self._shown([self.names[index] for index in left], [point.score for point in points])
        self.console.print(
            f"step {bank.steps_done}/{self.steps}{loss}, validation: {shown}{self._left(bank.steps_done)}",
            markup=False,
        )

    def _shown(self, names: Sequence[str], scores: Sequence[float]) -> str:
        if len(scores) <= 4:
            return " ".join(f"{name} {score:.3f}" for name, score in zip(names, scores, strict=True))
        lowest = min(range(len(scores)), key=lambda index: scores[index])
        mean = sum(scores) / len(scores)
        return f"mean of {len(scores)} {mean:.3f}, lowest {names[lowest]} {scores[lowest]:.3f}"

    def _left(self, done: int) -> str:
        taken = done - (self.first_step or 0)
        if taken <= 0:
            return ""
        seconds = (time.monotonic() - self.started) / taken * (self.steps - done)
        return f" ({seconds:.0f} s left)"
