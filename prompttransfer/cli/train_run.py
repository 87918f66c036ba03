"""`train` once its backbone is there: what it says beforehand, its jobs, and carrying out those that are left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from prompttransfer.adaptations.artifacts import save_adaptation
from prompttransfer.adaptations.starts import Retrieve, parse_start
from prompttransfer.cli.common import (
    answers_line,
    describe,
    only_the_first_speaks,
    print_json,
    say,
    seeds_line,
)
from prompttransfer.cli.data import rows_of_sources, where_given
from prompttransfer.cli.runs import finished, print_results, run_jobs
from prompttransfer.cli.sweep import (
    print_sweep,
    read_sweep,
    records_of,
    run_sweep_of,
    sweep_of,
    swept_before,
    write_sweep,
)
from prompttransfer.cli.train_checks import PROMPT, Asked, check_mixed_sources
from prompttransfer.cli.train_told import (
    predictions_of_runs,
    raise_failures,
    record_of,
    say_strange,
    shares_line,
)
from prompttransfer.evaluation.predictions import write_predictions
from prompttransfer.outputs import Files, settings_of
from prompttransfer.reports.calls import commit_of, note_call, precision_name, remember
from prompttransfer.training.recipes import method_and_recipe
from prompttransfer.training.train import Job, Trained, TrainingOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.backbones.base import Backbone
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.cli.sweep import Sweep
    from prompttransfer.training.distillation import Teacher
    from prompttransfer.transfers.zero_shot import Target

Tables = dict[str, list[dict[str, Any]]]
"""Task -> the settings that a sweep tried, a row each."""


class Run:
    """One command on its backbone."""

    def __init__(self, asked: Asked, model: Backbone, encoding: Encoding) -> None:
        encoding.place(model.family)
        self.asked, self.model, self.encoding = asked, model, encoding
        self.given = asked.given
        self.output, self.quiet = self.given["output"], self.given["as_json"]
        self.first = only_the_first_speaks(model)
        model.checkpoints = self.given["checkpoint_activations"]
        self.method, self.recipe = method_and_recipe(
            model.family, model.state_width, asked.method, **asked.overrides
        )

    def say(self, line: str) -> None:
        """Print a line, unless JSON was asked for."""
        say(line, quiet=self.quiet)

    def announce(self, targets: Sequence[Target]) -> None:
        """Say what will be trained, by which recipe, on which rows and label words."""
        asked, model, given = self.asked, self.model, self.given
        if not given["dry_run"]:  # an outline of a backbone has neither precision nor place
            self.say(describe(model))
        if given["mixture"]:
            check_mixed_sources(self.method, model, asked.tasks)
        if self.method.name != PROMPT:
            self.say(f"method: {self.method}")
        for remark in self.method.remarks(model, [item.name for item in asked.tasks]):
            self.say(remark)
        but = f" (but for {', '.join(asked.grid)})" if asked.grid else ""
        self.say(f"recipe{but}: {self.recipe.told(self.method)}")
        say_strange(model, targets, quiet=self.quiet)
        self.say(seeds_line(asked.seeds, one_split=given["one_split"], shots=given["shots"]))
        for target in targets:
            answers = model.answers(target.task, self.encoding)
            self.say(answers_line(target.task, answers.mapping if answers else {}))

    def jobs(self, targets: Sequence[Target], teachers: Mapping[tuple[str, int], Teacher]) -> list[Job]:
        """A job a task and seed, or one a seed for all tasks together; starts that are retrieved are looked for."""
        asked, given = self.asked, self.given
        start = parse_start(given["init"]) if given["init"] else None
        if given["mixture"]:
            jobs = []
            for seed in asked.seeds:
                (task, splits), *beside = [(target.task, target.rows(seed)) for target in targets]
                jobs.append(
                    Job(task, splits, seed, start, asked.names[asked.together, seed], beside=tuple(beside))
                )
            self.say(shares_line(jobs[0]))
            return jobs
        jobs = [
            Job(
                target.task,
                target.rows(seed),
                seed,
                start,
                asked.names[target.task.name, seed],
                teacher=teachers.get((target.task.name, seed)),
            )
            for target in targets
            for seed in asked.seeds
        ]
        if isinstance(start, Retrieve) and not given["dry_run"]:
            from prompttransfer.transfers.retrieval import with_retrieved

            return with_retrieved(
                self.model, jobs, self.recipe, self.encoding, self.method,
                rows_of=rows_of_sources(given["data"]), tell=self.say,
            )  # fmt: skip
        return jobs

    def carry_out(self, jobs: list[Job], verb: Callable[..., Any]) -> list[Adaptation]:
        """Train what is not there, keep it with the call of `verb` that made it, and print the tables."""
        predictions = self.given["predictions"]
        beside = Files(
            (predictions,) if predictions else (), settings_of("train", where_given(self.given, "head"))
        )
        overwrite = self.given["overwrite"]
        beside.check(overwrite=overwrite)
        sweep = self._sweep()
        if sweep is None:
            there = finished(
                self.model, jobs, self.recipe, self.encoding, self.method, self.output, overwrite=overwrite
            )
        else:
            there = {} if overwrite else swept_before(self.model, jobs, sweep, self.encoding, self.output)
        tried: Tables = {}
        if len(there) == len(jobs):
            self.say("trained before with the same settings: nothing is left to do")
            results = [Trained(there[job.name], "steps", self.recipe.steps) for job in jobs]
            if sweep is not None and self.output is not None:
                tried = read_sweep(self.output, list(dict.fromkeys(job.task_name for job in jobs)))
        else:
            results, tried, states = self._train(jobs, sweep)
            self._keep(results, there, verb, sweep)
            for state in states if self.first and self.output is not None else ():
                state.clear()
        if predictions is not None:
            lines = predictions_of_runs(self.model, jobs, results, self.encoding)
            if self.first:
                beside.claim()
                write_predictions(predictions, lines)
        if self.quiet:
            print_json([record_of(run.adaptation, self.output, tried) for run in results])
        else:
            print_sweep(tried, self.output)
            print_results(results, jobs=jobs, output=self.output)
        raise_failures(results)
        return [run.adaptation for run in results]

    def _sweep(self) -> Sweep | None:
        """The sweep that was asked for, which is said."""
        asked = self.asked
        if not asked.grid:
            return None
        sweep = sweep_of(self.model, asked.method, asked.grid, asked.overrides, halving=self.given["halving"])
        for line in sweep.told():
            self.say(line)
        return sweep

    def _train(
        self, jobs: list[Job], sweep: Sweep | None
    ) -> tuple[list[Trained], Tables, list[TrainingOptions]]:
        """What came of the jobs, the table of a sweep (which is written, too), and what holds the state of each bank."""
        how = dict(output=self.output, logger=self.given["logger"], quiet=self.quiet)
        if sweep is None:
            results, options = run_jobs(self.model, jobs, self.recipe, self.encoding, self.method, **how)
            return results, {}, [options]
        swept, kept = run_sweep_of(self.model, jobs, sweep, self.encoding, **how)
        if self.first and self.output is not None:
            write_sweep(swept, self.output)  # before the adaptations, which tell that all is done
        return list(swept.trained), records_of(swept), kept

    def _keep(
        self,
        results: Sequence[Trained],
        there: Mapping[str, Adaptation],
        verb: Callable[..., Any],
        sweep: Sweep | None,
    ) -> None:
        """Write what is not there yet, and the command beside it."""
        if not self.first or self.output is None:
            return
        for run in results:
            if run.adaptation.name not in there:
                save_adaptation(run.adaptation, self.output / run.adaptation.name)
        call = remember(
            "train",
            verb,
            dict(self.given),
            **({} if sweep is not None else self.recipe.as_dict()),
            backbone=self.model.name,
            revision=commit_of(self.model.revision),
            precision=precision_name(self.model.precision),
        )
        note_call([self.output / run.adaptation.name for run in results], call)
