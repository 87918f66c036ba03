"""Retrieval: the sources of a library that are most like a target, as the start of its training (SPoT, Vu et al. 2022).

What the target is like is read off a probe: an adaptation of the sources' method that was trained on the target's rows for a
few steps, from the sources' own start where they share one. Where every source has an embedding of one step (`train
--embed-at`, SPoT's early checkpoint) they are compared by these, and the probe has as many steps; else by what they are in
the end. `by=rows` asks no probe but the target's texts (transfers/nearest_rows.py). The `top` sources by similarity are
mixed, each with its similarity as weight, a_r = sim_r / sum sim. Sources of the target's own task are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.artifacts import find_adaptations, load_adaptation, method_of, read_record
from prompttransfer.adaptations.method import Method
from prompttransfer.adaptations.running import common_encoding, common_method
from prompttransfer.adaptations.starts import RANDOM, Mixture, Retrieve, mixture_of
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import Encoding
from prompttransfer.training.recipes import Recipe, probe_steps
from prompttransfer.training.train import Job, train_adaptations
from prompttransfer.transfers.indicators import INDICATORS, Compared, indicator_table, missing, usual
from prompttransfer.transfers.nearest_rows import BY as ROWS
from prompttransfer.transfers.nearest_rows import RowsOf, by_nearest_rows
from prompttransfer.transfers.recommendation import shared_start
from tasks.errors import UserError, unknown

USUAL = "C_average"
"""SPoT's similarity per token for prompts; their similarity of averages is `C_average-token`."""
PROBE = "probe of the target"
"""No source has a blank in its name."""
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Retrieved:
    """The sources that were chosen for one target, best first, with similarity and weight."""

    sources: tuple[Adaptation, ...]
    similarities: tuple[float, ...]
    weights: tuple[float, ...]
    start: Mixture
    probe_steps: int = 0
    """Steps of training that it took to know what the target is like."""
    source_steps: int = 0
    """Steps of training that the sources took which were ranked for it, as far as they say."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the sources."""
        return tuple(each.name for each in self.sources)

    def __str__(self) -> str:
        rows = zip(self.names, self.weights, self.similarities, strict=True)
        return ", ".join(f"{name} {weight:.2f} (similarity {value:.3f})" for name, weight, value in rows)


@dataclass(frozen=True)
class Library:
    """The sources of a folder, all of one method, backbone and layout."""

    start: Retrieve
    by: str
    sources: tuple[Adaptation, ...]
    """Each under a name that is its alone."""
    places: Mapping[str, Path]
    """Those names -> the folders."""

    def others(self, task: str) -> list[Adaptation]:
        """The sources of other tasks than `task`. Raises UserError where they are too few."""
        found = [source for source in self.sources if not source.knows(task)]
        if len(found) < self.start.top:
            raise UserError(
                f"{self.start}: {len(found)} sources are of other tasks than {task}, fewer than top={self.start.top}"
            )
        return found

    def chosen(self, task: str, similarities: Mapping[str, float], probe_steps: int = 0) -> Retrieved:
        """The `top` sources by their similarities to a task, and their mixture. Raises UserError where it is like none."""
        named = {source.name: source for source in self.others(task)}
        best = sorted(named, key=lambda name: -similarities[name])[: self.start.top]
        values = [similarities[name] for name in best]
        counted = [max(value, 0.0) for value in values]
        if not sum(counted) > 0:
            raise UserError(
                f"{self.start}: no source is like {task} by {self.by} (the best is {values[0]:.3f})"
            )
        weights = [value / sum(counted) for value in counted]
        sources = [named[name] for name in best]
        return Retrieved(
            tuple(replace(each, name=each.name.partition(":")[2]) for each in sources),
            tuple(values),
            tuple(weights),
            mixture_of(sources, weights, [str(self.places[name]) for name in best]),
            probe_steps,
            sum(map(taken, named.values())),
        )


def taken(source: Adaptation) -> int:
    """The steps that training a source took, as far as it says."""
    return source.curve[-1].step if source.curve else int(source.origin.recipe.get("steps", 0))


def check_retrieve(start: Retrieve) -> Method:
    """The method of a library's adaptations. Raises UserError for what can be told without loading a model.

    These are a library that is empty or of several methods, fewer sources than are to be mixed, and an unknown similarity.
    """
    if start.by and start.by not in (*INDICATORS, ROWS):
        raise unknown("indicator", start.by, (*INDICATORS, ROWS))
    if not start.folder.is_dir():
        raise UserError(f"{start}: there is no library at {start.folder}: train sources into a folder first")
    records = [read_record(folder) for folder in find_adaptations(start.folder)]
    if start.top > len(records):
        raise UserError(
            f"{start}: there are {len(records)} sources in {start.folder}, fewer than top={start.top}"
        )
    methods = {str(method_of(record)): method_of(record) for record in records}
    if len(methods) > 1:
        raise UserError(
            f"{start}: the sources are of several methods ({', '.join(methods)}): keep those of one in the library"
        )
    (method,) = methods.values()
    if start.top > 1 and not method.is_prompt:
        raise UserError(f"{start}: a mixture is of soft prompts, these are of {method}: use top=1")
    return method


def with_retrieved(
    backbone: Backbone,
    jobs: Sequence[Job],
    recipe: Recipe,
    encoding: Encoding,
    method: Method,
    *,
    rows_of: RowsOf | None = None,
    tell: Tell = lambda line: None,
) -> list[Job]:
    """`jobs` with what was retrieved as the start of those that ask for it; one probe a job, all of a library in one bank.

    `rows_of` gives the tasks of sources with rows, which `by=rows` needs.
    """
    found = list(jobs)
    for start in dict.fromkeys(job.start for job in jobs if isinstance(job.start, Retrieve)):
        places = [place for place, job in enumerate(jobs) if job.start == start]
        asked = [jobs[place] for place in places]
        chosen = retrieve(backbone, start, asked, recipe, encoding, method, rows_of=rows_of, tell=tell)
        for place, one in zip(places, chosen, strict=True):
            tell(f"retrieved for {jobs[place].called}: {one}")
            found[place] = replace(jobs[place], start=one.start)
    return found


def retrieve(
    backbone: Backbone,
    start: Retrieve,
    jobs: Sequence[Job],
    recipe: Recipe,
    encoding: Encoding,
    method: Method,
    *,
    given: Adaptation | None = None,
    rows_of: RowsOf | None = None,
    tell: Tell = lambda line: None,
) -> list[Retrieved]:
    """What a library has for each job. An adaptation of the target that is `given` stands for the probes.

    Raises what `check_retrieve` raises, and UserError for sources (or a `given` one) of another backbone, layout or method,
    or a job that none of them is like.
    """
    library = read_library(backbone, start, encoding, method, given)
    for job in jobs:
        library.others(job.task.name)
    tasks = {job.task.name for job in jobs}
    if own := [each.name.partition(":")[2] for each in library.sources if any(map(each.knows, tasks))]:
        tell(f"left out of the sources where the task is their own: {', '.join(own)}")
    if library.by == ROWS:
        return [_by_rows(backbone, library, job, rows_of, encoding) for job in jobs]
    compared, step, remark = as_embeddings(library.sources, given)
    if remark:
        tell(remark)
    if given is not None:
        probes, steps = (
            [replace(_embedding(given) if step else given, name=PROBE)] * len(jobs),
            step or taken(given),
        )
    else:
        steps = step or probe_steps(recipe.steps)
        probes = train_probes(backbone, library.sources, jobs, recipe, encoding, method, steps)
    found = []
    for job, probe in zip(jobs, probes, strict=True):
        others = [source for source in compared if not source.knows(job.task.name)]
        group = Compared((probe, *others), backbone=lambda: backbone)
        values = indicator_table(library.by, group).loc[PROBE].drop(PROBE)
        similarities = {str(name): float(value) for name, value in values.items()}
        found.append(library.chosen(job.task.name, similarities, steps))
    return found


def _by_rows(
    backbone: Backbone, library: Library, job: Job, rows_of: RowsOf | None, encoding: Encoding
) -> Retrieved:
    """What a library has for a job by the votes of its rows."""
    if rows_of is None:
        raise UserError(f"{library.start}: by=rows needs rows of the sources' tasks, and none are given here")
    others, task = library.others(job.task.name), job.task
    return library.chosen(
        task.name, by_nearest_rows(backbone, others, task, job.splits.train, rows_of, encoding)
    )


def read_library(
    backbone: Backbone, start: Retrieve, encoding: Encoding, method: Method, given: Adaptation | None = None
) -> Library:
    """The sources that a start names. Raises what `retrieve` raises for them and for a `given` adaptation."""
    check_retrieve(start)
    paths = find_adaptations(start.folder)
    sources = [
        replace(load_adaptation(path), name=f"{place}:{path.name}") for place, path in enumerate(paths)
    ]
    held = sources if given is None else [*sources, replace(given, name=PROBE)]
    common_encoding(backbone, held, encoding)
    if common_method(sources) != method:
        raise UserError(
            f"{start}: the sources are of {sources[0].method}, what is trained is {method}: give --method"
        )
    if given is not None and given.method != method:
        raise UserError(f"{start}: the sources are of {method}, {given.name!r} is of {given.method}")
    if encoding.layout != sources[0].layout:
        raise UserError(
            f"{start}: the sources were trained under layout {sources[0].layout!r}: use --layout {sources[0].layout}"
        )
    by = start.by or (USUAL if method.is_prompt else usual(sources)[0])
    if by != ROWS and (reason := missing(by, held)):
        raise UserError(f"{start}: {reason}")
    places = {source.name: path for source, path in zip(sources, paths, strict=True)}
    return Library(start, by, tuple(sources), places)


def as_embeddings(
    sources: Sequence[Adaptation], given: Adaptation | None = None
) -> tuple[list[Adaptation], int, str]:
    """What sources are compared by, the step that it is of (0 for their ends), and a remark where some are not like others.

    Those are their embeddings where all have one of one step, also what is `given` for the target.
    """
    held = sources if given is None else [*sources, given]
    steps = {each.embedded_at for each in held}
    step = next(iter(steps)) if len(steps) == 1 else None
    if step is not None:
        return [_embedding(each) for each in sources], step, ""
    kinds = sorted("none" if each is None else f"step {each}" for each in steps)
    remark = f"embeddings differ ({', '.join(kinds)}): sources are compared by what they are in the end"
    return list(sources), 0, remark if len(steps) > 1 else ""


def _embedding(adaptation: Adaptation) -> Adaptation:
    assert adaptation.embedding is not None
    return replace(adaptation, tensors=adaptation.embedding)


def train_probes(
    backbone: Backbone,
    sources: Sequence[Adaptation],
    jobs: Sequence[Job],
    recipe: Recipe,
    encoding: Encoding,
    method: Method,
    steps: int,
) -> list[Adaptation]:
    """What training on the rows of each job has come to in `steps` steps, whether it is better there or not."""
    short = replace(recipe, steps=steps, evaluate_every=max(1, steps), embed_at=steps, patience=0)
    begin = shared_start(sources) or RANDOM
    runs = train_adaptations(
        backbone, [replace(job, start=begin) for job in jobs], short, encoding, method=method
    )
    for run in runs:
        if run.failure is not None:
            raise UserError(f"the probe of the target went wrong: {run.failure}")
    return [
        replace(each if each.embedding is None else _embedding(each), name=PROBE)
        for each in (run.adaptation for run in runs)
    ]
