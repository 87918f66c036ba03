"""Fitting: the weights of a projector from pairs of prompts (distance), from the target's task loss (task), or both.

An objective is a function (module, step) -> scalar loss; one loop minimises any of them. All randomness comes from
(seed, step), so a fit that was killed and resumes is the fit that was not. Su et al. 2022, section 4.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from pydantic import BaseModel
from torch import Tensor, nn
from torch.nn import functional

from projectors.architectures import Standardised, set_output_scale
from prompttransfer import signals
from prompttransfer.adaptations.random_prompts import random_like
from prompttransfer.files import atomic_path
from prompttransfer.sealed import read_sealed, write_sealed
from tasks.documents import checked, parse_json, shortened
from tasks.errors import UserError, unknown

Objective = Callable[[nn.Module, int], Tensor]
TaskLoss = Callable[[Tensor, Tensor, int, float], Tensor]


def squared_l2(projected: Tensor, target: Tensor) -> Tensor:
    """[n, L, d] twice -> [n]: the squared L2 distance of whole prompts."""
    return (projected - target).square().sum((-2, -1))


def l1(projected: Tensor, target: Tensor) -> Tensor:
    """[n, L, d] twice -> [n]: the sum of absolute differences."""
    return (projected - target).abs().sum((-2, -1))


def cosine(projected: Tensor, target: Tensor) -> Tensor:
    """[n, L, d] twice -> [n]: one minus the cosine of the flattened prompts."""
    return 1 - functional.cosine_similarity(projected.flatten(-2), target.flatten(-2), dim=-1)


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squared-l2": squared_l2,
    "cosine": cosine,
    "l1": l1,
}


@dataclass(frozen=True)
class Pair:
    """One task's prompt on the two models: source [L_s, d_s] and target [L_t, d_t], of one seed and one checkpoint."""

    task: str
    source: Tensor
    target: Tensor


@dataclass(frozen=True)
class Lesson:
    """One fitting task for task-tuning: its source prompts [n, L_s, d_s] and the target model's loss.

    `loss(prompts [k, L_t, d_t], which [k], step, distil)` shares the k prompts out over a batch of rows and returns one number.
    They were projected from the source prompts `which`; `distil` is that of `FitSettings`.
    """

    task: str
    sources: Tensor
    loss: TaskLoss
    origin: str = ""
    """Changes with anything that the loss depends on: the target's weights, its rows, their order."""


@dataclass(frozen=True)
class FitSettings:
    """How a projector is fitted.

    noise: standard deviation added to source prompts, as a share of their rms. null: share of a batch that is a
    random prompt at the norms of a source, which has to come out as an untrained target prompt (what knows nothing on
    one side knows nothing on the other). contrast: weight of the term that makes an output nearest to its own
    task's target prompt. mix: largest share of a second prompt of the same task mixed into a source. unit: what the
    learning rate is multiplied by, the size of the target's words over the source's for a map that starts from words.
    distil: weight of KL(what the source answers to a row under the same prompt || what the target answers), added to the
    task loss.
    """

    distance: str = "squared-l2"
    steps: int = 300
    lr: float = 1e-3
    batch: int = 16
    noise: float = 0.0
    null: float = 0.0
    contrast: float = 0.0
    mix: float = 0.0
    weight_decay: float = 0.0
    seed: int = 0
    unit: float = 1.0
    distil: float = 0.0

    def __post_init__(self) -> None:
        if self.distance not in DISTANCES:
            raise unknown("distance", self.distance, DISTANCES)
        if self.steps < 1 or self.batch < 1 or not 0 < self.lr < math.inf:
            raise UserError(f"a fit needs steps >= 1, batch >= 1 and a finite lr > 0, given {self}")
        if not all(
            map(math.isfinite, (self.noise, self.contrast, self.weight_decay, self.unit, self.distil))
        ):
            raise UserError(f"noise, contrast, weight decay and distil must be finite, given {self}")
        if not (
            0 <= self.null < 1 and 0 <= self.mix <= 1 and min(self.noise, self.contrast, self.distil) >= 0
        ):
            raise UserError(
                f"null must be in [0, 1), mix in [0, 1], noise, contrast and distil not negative, given {self}"
            )


@dataclass
class Curve:
    """The loss at every step so far."""

    losses: list[float] = field(default_factory=list)


def distance_objective(
    pairs: Sequence[Pair], settings: FitSettings, untrained: Tensor | None = None
) -> Objective:
    """min over W of distance(Projector(P_s), P_t) over the fitting pairs, divided by the targets' own mean size.

    `untrained` [n, L_t, d_t]: target prompts before training (zeros if not given), what null inputs come out as.
    """
    if not pairs:
        raise UserError("distance fitting needs at least one pair of prompts, given none")
    sources = torch.stack([pair.source for pair in pairs])
    targets = torch.stack([pair.target for pair in pairs])
    nothing = torch.zeros_like(targets[:1]) if untrained is None else untrained
    tasks = [pair.task for pair in pairs]
    names = sorted(set(tasks))
    task_of = torch.tensor([names.index(task) for task in tasks])
    distance = DISTANCES[settings.distance]
    unit = distance(torch.zeros_like(targets), targets).mean().clamp_min(1e-12)

    def loss(module: nn.Module, step: int) -> Tensor:
        generator = step_generator(settings.seed, step)
        rows = torch.randint(len(pairs), (settings.batch,), generator=generator)
        inputs = disturbed(sources, rows, task_of, settings, generator)
        wanted = targets[rows]
        empty = torch.rand(settings.batch, generator=generator) < settings.null
        if empty.any():
            inputs[empty] = random_like(sources, int(empty.sum()), generator)
            wanted = wanted.clone()
            wanted[empty] = nothing[torch.randint(len(nothing), (int(empty.sum()),), generator=generator)]
        projected = module(inputs)
        value = distance(projected, wanted).mean() / unit
        if settings.contrast and not empty.all():
            value = value + settings.contrast * contrast(
                projected[~empty], targets, task_of[rows[~empty]], task_of
            )
        return value

    return loss


def contrast(
    projected: Tensor, targets: Tensor, own: Tensor, task_of: Tensor, temperature: float = 0.1
) -> Tensor:
    """Cross-entropy of the right task under softmax(cos(centred output, centred task mean) / temperature).

    InfoNCE (van den Oord et al. 2018) between [n, L, d] outputs of tasks `own` [n] and the mean target prompt of
    every task; centring on the mean of all takes out what the tasks have in common. 0 with one task.
    """
    count = int(task_of.max()) + 1
    means = torch.stack([targets[task_of == task].mean(0).flatten() for task in range(count)])
    centre = means.mean(0)
    if count < 2:
        return projected.sum() * 0
    outputs = functional.normalize(projected.flatten(-2) - centre, dim=-1)
    return functional.cross_entropy(
        outputs @ functional.normalize(means - centre, dim=-1).T / temperature, own
    )


def task_objective(
    lessons: Sequence[Lesson],
    settings: FitSettings,
    untrained: Tensor | None = None,
    prompts_per_step: int = 4,
) -> Objective:
    """The target's task loss, back through the frozen target model into the projector, one task a step in turn.

    With `null` above 0 a squared distance between outputs of random inputs and `untrained` prompts is added, in
    units of the untrained prompts' size, with weight null / (1 - null).
    """
    if not lessons:
        raise UserError("task-tuning needs at least one fitting task, given none")
    every = torch.cat([lesson.sources for lesson in lessons])

    def loss(module: nn.Module, step: int) -> Tensor:
        generator = step_generator(settings.seed, step)
        lesson = lessons[step % len(lessons)]
        rows = torch.randint(len(lesson.sources), (prompts_per_step,), generator=generator)
        same = torch.zeros(len(lesson.sources), dtype=torch.long)
        projected = module(disturbed(lesson.sources, rows, same, settings, generator))
        own_step = settings.seed * settings.steps + step  # each seed sees rows of its own
        value = lesson.loss(projected, rows, own_step, settings.distil)
        if settings.null and untrained is not None:
            output = module(random_like(every, prompts_per_step, generator))
            wanted = untrained[torch.randint(len(untrained), (prompts_per_step,), generator=generator)]
            apart = squared_l2(output, wanted).mean() / untrained.square().sum((-2, -1)).mean()
            value = value + settings.null / (1 - settings.null) * apart
        return value

    return loss


def disturbed(
    sources: Tensor, rows: Tensor, task_of: Tensor, settings: FitSettings, generator: torch.Generator
) -> Tensor:
    """Source prompts `rows` [k, L_s, d_s], mixed with another prompt of their task and with noise, as settings say."""
    chosen = sources[rows].clone()
    if settings.mix:
        partners = torch.stack(
            [pick(torch.nonzero(task_of == task_of[row]).flatten(), generator) for row in rows]
        )
        share = settings.mix * torch.rand(len(rows), 1, 1, generator=generator)
        chosen = (1 - share) * chosen + share * sources[partners]
    if settings.noise:
        scale = settings.noise * sources.square().mean().sqrt()
        chosen = chosen + scale * torch.randn(chosen.shape, generator=generator)
    return chosen


def pick(indices: Tensor, generator: torch.Generator) -> Tensor:
    """One of `indices` [n]."""
    return indices[torch.randint(len(indices), (), generator=generator)]


def step_generator(seed: int, step: int) -> torch.Generator:
    """The generator of one step: a function of seed and step alone, which is what lets a fit resume."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


def fit(
    module: nn.Module,
    objective: Objective,
    settings: FitSettings,
    *,
    checkpoint: Path | None = None,
    every: int = 100,
    report: Callable[[int, float], None] | None = None,
) -> Curve:
    """Minimise `objective` over `module`'s parameters with AdamW and a cosine decay to zero; returns the curve.

    With `checkpoint` (a safetensors file) the state is kept every `every` steps, and a fit that finds one goes on
    from there. A fit that diverges raises (`check_course`, `check_size`); the checkpoint stays.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    largest = MOST_GROWTH * max(1.0, size_of(parameters))
    curve = Curve() if checkpoint is None else resume(checkpoint, module, optimiser, settings)
    for step in range(len(curve.losses), settings.steps):
        signals.check()
        for group in optimiser.param_groups:
            group["lr"] = settings.lr * settings.unit * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        loss = objective(module, step)
        value = float(loss.detach())
        check_course(value, curve.losses, settings, step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        curve.losses.append(value)
        if not size_of(parameters) <= largest:
            raise diverged(f"weights {MOST_GROWTH} times as large as they began", settings, step)
        if report is not None:
            report(step + 1, value)
        if checkpoint is not None and (step + 1) % every == 0 and step + 1 < settings.steps:
            keep(checkpoint, module, optimiser, curve, settings)
    return curve


MOST_GROWTH = 1000
"""A frozen model's layer norms keep its loss bounded however large a prompt is, so the weights are watched too."""
COURSE = 10
"""Losses that are averaged at both ends to see where a fit is going."""


def size_of(parameters: Sequence[Tensor]) -> float:
    """The norm of all parameters together."""
    return float(torch.stack([parameter.detach().norm() for parameter in parameters]).norm())


def check_course(value: float, losses: Sequence[float], settings: FitSettings, step: int) -> None:
    """Raise UserError where a loss is not finite, 100 times the first, or on average 3 times what it began with."""
    if not math.isfinite(value) or (losses and value > 100 * max(1.0, abs(losses[0]))):
        begin = f" from {losses[0]:.3g}" if losses else ""
        raise diverged(f"loss {value:.3g}{begin}", settings, step)
    if len(losses) >= 2 * COURSE:
        first, last = (sum(part) / COURSE for part in (losses[:COURSE], losses[-COURSE:]))
        if last > 3 * max(0.5, first):
            raise diverged(f"mean loss {last:.3g} from {first:.3g}", settings, step)


def diverged(what: str, settings: FitSettings, step: int) -> UserError:
    """One line that says where a fit went wrong and what to try."""
    return UserError(
        f"the fit diverged at step {step}: {what} with learning rate {settings.lr:g}; try --lr {settings.lr / 10:g}, or "
        "standardised prompts"
    )


def prepare(module: nn.Module, pairs: Sequence[Pair]) -> None:
    """Set what a map takes from its data before fitting: means and scales, or the scale of a last LayerNorm."""
    if not pairs:
        return
    sources = torch.stack([pair.source for pair in pairs])
    targets = torch.stack([pair.target for pair in pairs])
    if isinstance(module, Standardised):
        module.measure(sources, targets)
    else:
        set_output_scale(module, float(targets.square().mean().sqrt()))


def keep(
    checkpoint: Path, module: nn.Module, optimiser: torch.optim.Optimizer, curve: Curve, settings: FitSettings
) -> None:
    """Write module, optimiser moments, curve and settings to one file, whole or not at all."""
    tensors = {f"module.{name}": value.contiguous() for name, value in module.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"moment.{index}.{name}": value.contiguous().clone() for name, value in state.items()}
    record = {"settings": json.dumps(asdict(settings)), "losses": json.dumps(curve.losses)}
    with atomic_path(checkpoint) as temporary:
        write_sealed(temporary, tensors, record)


def resume(
    checkpoint: Path, module: nn.Module, optimiser: torch.optim.Optimizer, settings: FitSettings
) -> Curve:
    """Take up the state in `checkpoint` if there is one, of these settings; else begin anew."""
    if not checkpoint.exists():
        return Curve()
    what = f"state of a fit {checkpoint}"
    file = read_sealed(checkpoint, "state of a fit", "remove it to begin anew")
    record = file.metadata
    if record.get("settings") != json.dumps(asdict(settings)):
        raise UserError(
            f"{checkpoint} is of a fit with other settings ({shortened(str(record.get('settings')), 400)}): remove it to "
            "begin anew, or give another --output"
        )
    try:
        losses = checked(LossesRecord, {"losses": parse_json(record.get("losses", ""), what)}, what).losses
        if len(losses) > settings.steps:
            raise UserError(f"{what} has {len(losses)} steps of {settings.steps}")
        parts: dict[str, dict[str, Tensor]] = {"module": {}, "moment": {}}
        for name, value in file.tensors.items():
            kind, _, rest = name.partition(".")
            if kind not in parts or not value.is_floating_point():
                raise UserError(f"{what} is damaged: {shortened(name)!r} is nothing of a fit")
            parts[kind][rest] = value
        try:
            module.load_state_dict(parts["module"])
        except RuntimeError as error:
            raise UserError(f"{what} is of another module: {shortened(str(error), 300)}") from None
        optimiser.load_state_dict(
            optimiser.state_dict() | {"state": moments_of(parts["moment"], optimiser, what)}
        )
    except UserError as error:
        raise UserError(f"{error}; remove it to begin anew") from None
    return Curve(losses)


class LossesRecord(BaseModel):
    """The losses of a fit that was kept."""

    losses: list[float]


ADAM = frozenset({"step", "exp_avg", "exp_avg_sq"})


def moments_of(
    tensors: dict[str, Tensor], optimiser: torch.optim.Optimizer, what: str
) -> dict[int, dict[str, Tensor]]:
    """Index of a parameter -> Adam's moments of it, which were kept as `INDEX.NAME`; UserError unless they fit the parameters."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        if not index.isdecimal() or int(index) >= len(parameters) or key not in ADAM:
            raise UserError(f"{what} is damaged: {shortened(name)!r} is no moment of its parameters")
        if tuple(value.shape) != (() if key == "step" else tuple(parameters[int(index)].shape)):
            raise UserError(f"{what} is damaged: moment {name} is {list(value.shape)}")
        moments.setdefault(int(index), {})[key] = value
    if any(entry.keys() != ADAM for entry in moments.values()):
        raise UserError(f"{what} is damaged: it lacks moments of its parameters")
    return moments
