"""Retrieval: the sources of a library that are most like a target, as the start of its training (SPoT, Vu et al. 2022).

What the target is like is read off a probe: an adaptation of the sources' method that was trained on the target's rows for a
few steps (SPoT's early checkpoint), from the sources' own start where they share one. The `top` sources by similarity are
mixed, each with its similarity as weight, a_r = sim_r / sum sim. Sources of the target's own task are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.artifacts import find_adaptations, load_adaptation, read_record
from prompttransfer.adaptations.method import Method
from prompttransfer.adaptations.running import common_encoding, common_method
from prompttransfer.adaptations.starts import RANDOM, Mixture, Retrieve, mixture_of
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import Encoding
from prompttransfer.training.recipes import Recipe, probe_steps
from prompttransfer.training.train import Job, train_adaptations
from prompttransfer.transfers.indicators import INDICATORS, Compared, indicator_table, missing, usual
from prompttransfer.transfers.recommendation import shared_start
from tasks.errors import UserError, unknown

USUAL = "C_average"
"""SPoT's similarity per token for prompts; their similarity of averages is `average-token-cosine`."""
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Retrieved:
    """The sources that were chosen for one target, best first, with similarity and weight."""

    names: tuple[str, ...]
    similarities: tuple[float, ...]
    weights: tuple[float, ...]
    start: Mixture

    def __str__(self) -> str:
        rows = zip(self.names, self.weights, self.similarities, strict=True)
        return ", ".join(f"{name} {weight:.2f} (similarity {value:.3f})" for name, weight, value in rows)


def check_retrieve(start: Retrieve) -> Method:
    """The method of a library's adaptations. Raises UserError for what can be told without loading a model.

    These are a library that is empty or of several methods, fewer sources than are to be mixed, and an unknown similarity.
    """
    from prompttransfer.adaptations.artifacts import method_of

    if start.by and start.by not in INDICATORS:
        raise unknown("indicator", start.by, INDICATORS)
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
    tell: Tell = lambda line: None,
) -> list[Job]:
    """`jobs` with what was retrieved as the start of those that ask for it; one probe a job, all of a library in one bank."""
    found = list(jobs)
    for start in dict.fromkeys(job.start for job in jobs if isinstance(job.start, Retrieve)):
        places = [place for place, job in enumerate(jobs) if job.start == start]
        chosen = retrieve(backbone, start, [jobs[place] for place in places], recipe, encoding, method)
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
) -> list[Retrieved]:
    """What a library has for each job.

    Raises what `check_retrieve` raises, and UserError for sources of another backbone, layout or method, or a job that none
    of them is like.
    """
    check_retrieve(start)
    paths = find_adaptations(start.folder)
    sources = [
        replace(load_adaptation(path), name=f"{place}:{path.name}") for place, path in enumerate(paths)
    ]
    common_encoding(backbone, sources, encoding)
    if common_method(sources) != method:
        raise UserError(
            f"{start}: the sources are of {sources[0].method}, what is trained is {method}: give --method"
        )
    if encoding.layout != sources[0].layout:
        raise UserError(
            f"{start}: the sources were trained under layout {sources[0].layout!r}: use --layout {sources[0].layout}"
        )
    places = {source.name: path for source, path in zip(sources, paths, strict=True)}
    by = start.by or (USUAL if method.is_prompt else usual(sources)[0])
    if reason := missing(by, sources):
        raise UserError(f"{start}: {reason}")
    steps = probe_steps(recipe.steps)
    short = replace(recipe, steps=steps, evaluate_every=steps)
    begin = shared_start(sources) or RANDOM
    probes = train_adaptations(
        backbone, [replace(job, start=begin) for job in jobs], short, encoding, method=method
    )
    return [
        _chosen(backbone, start, by, sources, run.adaptation, job, {n: str(p) for n, p in places.items()})
        for job, run in zip(jobs, probes, strict=True)
    ]


def _chosen(
    backbone: Backbone,
    start: Retrieve,
    by: str,
    sources: Sequence[Adaptation],
    probe: Adaptation,
    job: Job,
    places: dict[str, str],
) -> Retrieved:
    """The `top` sources that are most like a probe, and their mixture."""
    others = [source for source in sources if source.task != job.task.name]
    if len(others) < start.top:
        raise UserError(
            f"{start}: {len(others)} sources are of other tasks than {job.task.name}, fewer than top={start.top}"
        )
    name = f"probe of {job.called}"  # no source has a blank in its name
    group = Compared((replace(probe, name=name), *others), backbone=lambda: backbone)
    values = indicator_table(by, group).loc[name].drop(name)
    best = values.sort_values(ascending=False, kind="stable").head(start.top)
    counted = best.clip(lower=0)
    if not counted.sum() > 0:
        raise UserError(
            f"{start}: no source is like {job.task.name} by {by} (the best is {best.iloc[0]:.3f})"
        )
    weights = [float(value) for value in counted / counted.sum()]
    named = {source.name: source for source in others}
    chosen = [named[str(index)] for index in best.index]
    said = [places[each.name] for each in chosen]
    return Retrieved(
        tuple(each.name.partition(":")[2] for each in chosen),
        tuple(float(value) for value in best),
        tuple(weights),
        mixture_of(chosen, weights, said),
    )
