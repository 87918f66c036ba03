"""Training: a bank of members of one method learned at once on one frozen backbone, by Lightning.

Each member of a bank (training/loop.py) has its own task, seed, rows, loss, optimizer state, learning curve, best
checkpoint and early stop; they share only the passes through the backbone. Between two evaluations lies one Lightning epoch, at whose end
the whole state is written (training/state.py), so that a killed run goes on bit for bit.
Prompt tuning after Lester et al. 2021; recipes in training/recipes.py.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from prompttransfer import signals
from prompttransfer.adaptations.adaptation import Adaptation, CurvePoint, Origin, digest_tensors
from prompttransfer.adaptations.heads import Classes, HeadedMember, check_head, head_beside, needs_head
from prompttransfer.adaptations.method import Member, Method
from prompttransfer.adaptations.methods.prompt import PromptTuning
from prompttransfer.adaptations.starts import Start
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import USUAL, Encoding, Layout
from prompttransfer.backbones.rows import Row
from prompttransfer.distributed.processes import cluster, quiet_lightning
from prompttransfer.evaluation.encoding import EncodedTask, encode_task
from prompttransfer.evaluation.evaluate import evaluate_bank, mean_scores
from prompttransfer.files import disk_errors
from prompttransfer.training.batches import BankData
from prompttransfer.training.distillation import Teacher, check_learns, check_teacher, teaching_of
from prompttransfer.training.loop import BankTraining
from prompttransfer.training.progress import TrainingProgress
from prompttransfer.training.recipes import Recipe, head_rate, usual_start
from prompttransfer.training.state import MemberState, kept_of
from tasks.errors import MachineError, UserError
from tasks.loading import Splits
from tasks.records import kept_of as record_of
from tasks.rows import digest_rows
from tasks.task import Task


@dataclass(frozen=True)
class Job:
    """One adaptation to train."""

    task: Task
    splits: Splits
    seed: int = 0
    start: Start | None = None
    """Where it begins; None takes what is usual for method and backbone (training/recipes.py)."""
    name: str = ""
    lr: float | None = None
    """A learning rate of its own; None takes the recipe's."""
    beside: tuple[tuple[Task, Splits], ...] = ()
    """Other tasks that it learns from as well, as often as they have rows (a mixture, as SPoT's); each row is read by its own
    task's template and label words, and the validation score is the mean over all tasks."""
    teacher: Teacher | None = None
    """What it learns from beside the right answers (training/distillation.py)."""

    @property
    def called(self) -> str:
        """Name of what it trains."""
        return self.name or self.task_name

    @property
    def parts(self) -> tuple[tuple[Task, Splits], ...]:
        """All tasks that it learns from, with their rows."""
        return ((self.task, self.splits), *self.beside)

    @property
    def task_name(self) -> str:
        """The task's name, of several `a+b`."""
        return "+".join(task.name for task, _ in self.parts)

    @property
    def metric(self) -> str:
        """What its score is called; of tasks of different metrics `mean`."""
        metrics = {task.metric for task, _ in self.parts}
        return metrics.pop() if len(metrics) == 1 else "mean"

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed {self.seed} of {self.called!r}: give one from 0 to 2^63 - 1")

    def start_on(self, backbone: Backbone, method: Method | None) -> Start:
        """Where it begins on a backbone, with soft prompts where no method is given."""
        return self.start or usual_start(backbone.family, backbone.state_width, method)

    def member(self, method: Method, backbone: Backbone, encoding: Encoding = USUAL) -> Member:
        """What it trains, as it is before the first step."""
        rows, start = self.splits.train, self.start_on(backbone, method)
        own = method.started(backbone, self.task, start, seed=self.seed, rows=rows, encoding=encoding)
        for task, _ in self.beside:
            method.check_cell(own.tensors(), task)
        return own

    def check_head(self, method: Method) -> None:
        """Raise UserError where its tasks need a head that the method cannot have, or not one for all of them."""
        for task, _ in self.parts:
            check_head(method, task)
            same = (task.head, Classes.of(task)) == (self.task.head, Classes.of(self.task))
            if not same and (task.head or self.task.head):
                raise UserError(
                    f"{self.called!r} would learn from {self.task.name} and {task.name} with one head, and their classes differ: "
                    f"leave the mixture out, or give both label words"
                )

    def headed(self, own: Member, method: Method, backbone: Backbone, lr: float) -> Member:
        """A member with the head beside it that its task asks for, at a rate of its own; itself where it asks for none."""
        if not needs_head(method, self.task):
            return own
        width = backbone.state_width
        return HeadedMember(own, Classes.of(self.task), width, head_rate(width) / lr)


@dataclass(frozen=True)
class Trained:
    """An adaptation as it was best on the validation split, and why its training ended."""

    adaptation: Adaptation
    ended: str
    """`steps`, `patience`, `not finite`, or `dropped` by a sweep."""
    steps: int
    """Steps taken."""

    @property
    def failure(self) -> str | None:
        """One line on what went wrong, None if nothing did."""
        if self.ended != "not finite":
            return None
        own = self.adaptation
        lr = own.origin.recipe["lr"]
        return (
            f"the loss of {own.method.called} {own.name!r} was not finite at step {self.steps}: the best of it before that "
            f"are kept; try a lower --lr (it was {lr:g}) or --precision fp32"
        )


@dataclass
class TrainingOptions:
    """How a run is watched and where it keeps its state; nothing here changes an adaptation."""

    state_folder: Path | None = None
    progress: TrainingProgress | None = None
    loggers: Sequence[Any] | Callable[[str], Sequence[Any]] = ()
    """Lightning's; or what makes those of the run whose key it is given, anew each time that the run goes on: the curve
    so far is logged again, so that a run has one log however often it was killed."""
    state_files: list[Path] = field(default_factory=list)
    """Filled by `train_adaptations`: what `clear` removes."""

    def clear(self) -> None:
        """Remove the state of finished runs; to be called when their adaptations are saved, not before."""
        for path in self.state_files:
            path.unlink(missing_ok=True)


def train_adaptations(
    backbone: Backbone,
    jobs: Sequence[Job],
    recipe: Recipe,
    encoding: Encoding = USUAL,
    *,
    method: Method | None = None,
    options: TrainingOptions | None = None,
) -> list[Trained]:
    """Train one adaptation a job, all of them in one bank, and return each as it was best on its validation split.

    `method` is soft prompts of the recipe's length where none is given.

    On several devices (a backbone loaded with a `Placement`, in a function given to `run_on`) this is called in each
    process; all return the same, and only the first writes state and progress.
    Deterministic: the same jobs, recipe and machine give the same adaptations, bit for bit, also when the run was killed
    and started again with the same `options.state_folder`; call `options.clear()` once they are saved. Raises UserError for a job that this backbone cannot do.
    """
    run = begin_run(backbone, jobs, recipe, encoding, method=method, options=options)
    run.advance(recipe.steps)
    return run.results()


class Run(Protocol):
    """A bank in training that can be halted at an evaluation and go on, so that others may be looked at in between."""

    def advance(self, until: int) -> None:
        """Train up to the first evaluation at or behind step `until`."""

    def curves(self) -> list[list[CurvePoint]]:
        """What was measured so far, a curve a job."""

    def failed_at(self, index: int) -> int | None:
        """The step at which a job ended because its loss was not finite."""

    def drop(self, indices: Iterable[int]) -> None:
        """End jobs early: they are taken up no more."""

    def results(self, indices: Sequence[int] | None = None) -> list[Trained]:
        """Each (or those named) as it was best on its validation split so far."""


def begin_run(
    backbone: Backbone,
    jobs: Sequence[Job],
    recipe: Recipe,
    encoding: Encoding = USUAL,
    *,
    method: Method | None = None,
    options: TrainingOptions | None = None,
) -> Run:
    """What `train_adaptations` trains, before its first step, or where a killed run was."""
    method = method or PromptTuning(recipe.length)
    place = encoding.place(backbone.family)
    method.check_complete()
    method.check_place(place, backbone.family)
    for job in jobs:
        job.check_head(method)
    if not method.trains:
        return Untrained(_untrained(backbone, jobs, replace(recipe, steps=0), encoding, method))
    return BankRun(backbone, jobs, recipe, encoding, method, options or TrainingOptions())


@dataclass
class Untrained:
    """What is made without training."""

    made: list[Trained]

    def advance(self, until: int) -> None:
        """There is nothing to do."""

    def curves(self) -> list[list[CurvePoint]]:
        return [list(one.adaptation.curve) for one in self.made]

    def failed_at(self, index: int) -> int | None:
        return None

    def drop(self, indices: Iterable[int]) -> None:
        """It has ended."""

    def results(self, indices: Sequence[int] | None = None) -> list[Trained]:
        return self.made if indices is None else [self.made[index] for index in indices]


class BankRun:
    """Jobs that train in one bank."""

    def __init__(
        self,
        backbone: Backbone,
        jobs: Sequence[Job],
        recipe: Recipe,
        encoding: Encoding,
        method: Method,
        options: TrainingOptions,
    ):
        self.backbone, self.jobs, self.recipe = backbone, jobs, recipe
        self.encoding, self.method, self.options = encoding, method, options
        place = encoding.place(backbone.family)
        encode = RowEncoder(backbone, method.reserved, encoding)
        train_rows = [encode.train(job) for job in jobs]
        validation = [encode.validations(job) for job in jobs]
        for own, held in zip(train_rows, validation, strict=True):
            check_tokens(backbone, method, [*own, *(row for part in held for row in part.rows)], place)
        for job, own in zip(jobs, train_rows, strict=True):
            if job.teacher is not None:
                check_learns(backbone, method)
                check_teacher(job.teacher, backbone, job.task, own, encoding)
        teaching = teaching_of(backbone, [job.teacher for job in jobs])
        members = [job.member(method, backbone, encoding) for job in jobs]
        rates = [own_recipe(job, recipe).lr for job in jobs]
        method.join(members, rates)
        members = [
            job.headed(member, method, backbone, rate)
            for job, member, rate in zip(jobs, members, rates, strict=True)
        ]
        self.members, self.initial = members, [member.tensors() for member in members]
        processes = backbone.processes
        progress = options.progress if processes.first else None
        self.key = ""
        if options.state_folder is not None or processes.count > 1 or callable(options.loggers):
            self.key = _fingerprint(backbone, jobs, recipe, (method, encoding.layout), train_rows, members)
        state_file = None
        if options.state_folder is not None:
            state_file = options.state_folder / f".training-{self.key}.safetensors"
        self.module = BankTraining(
            backbone,
            method,
            members,
            validation,
            recipe,
            state_file,
            progress,
            rates=rates,
            teaching=teaching,
        )
        resumed = self.module.resume()
        processes.agree(
            (self.key, self.module.steps_done),
            "has other rows, settings or another state than the first: give all machines the same data and an output folder "
            "that all of them see",
        )
        if resumed and progress is not None:
            progress.resumed(self.module.steps_done)
        if state_file is not None and processes.first:
            options.state_files.append(state_file)
        self.data = bank_data(backbone, train_rows, jobs, recipe, method, place)
        self.data.bank = self.module

    def advance(self, until: int) -> None:
        frozen = self.backbone.digest()
        with signals.keeping(self.module.kept):
            _fit(self.module, self.data, self.options, self.key, until)
        if self.backbone.digest() != frozen:
            raise MachineError("the frozen backbone changed during training: this is a bug, please report it")

    def curves(self) -> list[list[CurvePoint]]:
        return [list(state.curve) for state in self.module.states]

    def failed_at(self, index: int) -> int | None:
        state = self.module.states[index]
        return state.steps if state.ended == "not finite" else None

    def drop(self, indices: Iterable[int]) -> None:
        self.module.drop(indices)

    def results(self, indices: Sequence[int] | None = None) -> list[Trained]:
        origins = origins_of(self.backbone, self.jobs, self.recipe, self.encoding, self.method)
        return [
            _finish(
                self.jobs[index],
                self.module.states[index],
                Adaptation(
                    self.method,
                    self.initial[index],
                    origins[index],
                    self.encoding,
                    self.jobs[index].called,
                    self.initial[index],
                ),
                self.members[index],
            )
            for index in (range(len(self.jobs)) if indices is None else indices)
        ]


def check_tokens(backbone: Backbone, method: Method, rows: Sequence[Row], layout: Layout) -> None:
    """Raise UserError where a row has more tokens than the method takes, before anything runs."""
    if method.most_tokens is None:
        return
    needed = backbone.batch([max(rows, key=lambda row: row.size)], layout=layout).ids.shape[1]
    if needed > method.most_tokens:
        raise UserError(
            f"{method.name} takes {method.most_tokens} tokens, but a row has {needed}: give positions={needed} or more, or a "
            f"shorter --max-length"
        )


def bank_data(
    backbone: Backbone,
    rows: Sequence[Sequence[Row]],
    jobs: Sequence[Job],
    recipe: Recipe,
    method: Method,
    layout: Layout,
) -> BankData:
    """The training rows of jobs, cut into steps."""
    return BankData(
        backbone,
        rows,
        [job.seed for job in jobs],
        batch=recipe.batch,
        reserved=method.reserved,
        layout=layout,
        steps=recipe.steps,
        evaluate_every=recipe.evaluate_every,
        apart=method.apart,
    )


def _untrained(
    backbone: Backbone, jobs: Sequence[Job], recipe: Recipe, encoding: Encoding, method: Method
) -> list[Trained]:
    """What is made without training, one a job, with its score on the validation split."""
    found = []
    for job, origin in zip(jobs, origins_of(backbone, jobs, recipe, encoding), strict=True):
        member = job.member(method, backbone, encoding)
        bank = method.bank(backbone, [member])
        encoded = RowEncoder(backbone, bank.reserved, encoding).validations(job)
        (score,) = mean_scores([evaluate_bank(backbone, bank, part) for part in encoded])
        state = MemberState(best=kept_of(member), ended="steps")
        state.add(CurvePoint(0, None, score.value, score.loss), state.best)
        tensors = member.tensors()
        begun = Adaptation(method, tensors, origin, encoding, job.called, tensors)
        found.append(_finish(job, state, begun, member))
    return found


SPLITS = ("train", "validation", "test")


class RowEncoder:
    """Encodes each task's rows once, however many jobs share them."""

    def __init__(self, backbone: Backbone, reserved: int, encoding: Encoding):
        self.backbone, self.reserved, self.encoding = backbone, reserved, encoding
        self._done: dict[tuple[int, int, str], Any] = {}

    def train(self, job: Job) -> list[Row]:
        """The rows of all its tasks, one task's behind the other's."""
        parts = [self._rows(task, splits) for task, splits in job.parts]
        return parts[0] if len(parts) == 1 else [row for rows in parts for row in rows]

    def validation(self, job: Job) -> EncodedTask:
        return self._task(job.task, job.splits, "validation")

    def validations(self, job: Job) -> tuple[EncodedTask, ...]:
        return tuple(self._task(task, splits, "validation") for task, splits in job.parts)

    def tests(self, job: Job) -> tuple[EncodedTask, ...]:
        return tuple(self._task(task, splits, "test") for task, splits in job.parts)

    def _rows(self, task: Task, splits: Splits) -> list[Row]:
        made = self._once(
            task,
            splits,
            "train",
            lambda: self.backbone.encode(task, splits.train, self.encoding, reserved=self.reserved),
        )
        rows: list[Row] = made
        return rows

    def _task(self, task: Task, splits: Splits, split: str) -> EncodedTask:
        made: EncodedTask = self._once(
            task,
            splits,
            split,
            lambda: encode_task(
                self.backbone, task, getattr(splits, split), self.encoding, reserved=self.reserved
            ),
        )
        return made

    def _once(self, task: Task, splits: Splits, split: str, make: Any) -> Any:
        key = (id(task), id(splits), split)
        if key not in self._done:
            self._done[key] = make()
        return self._done[key]


def own_recipe(job: Job, recipe: Recipe) -> Recipe:
    """The recipe of a bank with a job's own learning rate."""
    return recipe if job.lr is None else replace(recipe, lr=job.lr)


def origins_of(
    backbone: Backbone,
    jobs: Sequence[Job],
    recipe: Recipe,
    encoding: Encoding = USUAL,
    method: Method | None = None,
) -> list[Origin]:
    """What the adaptations of a bank will say of where they come from, known before the first step.

    The same method, encoding, origin and initial tensors give the same adaptation; its tensors, scores and curve are
    the result.
    """
    common: dict[str, Any] = {"precision": backbone.precision, "bank": len(jobs)}
    if method is not None and method.shares:
        common["shared_by"] = [job.called for job in jobs]
    found = []
    for job in jobs:
        splits = job.splits
        found.append(
            Origin(
                task=job.task_name,
                backbone=backbone.name,
                revision=backbone.revision,
                family=backbone.family,
                seed=job.seed,
                start=str(job.start_on(backbone, method)),
                words=_words_of(backbone, job, encoding),
                recipe={**_without_length(own_recipe(job, recipe)), **common, **_taught(job)},
                data={
                    "source": splits.source,
                    "revision": splits.revision,
                    **{name: sum(len(getattr(own, name)) for _, own in job.parts) for name in SPLITS},
                    "split_seed": splits.seed,
                    **({} if splits.shots is None else {"shots": splits.shots}),
                    **(_mixed(job) if job.beside else record_of(job.task)),
                },
                opening=backbone.opening,
            )
        )
    return found


def _words_of(backbone: Backbone, job: Job, encoding: Encoding) -> dict[str, str]:
    """label -> word over all tasks; none where a label has another word in another task."""
    found: dict[str, str] = {}
    for task, _ in job.parts:
        answers = backbone.answers(task, encoding)
        own = answers.mapping if answers else {}
        if any(found.get(label, word) != word for label, word in own.items()):
            return {}
        found.update(own)
    return found


def _mixed(job: Job) -> dict[str, Any]:
    """What a mixture is made of."""
    return {
        "source": f"a mixture of {len(job.parts)} tasks",
        "mixture": [
            {
                "task": task.name,
                "source": splits.source,
                "revision": splits.revision,
                "train": len(splits.train),
                **record_of(task),
            }
            for task, splits in job.parts
        ],
    }


def _taught(job: Job) -> dict[str, Any]:
    """What is kept of a teacher; nothing where there is none."""
    return {} if job.teacher is None else {"distil": job.teacher.record()}


def _without_length(recipe: Recipe) -> dict[str, Any]:
    """The values of a recipe but the length, which is the method's."""
    values = recipe.as_dict()
    del values["length"]
    return values


def _fingerprint(
    backbone: Backbone,
    jobs: Sequence[Job],
    recipe: Recipe,
    way: object,
    rows: Sequence[Sequence[Row]],
    members: Sequence[Member],
) -> str:
    """16 digits that change with anything that changes an adaptation; `way` is what else does."""
    sha = hashlib.sha256(repr((backbone.name, backbone.revision, backbone.precision, recipe, way)).encode())
    seen: dict[int, bytes] = {}
    digests: dict[int, str] = {}
    for job, own, member in zip(jobs, rows, members, strict=True):
        if id(own) not in seen:
            seen[id(own)] = hashlib.sha256(repr(own).encode()).digest()
        sha.update(seen[id(own)])
        sha.update(
            repr(
                (job.name, job.task.name, job.task.metric, job.seed, job.lr, digest_tensors(kept_of(member)))
            ).encode()
        )
        if job.teacher is not None:
            sha.update(repr(job.teacher.record()).encode())
        for task, _ in job.parts:
            if task.scale is not None or task.head:
                sha.update(repr((task.scale, task.head, task.separator)).encode())
        # Not all of a row is in what was encoded: the second text may be cut off, answers only score.
        sha.update(_rows_digest(job.splits, digests).encode())
        for task, splits in job.beside:
            sha.update(f"{task.name} {task.metric} {_rows_digest(splits, digests)}".encode())
    return sha.hexdigest()[:16]


def _rows_digest(splits: Splits, known: dict[int, str]) -> str:
    if id(splits) not in known:
        known[id(splits)] = digest_rows((splits.train, splits.validation))
    return known[id(splits)]


def _fit(module: BankTraining, data: BankData, options: TrainingOptions, key: str, until: int) -> None:
    """Run Lightning over the stretches that are left up to the one that step `until` is in."""
    every = module.recipe.evaluate_every
    data.first_epoch = math.ceil(module.steps_done / every)
    left = math.ceil(min(until, module.recipe.steps) / every) - data.first_epoch
    if not module.active or left <= 0:
        if module.steps_done == 0:
            module._evaluate()
            for state in module.states:
                state.ended = "steps"
        return
    processes, device = module.backbone.processes, module.backbone.device
    on_gpu, alone = device.type == "cuda", processes.count == 1
    named = on_gpu and alone and device.index is not None
    loggers = options.loggers
    if callable(loggers):
        loggers = loggers(key) if processes.first else ()
    place = options.state_folder or Path()  # where a logger writes too
    with quiet_lightning(), disk_errors(place), _interrupts_as_they_are():
        trainer = Trainer(
            callbacks=[_OwnSignals()],
            accelerator="cuda" if on_gpu else "cpu",
            devices=[device.index] if named else processes.placement.devices,
            num_nodes=processes.placement.nodes,
            strategy=DDPStrategy() if processes.count > 1 else "auto",
            # Alone, a cluster's variables are not about this process.
            plugins=[LightningEnvironment() if alone else cluster()],
            use_distributed_sampler=False,  # the rows of a step are shared out by BankData
            max_epochs=left,
            reload_dataloaders_every_n_epochs=1,
            logger=list(loggers) or False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(module, datamodule=data)


class _OwnSignals(Callback):
    """Takes back the signals that Lightning gives handlers of its own, which turn a SIGTERM into a failure or into nothing."""

    def __init__(self) -> None:
        self.before = signals.handlers()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Right behind Lightning's own registration."""
        if threading.current_thread() is threading.main_thread():
            signals.restore(self.before)


@contextmanager
def _interrupts_as_they_are() -> Iterator[None]:
    """Lightning makes exit code 1 of a Ctrl-C where no command listens (signals.py): a caller gets the interrupt itself."""
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


def _finish(job: Job, state: MemberState, started: Adaptation, member: Member) -> Trained:
    """The adaptation that began as `started`, with the best state of its member."""
    best = max(state.curve, key=lambda point: point.score)
    spent = member.spent()  # up to the end, not to the best of it
    member.load_state_dict(state.best)
    adaptation = replace(
        started,
        tensors=member.tensors(),
        encoder=member.encoder(),
        embedding=_finite(state.embedding),
        scores={"validation": {job.metric: best.score, "step": state.best_step}},
        curve=tuple(state.curve),
        notes={**member.notes(), **spent},
        head=head_beside(member),
    )
    return Trained(adaptation, state.ended or "steps", state.steps)


def _finite(embedding: dict[str, Tensor] | None) -> dict[str, Tensor] | None:
    """An embedding, unless its run had left the finite numbers."""
    if embedding is None or not all(bool(torch.isfinite(tensor).all()) for tensor in embedding.values()):
        return None
    return embedding
