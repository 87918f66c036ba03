"""Training: a bank of soft prompts learned at once on one frozen backbone, by Lightning.

Each prompt of a bank (training/loop.py) has its own task, seed, rows, loss, optimizer state, learning curve, best
checkpoint and early stop; they share only the passes through the backbone. Between two evaluations lies one Lightning epoch, at whose end
the whole state is written (training/state.py), so that a killed run goes on bit for bit.
Prompt tuning after Lester et al. 2021; recipes in training/recipes.py.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from prompttransfer import signals
from prompttransfer.adaptations.adaptation import Prompt, digest_vectors
from prompttransfer.adaptations.initialisers import initial_vectors
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import USUAL, Encoding, Layout
from prompttransfer.backbones.rows import Row
from prompttransfer.distributed.processes import quiet_lightning
from prompttransfer.evaluation.encoding import EncodedTask, encode_task
from prompttransfer.files import disk_errors
from prompttransfer.training.batches import BankData
from prompttransfer.training.loop import PromptBank
from prompttransfer.training.progress import TrainingProgress
from prompttransfer.training.recipes import Recipe
from prompttransfer.training.state import PromptState
from tasks.errors import MachineError, UserError
from tasks.loading import Splits
from tasks.records import kept_of
from tasks.rows import digest_rows
from tasks.task import Task


@dataclass(frozen=True)
class Job:
    """One prompt to train."""

    task: Task
    splits: Splits
    seed: int = 0
    initialiser: str = "random"
    name: str = ""
    vectors: Tensor | None = None
    """Initial vectors that are at hand already; `initialiser` then only says what they are."""
    lr: float | None = None
    """A learning rate of its own; None takes the recipe's."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise UserError(
                f"seed {self.seed} of {self.name or self.task.name!r}: give one from 0 to 2^63 - 1"
            )


@dataclass(frozen=True)
class Trained:
    """A prompt as it was best on the validation split, and why its training ended."""

    prompt: Prompt
    ended: str
    """`steps`, `patience` or `not finite`."""
    steps: int
    """Steps taken."""

    @property
    def failure(self) -> str | None:
        """One line on what went wrong, None if nothing did."""
        if self.ended != "not finite":
            return None
        lr = self.prompt.settings["lr"]
        return (
            f"the loss of prompt {self.prompt.name!r} was not finite at step {self.steps}: its best vectors before that "
            f"are kept; try a lower --lr (it was {lr:g}) or --precision fp32"
        )


@dataclass
class TrainingOptions:
    """How a run is watched and where it keeps its state; nothing here changes a prompt."""

    state_folder: Path | None = None
    progress: TrainingProgress | None = None
    loggers: Sequence[Any] | Callable[[str], Sequence[Any]] = ()
    """Lightning's; or what makes those of the run whose key it is given, anew each time that the run goes on: the curve
    so far is logged again, so that a run has one log however often it was killed."""
    state_files: list[Path] = field(default_factory=list)
    """Filled by `train_prompts`: what `clear` removes."""

    def clear(self) -> None:
        """Remove the state of finished runs; to be called when their prompts are saved, not before."""
        for path in self.state_files:
            path.unlink(missing_ok=True)


def train_prompts(
    backbone: Backbone,
    jobs: Sequence[Job],
    recipe: Recipe,
    encoding: Encoding = USUAL,
    *,
    options: TrainingOptions | None = None,
) -> list[Trained]:
    """Train one prompt a job, all of them in one bank, and return each as it was best on its validation split.

    On several devices (a backbone loaded with a `Placement`, in a function given to `run_on`) this is called in each
    process; all return the same prompts, and only the first writes state and progress.
    Deterministic: the same jobs, recipe and machine give the same prompts, bit for bit, also when the run was killed
    and started again with the same `options.state_folder`; call `options.clear()` once the prompts are saved. Raises UserError for a job that this backbone cannot do.
    """
    options = options or TrainingOptions()
    place = encoding.place(backbone.family)
    encode = RowEncoder(backbone, recipe.length, encoding)
    train_rows = [encode.train(job) for job in jobs]
    validation = [encode.validation(job) for job in jobs]
    initial = [starting_vectors(backbone, job, recipe) for job in jobs]
    processes = backbone.processes
    progress = options.progress if processes.first else None
    state_file, key = None, ""
    if options.state_folder is not None or processes.count > 1 or callable(options.loggers):
        key = _fingerprint(backbone, jobs, recipe, encoding.layout, train_rows, initial)
    if options.state_folder is not None:
        state_file = options.state_folder / f".training-{key}.safetensors"
    module = PromptBank(
        backbone,
        initial,
        validation,
        recipe,
        state_file,
        progress,
        rates=[own_recipe(job, recipe).lr for job in jobs],
    )
    resumed = module.resume()
    processes.agree(
        (key, module.steps_done),
        "has other rows, settings or another state than the first: give all machines the same data and an output folder "
        "that all of them see",
    )
    if resumed and progress is not None:
        progress.resumed(module.steps_done)
    data = bank_data(backbone, train_rows, jobs, recipe, place)
    data.bank = module
    data.first_epoch = math.ceil(module.steps_done / recipe.evaluate_every)
    frozen = backbone.digest()
    with signals.keeping(module.kept):
        _fit(module, data, options, key)
    if backbone.digest() != frozen:
        raise MachineError("the frozen backbone changed during training: this is a bug, please report it")
    origins = origins_of(backbone, jobs, recipe, encoding)
    results = [
        _finish(job, state, start, origin)
        for job, state, start, origin in zip(jobs, module.states, initial, origins, strict=True)
    ]
    if state_file is not None and processes.first:
        options.state_files.append(state_file)
    return results


def bank_data(
    backbone: Backbone, rows: Sequence[Sequence[Row]], jobs: Sequence[Job], recipe: Recipe, layout: Layout
) -> BankData:
    """The training rows of jobs, cut into steps."""
    return BankData(
        backbone,
        rows,
        [job.seed for job in jobs],
        batch=recipe.batch,
        length=recipe.length,
        layout=layout,
        steps=recipe.steps,
        evaluate_every=recipe.evaluate_every,
    )


CONVERGED = 0.99
"""The share of its best validation score at which a run counts as converged."""


class RowEncoder:
    """Encodes each task's rows once, however many jobs share them."""

    def __init__(self, backbone: Backbone, reserved: int, encoding: Encoding):
        self.backbone, self.reserved, self.encoding = backbone, reserved, encoding
        self._done: dict[tuple[int, int, str], Any] = {}

    def train(self, job: Job) -> list[Row]:
        return self._once(
            job,
            "train",
            lambda: self.backbone.encode(job.task, job.splits.train, self.encoding, reserved=self.reserved),
        )

    def validation(self, job: Job) -> EncodedTask:
        return self._task(job, "validation")

    def test(self, job: Job) -> EncodedTask:
        return self._task(job, "test")

    def _task(self, job: Job, split: str) -> EncodedTask:
        rows = getattr(job.splits, split)
        return self._once(
            job,
            split,
            lambda: encode_task(self.backbone, job.task, rows, self.encoding, reserved=self.reserved),
        )

    def _once(self, job: Job, split: str, make: Any) -> Any:
        key = (id(job.task), id(job.splits), split)
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
) -> list[dict[str, Any]]:
    """What the prompts of a bank will say of where they come from, known before the first step.

    The same origin and the same initial vectors give the same prompt; its vectors, scores and curve are the result.
    """
    common = {
        "precision": str(backbone.dtype).removeprefix("torch."),
        "max_length": encoding.max_length,
        "bank": len(jobs),
        "aggregation": encoding.aggregation,
    }
    found = []
    for job in jobs:
        answers = backbone.answers(job.task, encoding)
        splits = job.splits
        found.append(
            {
                "task": job.task.name,
                "name": job.name or job.task.name,
                "backbone": backbone.name,
                "revision": backbone.revision,
                "family": backbone.family,
                "layout": encoding.layout,
                "seed": job.seed,
                "initialiser": job.initialiser,
                "words": answers.mapping if answers else {},
                "settings": {**own_recipe(job, recipe).as_dict(), **common},
                "data": {
                    "source": splits.source,
                    "revision": splits.revision,
                    "train": len(splits.train),
                    "validation": len(splits.validation),
                    "test": len(splits.test),
                    "split_seed": splits.seed,
                    **kept_of(job.task),
                },
            }
        )
    return found


def starting_vectors(backbone: Backbone, job: Job, recipe: Recipe) -> Tensor:
    """[length, width] what a job starts from; UserError where vectors at hand have another shape."""
    if job.vectors is None:
        return initial_vectors(job.initialiser, backbone, job.task, length=recipe.length, seed=job.seed)
    wanted = (recipe.length, backbone.width)
    if tuple(job.vectors.shape) != wanted:
        raise UserError(
            f"initial vectors of {job.name or job.task.name!r} are {list(job.vectors.shape)}, needed are {list(wanted)}"
        )
    return job.vectors.float().clone()


def _fingerprint(
    backbone: Backbone,
    jobs: Sequence[Job],
    recipe: Recipe,
    layout: str,
    rows: Sequence[Sequence[Row]],
    initial: Sequence[Tensor],
) -> str:
    """16 digits that change with anything that changes a prompt."""
    sha = hashlib.sha256(
        repr((backbone.name, backbone.revision, str(backbone.dtype), recipe, layout)).encode()
    )
    seen: dict[int, bytes] = {}
    digests: dict[int, str] = {}
    for job, own, vectors in zip(jobs, rows, initial, strict=True):
        if id(own) not in seen:
            seen[id(own)] = hashlib.sha256(repr(own).encode()).digest()
        sha.update(seen[id(own)])
        sha.update(
            repr(
                (job.name, job.task.name, job.task.metric, job.seed, job.lr, digest_vectors(vectors))
            ).encode()
        )
        # Not all of a row is in what was encoded: the second text may be cut off, answers only score.
        sha.update(_rows_digest(job, digests).encode())
    return sha.hexdigest()[:16]


def _rows_digest(job: Job, known: dict[int, str]) -> str:
    if id(job.splits) not in known:
        known[id(job.splits)] = digest_rows((job.splits.train, job.splits.validation))
    return known[id(job.splits)]


def _fit(module: PromptBank, data: BankData, options: TrainingOptions, key: str) -> None:
    """Run Lightning over the stretches that are left."""
    left = math.ceil(module.recipe.steps / module.recipe.evaluate_every) - data.first_epoch
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
            plugins=[LightningEnvironment()]
            if alone
            else None,  # a cluster's variables are not about this process
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


def _finish(job: Job, state: PromptState, initial: Tensor, origin: dict[str, Any]) -> Trained:
    best = max(state.curve, key=lambda point: point.score)
    prompt = Prompt(
        vectors=state.best.cpu().contiguous(),
        initial=initial,
        scores={"validation": {job.task.metric: best.score, "step": state.best_step}},
        curve=tuple(state.curve),
        **origin,
    )
    return Trained(prompt, state.ended or "steps", state.steps)
