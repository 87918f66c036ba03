"""`transfer` once its backbone is there: the matrix, what is tuned from the sources, and what is kept and shown of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from prompttransfer.adaptations.running import other_words
from prompttransfer.cli.common import (
    answers_line,
    only_the_first_speaks,
    print_json,
    say,
    seeds_line,
    warn,
)
from prompttransfer.cli.transfer_tables import kind_of_start, print_transfer, seen_lines
from prompttransfer.cli.transfer_tune import predictions_of_tuned, run_tuning
from prompttransfer.evaluation.predictions import predicted_lines, write_predictions
from prompttransfer.files import atomic_folder, write_json
from prompttransfer.outputs import SETTINGS, Files, keep_others, plain
from prompttransfer.reports.calls import commit_of, note_call, precision_name, recipe_options, remember
from prompttransfer.transfers.files import FILES, MARKER, record_of, write_transfer
from prompttransfer.transfers.in_context import Shown, with_in_context
from prompttransfer.transfers.zero_shot import zero_shot

if TYPE_CHECKING:
    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.backbones.base import Backbone
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.evaluation.calibration import Calibration
    from prompttransfer.evaluation.evaluate import Score
    from prompttransfer.training.train import Trained, TrainingOptions
    from prompttransfer.transfers.distilled import Distilling
    from prompttransfer.transfers.distilled_pairs import DistilledPair
    from prompttransfer.transfers.matrix import TransferMatrix
    from prompttransfer.transfers.tuned_pairs import TunedPair
    from prompttransfer.transfers.zero_shot import Target

RECIPE = ("steps", "batch", "lr", "optimizer", "schedule", "warm_up", "evaluate_every", "patience")
"""Options that are settings of the recipe of --tune."""


@dataclass
class Found:
    """What came of a transfer."""

    matrix: TransferMatrix
    pairs: list[TunedPair] = field(default_factory=list)
    distilled: list[DistilledPair] = field(default_factory=list)
    trained: list[Trained] = field(default_factory=list)
    state: TrainingOptions | None = None
    """Of --tune: where its runs can be taken up again, until they are kept."""
    said: list[dict[str, Any]] = field(default_factory=list)
    """What was said to each test row, where it was asked for."""
    notes: list[str] = field(default_factory=list)


class TransferRun:
    """One command on its backbone."""

    def __init__(
        self,
        given: Mapping[str, Any],
        prompts: Sequence[Adaptation],
        targets: Sequence[Target],
        seeds: Sequence[int],
        model: Backbone,
        encoding: Encoding,
    ) -> None:
        self.given, self.prompts, self.targets, self.seeds = given, prompts, targets, seeds
        self.model, self.encoding = model, encoding
        self.output, self.quiet = given["output"], given["as_json"]
        self.first = only_the_first_speaks(model)

    def announce(self) -> None:
        """Say which label words the targets have, and which of the sources learned with others."""
        tasks = [target.task for target in self.targets]
        for task in tasks:
            if not task.generates:
                answers = self.model.answers(task, self.encoding)
                say(answers_line(task, answers.mapping if answers else {}), quiet=self.quiet)
        for line in other_words(self.model, self.prompts, tasks, self.encoding):
            warn(line)

    def carry_out(self, calibration: Calibration | None, distilling: Distilling | None) -> Found:
        """The matrix, with labelled rows in context and runs from the sources where they were asked for."""
        found = self._moved(calibration)
        if self.given["tune"] and self.output is not None:
            self._tune(found, distilling)
        if self.given["predictions"] is not None:
            found.said += predictions_of_tuned(self.model, found.trained, self.targets)
        return found

    def _moved(self, calibration: Calibration | None) -> Found:
        """Every source on every target, with nothing trained."""
        given, said = self.given, list[dict[str, Any]]()

        def keep(source: Adaptation, target: Target, score: Score) -> None:
            assert score.answered is not None
            said.extend(predicted_lines(source.name, target.task, target.splits.test, score.answered))

        matrix = zero_shot(
            self.model,
            self.prompts,
            self.targets,
            other_layout=given["other_layout"],
            encoding=self.encoding,
            calibration=calibration,
            draws=given["random_draws"],
            advance=lambda name: say(f"zero-shot: {name}", quiet=self.quiet),
            keep=keep if given["predictions"] is not None else None,
        )
        if given["in_context"] is not None:
            matrix = with_in_context(
                self.model,
                matrix,
                self.targets,
                Shown(given["in_context"], given["draws"] or 5),
                replace(self.encoding, layout=self.prompts[0].layout),
                calibration=calibration,
                advance=lambda name: say(f"in-context: {name}", quiet=self.quiet),
            )
        return Found(matrix, said=said)

    def _tune(self, found: Found, distilling: Distilling | None) -> None:
        """Runs from the sources on every target that they can be moved to."""
        given = self.given
        say(seeds_line(self.seeds, one_split=given["one_split"], shots=given["shots"]), quiet=self.quiet)
        result, taught, found.state = run_tuning(
            self.model,
            self.prompts,
            [target for target in self.targets if target.task.name not in found.matrix.impossible],
            self.seeds,
            {name: given[name] for name in RECIPE},
            encoding=self.encoding,
            distilling=distilling,
            output=self.output,
            quiet=self.quiet,
        )
        found.pairs, found.trained = list(result.pairs), list(result.trained)
        if taught is not None:
            found.distilled = list(taught.pairs)
            found.trained += taught.trained
        if found.pairs:
            found.notes = seen_lines(self.prompts, self.targets, self.seeds)

    def record(self, found: Found) -> dict[str, Any]:
        """All of it for machines."""
        tasks = [target.task for target in self.targets]
        return record_of(
            self.model, found.matrix, tasks, self.targets, found.pairs, found.distilled, found.notes
        )

    def keep(
        self, found: Found, verb: Callable[..., Any], settings: dict[str, Any], predictions: Files
    ) -> None:
        """Write what was said to test rows, then the folder, with the call of `verb` that made it."""
        if self.given["predictions"] is not None:
            predictions.claim()
            write_predictions(self.given["predictions"], found.said)
        if self.output is None:
            return
        with atomic_folder(self.output, marker=MARKER) as folder:
            write_transfer(
                folder, found.matrix, self.record(found), found.pairs, found.trained, found.distilled
            )
            write_json(folder / SETTINGS, plain(settings))
            recipe = recipe_options(found.trained[0].adaptation.settings) if found.trained else {}
            call = remember(
                "transfer",
                verb,
                dict(self.given),
                **recipe,
                revision=commit_of(self.model.revision),
                precision=precision_name(self.model.precision),
            )
            note_call([folder / MARKER], call)
            keep_others(self.output, folder, FILES)
        if found.state is not None:
            found.state.clear()

    def show(self, found: Found) -> None:
        """Print the tables, or one JSON document."""
        if self.quiet:
            print_json(self.record(found))
            return
        print_transfer(found.matrix, found.pairs, found.distilled, found.notes, kind_of_start(self.prompts))
        if self.output is not None:
            names = ", ".join(sorted(path.name for path in self.output.iterdir()))
            say(f"written to {self.output}: {names}")
