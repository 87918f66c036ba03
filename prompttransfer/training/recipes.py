"""Recipes: how long and how fast a prompt is learned, one tested set of values per family and size of backbone.

`recipe_for` chooses; every value can be overridden and what was used is stored with the prompt.

    masked-lm, small    AdamW 0.03 constant                measured on the embedded backbones (scripts/measure_microworld.py)
    masked-lm, base     AdamW 1e-3 constant, batch 16      Su et al. 2022, RoBERTa-base and BERT
    masked-lm, large    AdamW 1e-4 constant, batch 16      Su et al. 2022, RoBERTa-large
    t5                  Adafactor 0.3 constant, weight decay 1e-5, no parameter scaling   Lester et al. 2021
    t5 with adamw       AdamW 5e-3 constant, batch 16      Su et al. 2022, T5
    causal-lm           AdamW 0.02, 20 warm-up steps, then linearly to 0, batch 8, 20 vectors   tried on SmolLM2-135M
    LoRA on causal-lm   AdamW 2e-3, the same otherwise, batch 16                                tried on SmolLM2-135M
    text-search         no rate: 40 steps of a search, each of which tries some 65 prompts
    other methods       AdamW at a rate of their own (OWN_RATES)   searched by scripts/search_rates.py

Adafactor's three flags (scale_parameter, relative_step, warmup_init) are all off, as in the original
configuration; 0.3 is never handed to AdamW silently.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor
from torch.optim import AdamW, Optimizer

from prompttransfer.adaptations.method import Method
from prompttransfer.adaptations.methods import METHODS, parse_method
from prompttransfer.adaptations.starts import RANDOM, Start, Words
from prompttransfer.backbones.base import Backbone
from tasks.errors import UserError, unknown

LARGEST = 10**9
"""No count of a recipe is larger."""
OPTIMIZERS = ("adamw", "adafactor")
SCHEDULES = ("constant", "linear")
PROBE_STEPS, PROBE_SHARE = 30, 20
"""A probe has at least so many steps, and one in so many of the recipe's."""
SMALL_WIDTH = 384
"""Backbones narrower than this learn prompts best at a high rate; real checkpoints are wider."""


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of one training run."""

    optimizer: str
    lr: float
    source: str
    weight_decay: float = 0.0
    steps: int = 10_000
    batch: int = 16
    length: int = 100
    """Vectors of a prompt; methods without such take no notice."""
    evaluate_every: int = 250
    """Steps between two evaluations on the validation split."""
    patience: int = 0
    """Evaluations without a better score after which a run ends; 0 never ends it."""
    schedule: str = "constant"
    """What the rate does behind the warm-up: `constant`, or `linear` down to 0 behind the last step."""
    warm_up: int = 0
    """Steps in which the rate rises linearly to what it is."""
    embed_at: int = 0
    """The step whose tensors are kept beside the best, as an embedding of the task (SPoT, Vu et al. 2022); 0 for none."""

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise unknown("optimizer", self.optimizer, OPTIMIZERS)
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES)
        if not 0 < self.lr < 1e30:  # beyond it a step does not fit float32
            raise UserError(f"learning rate {self.lr}: it must be a number above 0, such as 0.03")
        if not 0 <= self.weight_decay < 1e30:
            raise UserError(f"weight decay {self.weight_decay}: it must be a number from 0 on, such as 0.01")
        for field, least in (
            ("steps", 0),
            ("batch", 1),
            ("length", 1),
            ("evaluate_every", 1),
            ("patience", 0),
            ("warm_up", 0),
        ):
            if not least <= getattr(self, field) <= LARGEST:
                name = field.replace("_", "-")
                raise UserError(
                    f"--{name} {getattr(self, field)}: it must be at least {least}, at most {LARGEST}"
                )
        if not 0 <= self.embed_at <= self.steps:
            raise UserError(
                f"--embed-at {self.embed_at}: the step must be one of the {self.steps} that are taken"
            )

    def as_dict(self) -> dict[str, Any]:
        """The values, for JSON; a schedule and the step of an embedding only where there is one."""
        usual = {"schedule": "constant", "warm_up": 0, "embed_at": 0}
        return {key: value for key, value in asdict(self).items() if usual.get(key) != value}

    def share_of_rate(self, step: int) -> float:
        """What the rate is multiplied by in step `step` (from 1)."""
        if step <= self.warm_up:
            return step / self.warm_up
        if self.schedule == "constant":
            return 1.0
        return (self.steps - step + 1) / max(1, self.steps - self.warm_up)

    def told(self, method: Method) -> str:
        """The recipe in words, for a method that may have no length, no rate, or nothing that is trained."""
        if not method.trains:
            return "nothing is trained"
        if method.searches:
            return f"{self.steps} steps of {self.batch} rows, evaluated every {self.evaluate_every} ({self.source})"
        return str(self) if method.is_prompt else self._told("")

    def __str__(self) -> str:
        return self._told(f", prompt of {self.length}")

    def _told(self, prompt: str) -> str:
        patience = f", patience {self.patience} evaluations" if self.patience else ""
        rise = f" behind {self.warm_up} warm-up steps" if self.warm_up else ""
        decay = f", weight decay {self.weight_decay:g}" if self.weight_decay else ""
        embedded = f", embedding at step {self.embed_at}" if self.embed_at else ""
        return (
            f"{self.optimizer} lr {self.lr:g} {self.schedule}{rise}{decay}, {self.steps} steps of {self.batch} rows{prompt}, "
            f"evaluated every {self.evaluate_every}{patience}{embedded} ({self.source})"
        )


HEAD_RATE, HEAD_WIDTH = 0.01, 128
"""The rate of a head beside any method, and the width of the states at which it was tried: of 1, .3, .1, .03, .01 and .003
(77 classes, one seed) .03 and .01 were the best on microworld-roberta, .01 and .003 on microworld-t5."""


def head_rate(width: int) -> float:
    """The rate of a head that reads states of `width`: a step moves its outputs as much at every width (our choice)."""
    return HEAD_RATE * HEAD_WIDTH / width


def probe_steps(steps: int) -> int:
    """Steps of a probe (transfers/retrieval.py) of what is trained for `steps`."""
    return min(steps, max(PROBE_STEPS, steps // PROBE_SHARE))


def recipe_for(backbone: Backbone, method: Method | None = None, **overrides: Any) -> Recipe:
    """The recipe for a method on a backbone, soft prompts where none is given; `overrides` that are None are ignored.

    Another optimizer than the family's own brings that optimizer's own tested rate with it. The length is the method's.
    """
    return recipe_for_size(backbone.family, backbone.state_width, method, **overrides)


def recipe_for_size(family: str, width: int, method: Method | None = None, **overrides: Any) -> Recipe:
    """The same for a backbone of which only family and width are known."""
    given = {key: value for key, value in overrides.items() if value is not None}
    if method is not None and "length" in method.settings():
        given["length"] = method.settings()["length"]
    name = "prompt" if method is None else method.name
    if method is not None and not method.trains:
        given["steps"] = 0
    recipe = replace(_base(name, family, width, given.get("optimizer")), **given)
    if method is None or (method.trains and not method.searches):
        check_warm_up(given.get("warm_up"), recipe.steps)
    return recipe


def check_warm_up(asked: int | None, steps: int | None) -> None:
    """Raise UserError for a warm-up that was asked for and is longer than the steps; None is what is not known.

    One that only the usual recipe has may be: a few steps of it are a short run, no mistake.
    """
    if asked is not None and steps is not None and asked > steps:
        raise UserError(
            f"warm-up {asked}: it is longer than the {steps} steps that are taken, so the rate would never be reached: "
            f"give at most {steps}"
        )


def method_and_recipe(family: str, width: int, text: str, **overrides: Any) -> tuple[Method, Recipe]:
    """The method that a text stands for and its recipe; a length that neither says is the recipe's."""
    name = text.partition(":")[0]
    given = {key: value for key, value in overrides.items() if value is not None}
    length = given.pop("length", None) or _base(name, family, width, None).length
    method = parse_method(text, length=length)
    return method, recipe_for_size(family, width, method, **given)


def usual_start(family: str, width: int, method: Method | None) -> Start:
    """What training begins with where nothing else is asked for; soft prompts where no method is given.

    Prompts of decoders begin as words: they learn from fewer rows than random vectors do (docs/real-models.md).
    """
    decodes = family == "causal-lm" and width >= SMALL_WIDTH
    return Words("vocabulary") if decodes and (method is None or method.name == "prompt") else RANDOM


def _base(method: str, family: str, width: int, optimizer: str | None) -> Recipe:
    small = width < SMALL_WIDTH
    if method in METHODS and METHODS[method].searches:
        return _search(small)
    if method in OWN_RATES:
        recipe = _own(method, family, width, optimizer)
    elif family == "causal-lm":
        recipe = _causal_lm(optimizer)
    else:
        recipe = _t5(optimizer) if family == "t5" else _masked_lm(width, optimizer)
    if small:
        rate = SMALL_RATES.get(method, recipe.lr) if recipe.optimizer == "adamw" else recipe.lr
        return replace(recipe, lr=rate, steps=300, batch=32, length=20, evaluate_every=25)
    return recipe


class Rates(NamedTuple):
    """Rates of AdamW for one method."""

    masked_lm: float
    """On small masked LMs, and on other small models that are no T5."""
    t5: float
    """On small T5s."""
    wider: float
    """On all others, where it was not searched for."""
    decoder: float | None = None
    """On decoders that are not small, where it was tried on SmolLM2-135M (docs/real-models.md)."""


OWN_RATES: dict[str, Rates] = {
    "lora": Rates(3e-3, 1e-3, 1e-3, decoder=2e-3),
    "lora-plus": Rates(1e-3, 3e-4, 2e-4),
    "lora-fa": Rates(3e-3, 3e-3, 1e-3),
    "delta-lora": Rates(1e-3, 1e-3, 1e-3),
    "dora": Rates(3e-3, 1e-3, 1e-3),
    "adalora": Rates(1e-2, 1e-2, 2e-3),
    "vera": Rates(1e-2, 3e-2, 1e-2),
    "ia3": Rates(3e-2, 3e-2, 3e-3),
    "bitfit": Rates(1e-2, 1e-2, 1e-3),
    "houlsby": Rates(3e-3, 1e-3, 1e-3),
    "pfeiffer": Rates(3e-3, 1e-2, 1e-3),
    "prefix": Rates(3e-3, 3e-3, 1e-3),
    "p-tuning-v2": Rates(3e-2, 3e-2, 5e-3),
    "probe": Rates(3e-1, 1e-2, 1e-2),
    "full": Rates(1e-4, 3e-4, 3e-5),
}
"""Methods that are not prompts -> their rates, of small backbones those that scripts/search_rates.py found on the embedded
ones; where several are as good to within two validation rows, one in the middle of them."""


SMALL_RATES: dict[str, float] = {"ulpt": 0.01, "p-tuning": 3e-3}
"""Methods of prompts whose rate of AdamW on small backbones is another than that of free vectors, tried on
microworld-roberta (docs/later-methods.md, docs/method-comparison.md)."""


def _own(method: str, family: str, width: int, optimizer: str | None) -> Recipe:
    rates = OWN_RATES[method]
    if width < SMALL_WIDTH:
        rate = rates.t5 if family == "t5" else rates.masked_lm
        return Recipe(
            optimizer or "adamw", rate, f"{method} on small backbones, searched on the embedded ones"
        )
    decodes = family == "causal-lm"
    if decodes and rates.decoder is not None:
        usual, source = rates.decoder, f"{method} on decoders, tried on SmolLM2-135M (docs/real-models.md)"
    else:
        usual, source = rates.wider, f"{method}: our choice, not searched for at this size"
    return Recipe(optimizer or "adamw", usual, source, **(DECODER if decodes else {}))


def _search(small: bool) -> Recipe:
    return Recipe(
        "adamw",
        1.0,
        "a search, which has no rate",
        steps=40,
        batch=32 if small else 16,
        length=5,
        evaluate_every=5,
    )


def _masked_lm(width: int, optimizer: str | None) -> Recipe:
    if optimizer == "adafactor":
        return Recipe("adafactor", 0.03, "Adafactor for a masked LM: our choice, not from a paper")
    if width < SMALL_WIDTH:
        return Recipe("adamw", 0.03, "for small backbones, measured on the embedded ones")
    if width < 1024:
        return Recipe("adamw", 1e-3, "Su et al. 2022, RoBERTa-base")
    return Recipe("adamw", 1e-4, "Su et al. 2022, RoBERTa-large")


def _causal_lm(optimizer: str | None) -> Recipe:
    if optimizer == "adafactor":
        return Recipe("adafactor", 0.3, "Lester et al. 2021", weight_decay=1e-5)
    source = "for decoders, tried on SmolLM2-135M (docs/real-models.md)"
    # As many rows as 600 steps of 16: twice the steps cost the same and learned more.
    return Recipe("adamw", 0.005, source, length=20, **DECODER | {"steps": 1200, "batch": 8})


DECODER: dict[str, Any] = {"steps": 600, "evaluate_every": 50, "schedule": "linear", "warm_up": 20}
"""How long decoders learn, and how the rate falls: a constant one ends where the last batches threw it."""


def _t5(optimizer: str | None) -> Recipe:
    if optimizer == "adamw":
        return Recipe("adamw", 5e-3, "Su et al. 2022, T5")
    return Recipe("adafactor", 0.3, "Lester et al. 2021", weight_decay=1e-5, batch=32)


def make_optimizer(
    recipe: Recipe, parameters: Iterable[Tensor], rates: Sequence[float] | None = None
) -> Optimizer:
    """The optimizer of a recipe, every parameter with a state of its own and, if given, a learning rate of its own."""
    groups: list[dict[str, Any]] = [{"params": [parameter]} for parameter in parameters]
    if rates is not None:
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
    if recipe.optimizer == "adamw":
        return AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay)
    from transformers.optimization import Adafactor

    return Adafactor(
        groups,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        scale_parameter=False,
        relative_step=False,
        warmup_init=False,
    )
