"""POST (Wang et al., ICML 2025, arXiv 2506.16196): carry prompts to another model with public text and no label.

The target's prompt is tuned so that it changes what the target would say to any text as the source's prompt changes what the
source says. With t and s the scores of words at the answer slot, with the prompt and plain (without one),

    loss = alpha D(t - t_plain, s - s_plain) + (1 - alpha) D(t, s),    D(a, b) = T^2 KL(softmax(b / T) || softmax(a / T)).

The words are those that both vocabularies hold whole, so widths may differ. The step is the best by the same loss on public text
that was held out; the authors take the best on the target task's labelled rows, which is given beside it and told apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from projectors.closed_form import whole_words
from projectors.lessons import ordinary
from projectors.public_state import Best, Course, Keeping, keep, resume
from prompttransfer import signals
from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.bank import Bank, BareBank, VectorBank, on_the_same
from prompttransfer.adaptations.initialisers import initial_vectors
from prompttransfer.adaptations.prompts import soft_prompt
from prompttransfer.adaptations.running import common_encoding, stacked
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.kernels.token_batching import cut
from prompttransfer.backbones.layouts import Encoding
from prompttransfer.backbones.rows import Row
from prompttransfer.training.batches import RowOrder
from prompttransfer.training.distillation import answered, divergence
from tasks.errors import UserError
from tasks.task import FAMILIES, Example, Task

FEWEST = 10
"""Rows of public text, below which there is nothing to hold out."""
Look = Callable[[Tensor], Sequence[float]]
"""What prompts [n, length, width] are worth on labelled rows, one number each."""


@dataclass(frozen=True)
class PostSettings:
    """The authors' settings where they give them: alpha .5, T 2, Adam 1e-3, batches of 64 (6000 steps; here 1000)."""

    alpha: float = 0.5
    temperature: float = 2.0
    lr: float = 1e-3
    steps: int = 1000
    batch: int = 64
    every: int = 50
    words: int = 8192
    """Most shared words that are compared, the most frequent of the source first."""
    held_out: float = 0.2
    """Share of the public rows that chooses the step."""
    start: str = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise UserError(
                f"alpha {self.alpha:g}: give the share of the difference to no prompt, from 0 to 1"
            )
        if not (0 < self.temperature < math.inf and 0 < self.lr < math.inf and 0 < self.held_out < 1):
            raise UserError(
                f"temperature and rate must be above 0 and the held-out share between 0 and 1, given {self}"
            )
        if min(self.steps, self.batch, self.every) < 1 or self.words < 2:
            raise UserError(f"steps, batch and every must be at least 1 and words at least 2, given {self}")


@dataclass(frozen=True)
class Meeting:
    """The words in which two models are compared."""

    words: tuple[str, ...]
    source: Tensor
    """[words] token ids"""
    target: Tensor


def meeting(source: Backbone, target: Backbone, most: int) -> Meeting:
    """The first `most` words that both vocabularies hold whole. Raises UserError where there are not two."""
    one, other = whole_words(ordinary(source)), whole_words(ordinary(target))
    words = [word for word, _ in sorted(one.items(), key=lambda item: item[1]) if word in other][:most]
    if len(words) < 2:
        raise UserError(
            f"the vocabularies of {source.name} and {target.name} share {len(words)} whole words: models are compared by words "
            f"that both know"
        )
    return Meeting(
        tuple(words),
        torch.tensor([one[word] for word in words], device=source.device),
        torch.tensor([other[word] for word in words], device=target.device),
    )


def public_task(kind: str, words: Sequence[str]) -> Task:
    """A task whose rows nobody has labelled; two of `words`, which a backbone must know, stand where labels would."""
    said = {family: {"one": (words[0],), "two": (words[1],)} for family in FAMILIES}
    return Task("public-text", "public text", kind, labels=("one", "two"), words=said)


def check_public(examples: Sequence[Example]) -> None:
    """Raise UserError where there is too little public text."""
    if len(examples) < FEWEST:
        raise UserError(
            f"public text of {len(examples)} rows: give at least {FEWEST}, some hundreds are better"
        )


def encode_public(
    backbone: Backbone, examples: Sequence[Example], encoding: Encoding, *, words: Sequence[str], length: int
) -> list[Row]:
    """Public rows as the backbone reads them, single texts and pairs, in their order."""
    rows: list[Row | None] = [None] * len(examples)
    for kind in ("sentence", "pair"):
        task = public_task(kind, words)
        places = [
            place for place, each in enumerate(examples) if (each.second is not None) == (kind == "pair")
        ]
        own = [Example(examples[place].first, examples[place].second) for place in places]
        for place, row in zip(places, backbone.encode(task, own, encoding, reserved=length), strict=True):
            rows[place] = row
    return [row for row in rows if row is not None]


@dataclass(frozen=True, eq=False)
class Side:
    """Public rows as one model reads them."""

    backbone: Backbone
    rows: Sequence[Row]
    encoding: Encoding
    ids: Tensor
    """[words]"""

    def scores(self, bank: Bank, places: Sequence[int]) -> Tensor:
        """Log-probabilities over the words of the rows at `places`, [members, rows, words]; differentiable."""
        batch = self.backbone.batch(
            [self.rows[place] for place in places], layout=self.encoding.place(self.backbone.family)
        )
        states = answered(self.backbone, *on_the_same(bank, batch)).states
        return torch.log_softmax(self.backbone.word_logits(states, self.ids), dim=-1).unflatten(
            0, (bank.members, -1)
        )

    @torch.no_grad()
    def all_scores(self, bank: Bank) -> Tensor:
        """Those of all rows, on the CPU."""
        order = sorted(range(len(self.rows)), key=lambda place: self.rows[place].size)
        fixed = bank.reserved + self.backbone.special_tokens
        sizes = [self.rows[place].size + fixed for place in order]
        found = torch.empty(bank.members, len(self.rows), len(self.ids))
        for part in cut(
            sizes, most=self.backbone.tokens_at_once, call=self.backbone.call_tokens, copies=bank.members
        ):
            found[:, order[part]] = self.scores(bank, order[part]).cpu()
        return found


def post_loss(
    target: Tensor, target_plain: Tensor, source: Tensor, source_plain: Tensor, settings: PostSettings
) -> Tensor:
    """The loss of every row, [...]; scores [..., words] under the prompt and without one."""
    change = divergence(target - target_plain, source - source_plain, settings.temperature)
    return settings.alpha * change + (1 - settings.alpha) * divergence(target, source, settings.temperature)


@dataclass(frozen=True, eq=False)
class Carried:
    """What was found for every prompt."""

    chosen: Tensor
    """[n, length, width] as they were best on held-out public text."""
    chosen_steps: tuple[int, ...]
    losses: tuple[float, ...]
    """Loss on held-out public text at that step."""
    start_losses: tuple[float, ...]
    """The same before the first step."""
    last: Tensor
    picked: Tensor | None = None
    """As they were best on labelled rows of the target task, if there was a look at them."""
    picked_steps: tuple[int, ...] = ()


def carry_by_text(
    source: Backbone,
    target: Backbone,
    prompts: Sequence[Adaptation],
    examples: Sequence[Example],
    settings: PostSettings = PostSettings(),
    *,
    length: int | None = None,
    look: Look | None = None,
    tell: Callable[[int, float], None] = lambda step, loss: None,
    keeping: Keeping | None = None,
) -> Carried:
    """Prompts of `source` as prompts of `target`, all at once on the same public rows; their labels are not looked at.

    `look` measures on labelled rows and changes nothing but `picked`. The same seed gives the same prompts bit for bit, also where
    the work was killed and goes on from what `keeping` kept.
    Raises UserError for prompts of other backbones or of several layouts, too little text, or vocabularies that do not meet.
    """
    encoding = common_encoding(source, prompts)
    check_public(examples)
    vectors = stacked(prompts, "carried together")
    length = length or vectors.shape[1]
    met = meeting(source, target, settings.words)
    given = Side(
        source,
        encode_public(source, examples, encoding, words=met.words, length=vectors.shape[1]),
        encoding,
        met.source,
    )
    wanted = Side(
        target,
        encode_public(target, examples, encoding, words=met.words, length=length),
        encoding,
        met.target,
    )
    start = initial_vectors(
        settings.start, target, public_task("sentence", met.words), length=length, seed=settings.seed
    )
    work = _Work(given, wanted, vectors, start, settings, look, tell)
    return work.run(None if keeping is None else keeping.file("distil", work.parts()), keeping)


class _Work:
    """The loop: Adam on the prompts of the target, which share nothing but the rows."""

    def __init__(
        self,
        given: Side,
        wanted: Side,
        vectors: Tensor,
        start: Tensor,
        settings: PostSettings,
        look: Look | None,
        tell: Callable[[int, float], None],
    ):
        self.given, self.wanted, self.vectors, self.start = given, wanted, vectors, start
        self.settings, self.look, self.tell = settings, look, tell
        shuffled = torch.randperm(
            len(wanted.rows), generator=torch.Generator().manual_seed(settings.seed)
        ).tolist()
        count = max(1, round(settings.held_out * len(shuffled)))
        self.held, self.train = sorted(shuffled[:count]), sorted(shuffled[count:])

    def parts(self) -> Iterator[object]:
        """All that decides what comes out, but for what `look` looks at."""
        yield self.settings, self.look is None
        yield self.vectors
        yield self.start
        for side in (self.given, self.wanted):
            own = side.backbone
            yield own.name, own.revision, own.precision, side.encoding, side.rows
            yield side.ids.cpu()

    def run(self, path: Path | None, keeping: Keeping | None) -> Carried:
        """Carry; what was kept at `path` is where it goes on, and each look is kept there."""
        settings, wanted = self.settings, self.wanted
        begin = self.start.expand(len(self.vectors), -1, -1)
        prompts = torch.nn.Parameter(begin.to(wanted.backbone.device).clone())
        optimizer = torch.optim.Adam([prompts], lr=settings.lr)
        course = Course(Best(begin.clone()), Best(begin.clone()))
        if path is not None and keeping is not None and resume(path, course, prompts, optimizer):
            keeping.going_on(course.step)
        sizes = tuple(wanted.rows[place].size for place in self.train)
        order = RowOrder(sizes, settings.batch, settings.seed)
        self.measure()
        with signals.keeping(lambda: _kept(path)):
            if not course.first:
                self.take(course, prompts, 0)
            for step in range(course.step, settings.steps):
                signals.check()
                optimizer.zero_grad(set_to_none=True)
                self.losses(prompts, [self.train[index] for index in order.step(step)]).sum().backward()
                optimizer.step()
                if (step + 1) % settings.every == 0 or step + 1 == settings.steps:
                    self.take(course, prompts, step + 1)
                    if path is not None:
                        keep(path, course, prompts, optimizer)
        return Carried(
            course.best.vectors,
            tuple(course.best.steps),
            tuple(course.best.values),
            tuple(course.first),
            prompts.detach().cpu(),
            None if self.look is None else course.picked.vectors,
            tuple(course.picked.steps),
        )

    def measure(self) -> None:
        """What is compared: the source with its prompts and without, the target without."""
        self.source = self.given.all_scores(VectorBank(self.vectors))
        self.source_plain = self.given.all_scores(BareBank())
        self.target_plain = self.wanted.all_scores(BareBank())

    def losses(self, prompts: Tensor, places: Sequence[int]) -> Tensor:
        """The mean loss of each prompt over the rows at `places`, [n]; differentiable."""
        found = self.wanted.scores(VectorBank(prompts), places)
        plain, aim, bare = (
            part[:, places].to(found.device) for part in (self.target_plain, self.source, self.source_plain)
        )
        return post_loss(found, plain, aim, bare, self.settings).mean(dim=1)

    @torch.no_grad()
    def take(self, course: Course, prompts: Tensor, step: int) -> None:
        """One look at the held-out rows, and at labelled ones where that is asked for."""
        size = self.settings.batch
        parts = [self.held[at : at + size] for at in range(0, len(self.held), size)]
        sums = torch.stack([self.losses(prompts, part) * len(part) for part in parts]).sum(dim=0)
        found = (sums / len(self.held)).tolist()
        course.step, course.first = step, course.first or found
        course.best.take(prompts, found, step)
        if self.look is not None:
            values = self.look(prompts.detach().cpu().clone())
            course.picked.take(prompts, [-value for value in values], step)
        self.tell(step, sum(found) / len(found))


def _kept(path: Path | None) -> str:
    """What a stop in this moment would leave, in words."""
    if path is None or not path.exists():
        return "nothing was kept yet; run the same command again"
    return f"the last look is kept in {path.parent}; the same command goes on from there"


def adaptations_of(
    carried: Carried,
    prompts: Sequence[Adaptation],
    target: Backbone,
    settings: PostSettings,
    public: Mapping[str, object],
) -> list[Adaptation]:
    """The prompts as they were best on held-out text, as ordinary prompts of the target; label words are left open.

    `carried` is of `prompts`, and may be of others behind them.
    """
    count = len(prompts)
    return [
        soft_prompt(
            vectors=vectors.contiguous(),
            task=prompt.task,
            name=prompt.name,
            backbone=target.name,
            revision=target.revision,
            family=target.family,
            opening=target.opening,
            layout=prompt.layout,
            seed=prompt.seed,
            start="projected:public-text",
            data=prompt.origin.data,
            recipe={
                "projected_from": prompt.backbone,
                "source_digest": prompt.digest,
                "method": "public-text",
                "public_text": dict(public),
                "chosen_step": step,
                "held_out_loss": loss,
                **asdict(settings),
            },
        )
        for vectors, prompt, step, loss in zip(
            carried.chosen[:count], prompts, carried.chosen_steps[:count], carried.losses[:count], strict=True
        )
    ]
