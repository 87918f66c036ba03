"""Which trained adaptation should a new task start from? A few labelled rows of the task, and what they are worth.

Two kinds of evidence. The direct one is expensive: every source is tried on the rows with nothing trained (few-shot).
The indirect one trains a short probe on the same rows, of each method that the sources are of, and asks which source
looks like it, by vectors (where the method has such) and by activated neurons. The order is that of the rows answered right, where being of the target's type counts as PRIOR_ROWS
more of them (few rows cannot tell good sources from lucky ones); sources that are still equal go by the overlap of
their neurons with the probe's, or by their loss where there is no probe. Each part is worth something where it was
measured (scripts/measure_recommend.py); the rest is shown beside it with its cost, so that its worth can be seen.

Only training rows are ever used. `leave_one_out` measures the advice against a transfer matrix.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pandas as pd

from analysis.choice import ChoiceSummary, choose_sources, summarise
from analysis.low_rank import SIMILARITIES
from analysis.matrices import align
from analysis.prediction import BASELINE
from prompttransfer.adaptations.adaptation import Adaptation, same_tensors
from prompttransfer.adaptations.method import Method
from prompttransfer.adaptations.running import called, common_encoding, groups_of, impossible
from prompttransfer.adaptations.starts import RANDOM, From, Start
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import USUAL, Encoding
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import Score, bare_score
from prompttransfer.evaluation.grouped import evaluate_all
from prompttransfer.training.recipes import recipe_for
from prompttransfer.training.train import Job, TrainingOptions, train_adaptations
from prompttransfer.transfers.compared import Compared
from prompttransfer.transfers.evidence import (
    FEW_SHOT_LOSS,
    KNOWN_WITHOUT_PROBE,
    OF_PROBE,
    PROBE_METRICS,
    Evidence,
    check_rankings,
    of_rows,
)
from prompttransfer.transfers.indicators import FEW_SHOT, INDICATORS, missing
from prompttransfer.transfers.zero_shot import Target
from tasks.errors import UserError
from tasks.loading import Splits, sample

ADVICE = "recommend"
PRIOR_ROWS = 2
"""Rows that being of the target's type is worth; 1.5 to 100 chose the same sources where it was measured."""


@dataclass(frozen=True)
class Candidate:
    """One source with the direct evidence for it."""

    source: str
    task: str
    score: float
    """The target's metric on the rows, nothing trained."""
    loss: float | None
    """Mean loss on the rows, which decides between equal scores; None where text is written."""
    same_type: bool | None
    """Whether its task is of the target's type; None where its type is not known."""
    overlap: float | None = None
    """ON of its neurons with the probe's; None without a probe."""


@dataclass(frozen=True)
class Recommendation:
    """The sources for one target, best first, with the evidence."""

    task: str
    metric: str
    rows: int
    candidates: tuple[Candidate, ...]
    bare: float | None
    """The score of the backbone without a prompt on the same rows; None where a trained head answers."""
    chance: float
    evidence: tuple[Evidence, ...] = ()
    notes: tuple[str, ...] = field(default=())
    ranked_by: str = ""
    """The indicator whose order this is; empty for the usual one (`in_order`)."""

    @property
    def best(self) -> Candidate:
        """The source to start from."""
        return self.candidates[0]

    @property
    def undecided(self) -> tuple[Candidate, ...]:
        """Sources whose score lies within one standard error of the best, sqrt(p (1 - p) / rows): maybe as good.

        None in the order of another indicator.
        """
        if self.ranked_by:
            return ()
        p = self.best.score
        error = math.sqrt(max(p * (1 - p), 0.0) / self.rows)
        return tuple(c for c in self.candidates[1:] if p - c.score <= error)

    def reason(self, candidate: Candidate) -> str:
        """Why a source stands where it stands, in one line."""
        said = [f"{self.metric} {candidate.score:.2f} on {self.rows} rows"]
        if candidate.loss is not None:
            said.append(f"loss {candidate.loss:.2f}")
        if candidate.overlap is not None:
            said.append(f"ON {candidate.overlap:.2f}")
        if candidate.task == self.task:
            said.append("trained on this very task")
        elif candidate.same_type is not None:
            said.append("same type" if candidate.same_type else "another type")
        if self.ranked_by:
            values = next(e.values for e in self.evidence if e.indicator == self.ranked_by)
            if candidate.source in values:
                said.insert(0, f"{self.ranked_by} {values[candidate.source]:.3g}")
        nearest = [e.indicator for e in self.evidence if e.indicator not in KNOWN_WITHOUT_PROBE]
        nearest = [name for name in nearest if self.first_choice(name) == candidate.source]
        if nearest:
            said.append(f"nearest to the probe by {' '.join(nearest)}")
        return ", ".join(said)

    def first_choice(self, indicator: str) -> str:
        """The source that an indicator would choose; the better one of equals."""
        values = next(e.values for e in self.evidence if e.indicator == indicator)
        known = [c.source for c in self.candidates if c.source in values]
        return max(known, key=lambda source: values[source])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **{key: getattr(self, key) for key in ("task", "metric", "rows", "chance")},
            "no_prompt": self.bare,
            "ranked_by": self.ranked_by or ADVICE,
            "candidates": [{**asdict(c), "reason": self.reason(c)} for c in self.candidates],
            "not_told_apart_from_the_best": [c.source for c in self.undecided],
            "evidence": [asdict(item) | {"values": dict(item.values)} for item in self.evidence],
            "notes": list(self.notes),
        }


def recommend(
    backbone: Backbone,
    prompts: Sequence[Adaptation],
    targets: Sequence[Target],
    types: Mapping[str, str],
    *,
    rows: int = 32,
    probe_steps: int | None = None,
    leave_own_out: bool = False,
    by: Sequence[str] = (),
    encoding: Encoding = USUAL,
    options: TrainingOptions | None = None,
    seed: int = 0,
) -> list[Recommendation]:
    """Rank the source prompts for every target from `rows` of its training rows, drawn by `seed` (`in_order`).

    `types` is task -> type for the flag that costs nothing. `probe_steps` 0 leaves the probe and all that needs it
    out; the default is a twentieth of the recipe, at least 30. `leave_own_out` drops a target's own prompts from its
    sources. Probes of all targets are trained in one bank. `by` names indicators of RANKINGS: the sources are ranked by the
    first, what the others say stands beside it.
    """
    if rows < 1:
        raise UserError(f"--rows {rows}: at least one labelled row is needed")
    check_rankings(by, prompts, probe_steps)
    encoding = common_encoding(backbone, prompts, encoding)
    few = [_with_rows(target, rows, seed) for target in targets]
    sources = {t.task.name: _sources(prompts, t, leave_own_out) for t in few}
    found = [_few_shot(backbone, sources[t.task.name], t, types, encoding) for t in few]
    found = [
        replace(
            item,
            notes=(*item.notes, *_left_out(prompts, t)),
            evidence=(*item.evidence, *of_rows(by, backbone, sources[t.task.name], t, encoding)),
        )
        for item, t in zip(found, few, strict=True)
    ]
    if probe_steps == 0:
        return [_ranked(item, by) for item in found]
    probes = {
        method: _train_probes(backbone, method, sources, few, encoding, probe_steps, options)
        for method in dict.fromkeys(prompt.method for prompt in prompts)
    }
    found = [
        _with_probes(
            backbone,
            item,
            sources[item.task],
            {method: trained[item.task] for method, trained in probes.items() if item.task in trained},
        )
        for item in found
    ]
    return [_ranked(item, by) for item in found]


def _ranked(found: Recommendation, by: Sequence[str]) -> Recommendation:
    """In the order of the first of `by`; equals, and those that it says nothing of, stay in the usual order."""
    if not by:
        return found
    there = {item.indicator for item in found.evidence}
    empty = [f"{name} has no value here" for name in dict.fromkeys(by[1:]) if name not in there]
    found = replace(found, notes=(*found.notes, *empty))
    values = next((item.values for item in found.evidence if item.indicator == by[0]), {})
    if not values:
        return replace(found, notes=(*found.notes, f"{by[0]} has no value here: this is the usual order"))
    order = sorted(found.candidates, key=lambda c: -values.get(c.source, -math.inf))
    without = [c.source for c in order if c.source not in values]
    said = (f"{by[0]} says nothing of {', '.join(without)}, which stand last",) if without else ()
    return replace(found, candidates=tuple(order), ranked_by=by[0], notes=(*found.notes, *said))


def _sources(prompts: Sequence[Adaptation], target: Target, leave_own_out: bool) -> list[Adaptation]:
    """Those that can be tried on a target. Raises UserError where none is left."""
    name = target.task.name
    own = [p for p in prompts if not (leave_own_out and p.knows(name))]
    if not own:
        what = called(prompts)
        raise UserError(
            f"no source {what.removesuffix('s')} is left for {name}: give {what} of other tasks with --prompts"
        )
    reasons = [impossible(p, target.task) for p in own]
    if all(reasons):
        raise UserError(f"no source can be tried on {name}: {'; '.join(dict.fromkeys(reasons))}")
    return [p for p, reason in zip(own, reasons, strict=True) if not reason]


def _left_out(prompts: Sequence[Adaptation], target: Target) -> list[str]:
    """A note on each kind of sources that cannot be tried on a target."""
    reasons: dict[str, list[str]] = {}
    for prompt in prompts:
        if reason := impossible(prompt, target.task):
            reasons.setdefault(reason, []).append(prompt.name)
    return [f"left out {', '.join(names)}: {reason}" for reason, names in reasons.items()]


def _with_rows(target: Target, rows: int, seed: int) -> Target:
    """The target with a few training rows on every side: nothing else of it is looked at, least of all its test.

    They are drawn, because many data sets are sorted by label.
    """
    few = sample(target.splits.train, seed, rows)
    return Target(target.task, Splits(few, few, few, target.splits.source, target.splits.revision))


def _few_shot(
    backbone: Backbone,
    sources: Sequence[Adaptation],
    target: Target,
    types: Mapping[str, str],
    encoding: Encoding,
) -> Recommendation:
    """The direct evidence: every source on the rows, those in one bank that can be, and the flag that needs no run at all."""
    started = time.monotonic()
    task = target.task
    scores = evaluate_all(backbone, sources, task, target.splits.train, encoding)
    first = groups_of(sources)[0]
    encoded = encode_task(backbone, task, target.splits.train, encoding, reserved=first.reserved)
    bare, one = bare_score(backbone, encoded), scores[0]
    seconds = time.monotonic() - started
    candidates = [
        Candidate(p.name, p.task, s.value, s.loss, types[p.task] == task.type if p.task in types else None)
        for p, s in zip(sources, scores, strict=True)
    ]
    cost = f"{len(sources)} {called(sources)} x {one.rows} rows forward"
    return Recommendation(
        task=task.name,
        metric=task.metric,
        rows=one.rows,
        candidates=in_order(candidates, one.rows),
        bare=None if bare is None else bare.value,
        chance=one.chance,
        evidence=(*_direct(sources, scores, cost, seconds), *_flag(candidates)),
        notes=_warnings(candidates, bare, one.chance, no_source(sources)),
    )


def in_order(candidates: Sequence[Candidate], rows: int) -> tuple[Candidate, ...]:
    """Best first: rows answered right with PRIOR_ROWS for the type, then overlap with the probe, then loss."""

    def merit(candidate: Candidate) -> tuple[float, float, float]:
        right = candidate.score * rows + (PRIOR_ROWS if candidate.same_type else 0)
        loss = -math.inf if candidate.loss is None else -candidate.loss
        return round(right, 6), candidate.overlap or 0.0, loss

    return tuple(sorted(candidates, key=merit, reverse=True))


def _direct(
    sources: Sequence[Adaptation], scores: Sequence[Score], cost: str, seconds: float
) -> list[Evidence]:
    values = {p.name: s.value for p, s in zip(sources, scores, strict=True)}
    losses = {p.name: -s.loss for p, s in zip(sources, scores, strict=True) if s.loss is not None}
    found = [Evidence(FEW_SHOT, values, cost, seconds)]
    return [*found, Evidence(FEW_SHOT_LOSS, losses, "the same run", 0.0)] if losses else found


def _flag(candidates: Sequence[Candidate]) -> list[Evidence]:
    known = {c.source: float(c.same_type) for c in candidates if c.same_type is not None}
    return [Evidence(BASELINE, known, "nothing: names only", 0.0)] if len(known) == len(candidates) else []


def no_source(sources: Sequence[Adaptation]) -> str:
    """What the bare model is called beside these."""
    return "no prompt" if all(source.has_vectors for source in sources) else "no adaptation"


def _warnings(
    candidates: Sequence[Candidate], bare: Score | None, chance: float, named: str
) -> tuple[str, ...]:
    best = max(c.score for c in candidates)
    beside = [] if bare is None else [(named, bare.value)]
    beside.append(("the majority answer", chance))
    if best > max(value for _, value in beside):
        return ()
    said = " or ".join(f"{name} ({value:.2f})" for name, value in beside)
    return (
        f"no source does better on these rows ({best:.2f}) than {said}: training from scratch may be as good, or give more "
        f"--rows",
    )


@dataclass(frozen=True, eq=False)
class _Probe:
    """What a short training on the rows of a target left, and how long it took."""

    adaptation: Adaptation
    seconds: float


def _train_probes(
    backbone: Backbone,
    method: Method,
    sources: Mapping[str, Sequence[Adaptation]],
    targets: Sequence[Target],
    encoding: Encoding,
    steps: int | None,
    options: TrainingOptions | None,
) -> dict[str, _Probe]:
    """A short-trained adaptation of a method for every target that has sources of it, all in one bank; target -> probe.

    They start where the sources do, if those share a start.
    """
    own = {name: [p for p in found if p.method == method] for name, found in sources.items()}
    given = list({id(p): p for found in own.values() for p in found}.values())
    trained_on = [target for target in targets if own[target.task.name]]
    if not trained_on:
        return {}
    started = time.monotonic()
    steps = max(30, recipe_for(backbone, method).steps // 20) if steps is None else steps
    recipe = recipe_for(backbone, method, steps=steps, evaluate_every=steps)
    start = shared_start(given) or RANDOM
    jobs = [Job(t.task, t.splits, given[0].seed or 0, start, name="probe") for t in trained_on]
    trained = train_adaptations(backbone, jobs, recipe, encoding, method=method, options=options)
    seconds = (time.monotonic() - started) / len(jobs)
    return {t.task.name: _Probe(run.adaptation, seconds) for t, run in zip(trained_on, trained, strict=True)}


def shared_start(adaptations: Sequence[Adaptation]) -> Start | None:
    """What all started from, to the bit; None where they did not, it is not known, or was made by an encoder."""
    first = adaptations[0].initial
    if first is None or any(each.encoder for each in adaptations):
        return None
    shared = all(each.initial is not None and same_tensors(each.initial, first) for each in adaptations)
    return From(first, adaptations[0].origin.start) if shared else None


def _with_probes(
    backbone: Backbone,
    found: Recommendation,
    sources: Sequence[Adaptation],
    probes: Mapping[Method, _Probe],
) -> Recommendation:
    """Add what the probes say: the metrics of similarity, and overlap of activated neurons.

    Each source is held against the probe of its own method.
    """
    evidence: dict[str, list[Evidence]] = {name: [] for name in OF_PROBE}
    notes = []
    for method, probe in probes.items():
        own = [source for source in sources if source.method == method]
        which = "the probe" if len(probes) == 1 else f"the probe of {method}"
        steps = probe.adaptation.curve[-1].step
        if probe.adaptation.scores["validation"]["step"] == 0:
            notes.append(
                f"{which} learned nothing in {steps} steps, so indicators that need it are left out: raise --probe-steps"
            )
            continue
        for item in _of_probe(backbone, found, own, probe):
            evidence[item.indicator].append(item)
    for names, what in (
        (PROBE_METRICS, "vectors in front of the text"),
        (tuple(SIMILARITIES), "products B A"),
    ):
        without = [str(method) for method, probe in probes.items() if missing(names[0], [probe.adaptation])]
        if without and (names is PROBE_METRICS or len(without) < len(probes)):
            notes.append(f"without {', '.join(names)}, which compare {what}: {', '.join(without)}")
    joined = [_joined(items) for items in evidence.values() if items]
    overlaps = next((item.values for item in joined if item.indicator == "ON"), {})
    candidates = [replace(c, overlap=overlaps.get(c.source)) for c in found.candidates]
    return replace(
        found,
        candidates=in_order(candidates, found.rows),
        evidence=(*found.evidence, *joined),
        notes=(*found.notes, *notes),
    )


def _of_probe(
    backbone: Backbone, found: Recommendation, sources: Sequence[Adaptation], probe: _Probe
) -> list[Evidence]:
    """What each indicator says of sources of one method beside its probe; those that it does not have are left out."""
    name = "probe of " + found.task  # no source has a blank in its name
    group = Compared((replace(probe.adaptation, name=name), *sources), backbone=lambda: backbone)
    known = all(each.initial is not None for each in group.prompts)
    steps, seconds = probe.adaptation.curve[-1].step, probe.seconds
    evidence: list[Evidence] = []
    cost = f"a probe of {steps} steps on {found.rows} rows"
    for indicator in OF_PROBE:
        if missing(indicator, group.prompts) or (not known and indicator.endswith("-minus-initial")):
            continue
        started = time.monotonic()
        row = INDICATORS[indicator](group).loc[name].drop(name)
        if indicator == "ON" and evidence:
            cost = "the same probe"
        if indicator == "ON":
            cost = f"{cost}, and {len(group.prompts)} {called(sources)} forward once"
        evidence.append(Evidence(indicator, _floats(row), cost, seconds + time.monotonic() - started))
        cost, seconds = "the same probe", 0.0
    return evidence


def _joined(items: Sequence[Evidence]) -> Evidence:
    """What an indicator says of the sources of all methods."""
    values = {source: value for item in items for source, value in item.values.items()}
    cost = items[0].cost if len(items) == 1 else f"the same for each of {len(items)} methods"
    return Evidence(items[0].indicator, values, cost, sum(item.seconds for item in items))


def _floats(row: pd.Series) -> dict[str, float]:
    return {str(name): float(value) for name, value in row.items()}


# Measuring the advice --------------------------------------------------------------------------------------------


def indicator_tables(found: Sequence[Recommendation]) -> dict[str, pd.DataFrame]:
    """Every indicator as a table, rows sources, columns targets (NaN where it has no value), and the advice itself."""
    columns: dict[str, dict[str, Mapping[str, float]]] = {}
    for item in found:
        order = {c.source: -float(rank) for rank, c in enumerate(item.candidates)}
        columns.setdefault(ADVICE, {})[item.task] = order
        for evidence in item.evidence:
            columns.setdefault(evidence.indicator, {})[item.task] = evidence.values
    return {name: pd.DataFrame(table) for name, table in columns.items()}


def leave_one_out(
    found: Sequence[Recommendation], prompts: Sequence[Adaptation], transfer: pd.DataFrame
) -> dict[str, ChoiceSummary]:
    """What each indicator's first choice loses against the best source of a measured transfer matrix.

    `found` comes from `recommend(..., leave_own_out=True)` over the tasks of the prompts; the matrix has a row and a
    column a task, of any score. An indicator that some target lacks (a probe that learned nothing) is left out.
    """
    tasks = {p.name: p.task for p in prompts}
    if len(set(tasks.values())) < len(tasks):
        raise UserError("measuring the advice needs one prompt a task: give the prompts of one seed")
    targets = [item.task for item in found]
    summaries = {}
    for name, table in indicator_tables(found).items():
        if len(table.columns) < len(targets):
            continue
        square = table.rename(index=tasks).reindex(index=targets, columns=targets)
        summary = summarise(choose_sources(align(transfer.loc[:, targets], square, name)))
        if summary is not None:
            summaries[name] = summary
    return summaries
