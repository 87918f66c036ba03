"""What can be wrong with a study beyond its form: names that nothing answers to, parts that do not fit together.

`content_mistakes` needs the file alone; `backbone_mistakes` asks every backbone's tokenizer about the label words and
lengths of every task. Both return all they find, with lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompttransfer.adaptations.starts import check_start, folders_of
from prompttransfer.backbones.label_words import AGGREGATIONS
from prompttransfer.backbones.layouts import LAYOUTS, Encoding, find_layout
from prompttransfer.backbones.locating import EMBEDDED, check_name
from prompttransfer.study.library_starts import SHARED
from prompttransfer.study.methods import slug, text_of, tuned_by
from prompttransfer.study.plan.document import Document, Mistake, Path_
from prompttransfer.study.plan.spec import (
    PRECISIONS,
    SOURCES,
    BackboneEntry,
    Initialisation,
    MethodEntry,
    ProjectorEntry,
    Spec,
)
from tasks.catalog import find_task
from tasks.errors import UserError, unknown
from tasks.task import Task, with_words

if TYPE_CHECKING:
    from prompttransfer.adaptations.method import Method
    from prompttransfer.backbones.base import Backbone
    from prompttransfer.training.grids import Brought, Candidate
    from prompttransfer.training.recipes import Recipe

Found = Iterator[tuple[Path_, str]]
"""Place in the file and what is wrong there."""

START_NAMES = ("random", "vocabulary", "label-words", "text")
"""Initialisers of a study; one of its own prompts as initialisation is `transfers: initialisation`."""
KEPT_STARTS = ("from", "mixture", "retrieve")
"""Starts from adaptations that lie in folders."""


def content_mistakes(spec: Spec, document: Document, folder: Path) -> list[Mistake]:
    """Everything that the file alone tells."""
    checks: tuple[Callable[[Spec, Path], Found], ...] = (
        _names,
        _methods,
        _backbones,
        _transfers,
        _projectors,
        _indicators,
    )
    return [Mistake(document.line(path), text) for check in checks for path, text in check(spec, folder)]


def find_any_task(name: str, folder: Path) -> Task:
    """A task by name, or by the YAML file that describes it (relative to the study's file)."""
    if name.endswith((".yaml", ".yml")):
        from tasks.custom import read_task_file

        return read_task_file(folder / name)
    return find_task(name)


def backbone_place(name: str, folder: Path) -> str:
    """The name to load a backbone by: a folder beside the study's file goes before one elsewhere."""
    if name not in EMBEDDED and (folder / name).is_dir():
        return str(folder / name)
    return name


def _choice(path: Path_, what: str, value: str | None, known: Iterable[str]) -> Found:
    names = list(known)
    if value is not None and value not in names:
        yield path, str(unknown(what, value, names))


def _repeats(path: Path_, what: str, values: Sequence[object]) -> Found:
    for index, value in enumerate(values):
        if value in values[:index]:
            yield (*path, index), f"{what} {value!r} is given twice: keep one"


def _start(path: Path_, spec: str) -> Found:
    name, _, argument = spec.partition(":")
    if name == "prompt":
        yield (
            path,
            "a study starts prompts from its own by `transfers: {initialisation: ...}`, from others by from:PATH",
        )
    elif name in KEPT_STARTS:
        yield from _kept_start(path, spec)
    else:
        yield from _choice(path, "initialiser", name, (*START_NAMES, *KEPT_STARTS))
        if name == "text" and not argument:
            yield path, "initialiser 'text' needs an argument, as in text:the verdict is"


def _kept_start(path: Path_, spec: str) -> Found:
    try:
        check_start(spec)
    except UserError as error:
        yield path, str(error)
        return
    missing = next((folder for folder in folders_of(spec) if not folder.is_dir()), None)
    if missing is not None:
        yield path, f"initialiser {spec!r}: {missing} is no folder"


def _names(spec: Spec, folder: Path) -> Found:
    """Tasks, seeds and single words at the top of the file."""
    yield from _tasks(("tasks",), spec.tasks, folder)
    yield from _repeats(("seeds",), "seed", spec.seeds)
    yield from _choice(("layout",), "layout", spec.layout, LAYOUTS)
    yield from _choice(("aggregation",), "aggregation", spec.aggregation, AGGREGATIONS)
    yield from _choice(("recipe", "optimizer"), "optimizer", spec.recipe.optimizer, _optimizers())
    yield from _start(("initialiser",), spec.initialiser)
    if spec.precision == "auto":
        yield (
            ("precision",),
            "a study names its precision, so that every machine gives the same numbers: fp32 or bf16",
        )
    else:
        yield from _choice(("precision",), "precision", spec.precision, PRECISIONS)
    if spec.data is not None and not (folder / spec.data).is_dir():
        yield (
            ("data",),
            f"data folder {folder / spec.data} does not exist: it must hold <task>/train.jsonl and validation.jsonl",
        )


def _optimizers() -> Sequence[str]:
    return ("adamw", "adafactor")


def _tasks(path: Path_, names: Sequence[str], folder: Path) -> Found:
    yield from _repeats(path, "task", names)
    for index, name in enumerate(names):
        try:
            find_any_task(name, folder)
        except UserError as error:
            yield (*path, index), str(error)


def _methods(spec: Spec, folder: Path) -> Found:
    """Names and settings of methods, what they start from, and none twice."""
    found: list[tuple[str, int | None, tuple[str, ...]]] = []
    called: list[tuple[str, bool]] = []
    """Names, and whether the file gives them; those of one method in several lengths are told apart by these."""
    for index, entry in enumerate(spec.methods):
        path: Path_ = ("methods", index)
        wrong = list(_method(path, entry, spec))
        yield from wrong
        yield from _choice((*path, "recipe", "optimizer"), "optimizer", entry.recipe.optimizer, _optimizers())
        if wrong or spec.shots:  # in a study of few rows a method may stand several times, under labels
            continue
        tuned = tuned_by(entry.tune.settings) if entry.tune else ()
        same = text_of(entry.method(1)), entry.given.get("length", spec.recipe.length), tuned
        if same in found:
            yield path, f"method {same[0]!r} is given twice: keep one, or give them other settings"
        found.append(same)
        name, given = entry.label or ("" if tuned else same[0]), bool(entry.label)
        if given and not slug(name):
            yield (
                (*path, "label"),
                f"label {name!r} has no letter a to z and no digit for the names of its files: give one that has",
            )
        elif twin := next((own for own, other in called if slug(own) == slug(name) and (given or other)), ""):
            alike = (
                f"two methods are called {name!r}"
                if twin == name
                else f"{twin!r} and {name!r} are one name of files"
            )
            yield path, f"{alike}: give each a `label` of its own"
        called.append((name, given))


def _method(path: Path_, entry: MethodEntry, spec: Spec) -> Found:
    from prompttransfer.adaptations.methods import METHODS, make_method, parse_method

    if entry.name not in METHODS:
        try:
            parse_method(entry.name)
        except UserError as error:
            yield (*path, "name"), str(error)
        return
    settings = [field.name.replace("_", "-") for field in fields(METHODS[entry.name])]
    known = [*settings, *(name for name in MethodEntry.model_fields if name != "name")]
    sound = True
    for key, value in entry.given.items():
        if "_" in key and key.replace("_", "-") in entry.given:
            yield (*path, key), f"{key} and {key.replace('_', '-')} are one setting: keep one"
            sound = False
            continue
        if key.replace("_", "-") not in known:
            yield (*path, key), str(unknown(f"setting of method {entry.name}", key, known))
            sound = False
            continue
        try:
            make_method(entry.name, {key: value})
        except UserError as error:
            yield (*path, key), str(error)
            sound = False
    if sound and entry.method(1).shares and entry.start != SHARED:
        yield path, _sharing(entry.method(1))
    elif sound:
        yield from _method_starts(path, entry, spec)
        yield from _tune(path, entry, spec)


def _sharing(method: Method) -> str:
    """Why a method is none of a study's."""
    return (
        f"method {text_of(method)!r} shares what it learns among those who train together, and the prompts of a study "
        f"stand alone: train them with `prompttransfer train`"
        + (", or give it `start: shared` in a study with a library" * method.shares_among_tasks)
    )


def _tune(path: Path_, entry: MethodEntry, spec: Spec) -> Found:
    """Axes that the method has, values that it takes, and none that is given beside them."""
    from prompttransfer.training.grids import RECIPE_AXES, check_axes, texts_of

    if entry.tune is None:
        return
    place: Path_ = (*path, "tune")
    for axis in entry.tune.grid:
        if entry.recipe.overrides().get(axis.replace("-", "_")) is not None:
            yield (*path, "recipe", axis), f"{axis} is tuned: leave it out of `recipe`, or of `tune`"
    method = entry.method(1)
    if "lr" in entry.tune.grid and not method.has_gradients:
        yield place, f"method {entry.name} has no rate to tune: leave `lr` out of `tune`"
        return
    try:
        check_axes(entry.text, texts_of(entry.tune.grid), {}, "tune:")
    except UserError as error:
        yield place, str(error)
        return
    sharing = next((one for one in methods_of(entry) if one.shares), None)
    if sharing is not None and entry.start != SHARED:
        yield place, _sharing(sharing)
    start, own = spec.start_of(entry).partition(":")[0], [x for x in entry.tune.grid if x not in RECIPE_AXES]
    if start in KEPT_STARTS and own:
        yield (
            place,
            f"what starts from a folder has the settings of that: leave {', '.join(own)} out of `tune`",
        )


def _method_starts(path: Path_, entry: MethodEntry, spec: Spec) -> Found:
    """Words are what vectors start from; other methods have their own random start alone."""
    from prompttransfer.adaptations.methods.prompt import PromptTuning

    if entry.initialiser is not None:
        yield from _start((*path, "initialiser"), entry.initialiser)
    method = entry.method(1)
    try:
        for each in methods_of(entry):
            each.check_complete()
    except UserError as error:
        yield path, str(error)
    if isinstance(method, PromptTuning):
        return
    advice = "give it `initialiser: random`"
    tuned = spec.transfers.initialisation
    given = {(*path, "initialiser") if entry.initialiser else path: (spec.start_of(entry), advice)}
    if tuned is not None:
        advice = "run it in a study of its own, or leave `scratch` out"
        given["transfers", "initialisation", "scratch"] = (tuned.scratch, advice)
    for place, (start, advice) in given.items():
        if start.partition(":")[0] in START_NAMES and start != "random":
            yield place, f"method {entry.name} has no start {start!r}, only 'random': {advice}"


def methods_of(entry: MethodEntry) -> list[Method]:
    """The method with each of the settings that are tried. Raises UserError for wrong ones."""
    from prompttransfer.training.grids import PLAIN, candidates_from, texts_of

    grid = texts_of(entry.tune.grid) if entry.tune else {}
    return [one.method for one in candidates_from(entry.text, replace(PLAIN, length=1), grid)]


def has_vectors(method: Method) -> bool:
    """Whether what is kept is a soft prompt, however it was found: vectors in front of the text, as many for every task."""
    return method.is_prompt and method.reserved > 0


def _without_vectors(spec: Spec) -> str:
    """The names of the study's methods where none of them has vectors; empty where one has, or is wrong."""
    try:
        if any(has_vectors(entry.method(1)) for entry in spec.methods):
            return ""
    except UserError:
        return ""
    return ", ".join(entry.name for entry in spec.methods)


def _backbones(spec: Spec, folder: Path) -> Found:
    yield from _repeats(("backbones",), "backbone", [entry.name for entry in spec.backbones])
    for index, entry in enumerate(spec.backbones):
        path = ("backbones", index)
        try:
            check_name(backbone_place(entry.name, folder))
        except UserError as error:
            yield (*path, "name"), str(error)
        yield from _choice((*path, "layout"), "layout", entry.layout, LAYOUTS)
        yield from _choice((*path, "recipe", "optimizer"), "optimizer", entry.recipe.optimizer, _optimizers())
        for task, own in entry.recipe.per_task.items():
            place: Path_ = (*path, "recipe", "per-task", task)
            yield from _choice(place, "task of this backbone", task, spec.tasks_of(entry))
            yield from _choice((*place, "optimizer"), "optimizer", own.optimizer, _optimizers())
        if entry.tasks is not None:
            yield from _tasks((*path, "tasks"), entry.tasks, folder)
        labels = {
            label
            for name in _known(spec.tasks_of(entry), folder)
            for label in find_any_task(name, folder).labels
        }
        for label in entry.label_words:
            yield from _choice((*path, "label-words", label), "label", label, labels)
    labels_of = [label_of(entry.name, folder) for entry in spec.backbones]
    for index, name in enumerate(labels_of):
        if name in labels_of[:index] and spec.backbones[index].name not in [
            e.name for e in spec.backbones[:index]
        ]:
            yield ("backbones", index, "name"), f"two backbones are called {name!r}: rename one folder"


def label_of(name: str, folder: Path) -> str:
    """How a study calls a backbone: its name, or the last part of a folder's path, the same on every machine."""
    place = backbone_place(name, folder)
    return Path(place).absolute().name if name not in EMBEDDED and Path(place).is_dir() else name


def _known(names: Iterable[str], folder: Path) -> list[str]:
    known = []
    for name in names:
        try:
            find_any_task(name, folder)
        except UserError:
            continue
        known.append(name)
    return known


def _everywhere(spec: Spec) -> list[str]:
    return list(dict.fromkeys(task for entry in spec.backbones for task in spec.tasks_of(entry)))


def _transfers(spec: Spec, folder: Path) -> Found:
    given = spec.transfers.initialisation
    path = ("transfers", "initialisation")
    if given is None:
        return
    yield from _choice((*path, "optimizer"), "optimizer", given.optimizer, _optimizers())
    yield from _start((*path, "scratch"), given.scratch)
    if isinstance(given.sources, str):
        yield from _choice((*path, "sources"), "choice of sources", given.sources, SOURCES)
        return
    yield from _chosen((*path, "sources"), given.sources, _everywhere(spec))


def _chosen(path: Path_, sources: Mapping[str, Sequence[str]], tasks: Sequence[str]) -> Found:
    for target, names in sources.items():
        yield from _choice((*path, target), "target task of this study", target, tasks)
        for source in names:
            yield from _choice((*path, target), "source task of this study", source, tasks)
            if source == target:
                yield (*path, target), f"task {target!r} is its own source: name another"


def _projectors(spec: Spec, folder: Path) -> Found:
    from projectors.architectures import ACTIVATIONS, ARCHITECTURES
    from projectors.fitting import DISTANCES
    from projectors.methods import METHODS, STARTS

    if spec.projectors and (names := _without_vectors(spec)):
        yield (
            ("projectors",),
            f"a projector maps soft prompts, and no method here has vectors ({names}): add prompt, or leave this out",
        )
    for index, entry in enumerate(spec.projectors):
        path = ("projectors", index)
        sides = {backbone.name: backbone for backbone in spec.backbones}
        for key, side in (("source", entry.source), ("target", entry.target)):
            yield from _choice((*path, key), "backbone of this study", side, sides)
        if entry.source == entry.target:
            yield (*path, "target"), f"a projector joins two backbones, both are {entry.source!r}"
        yield from _choice((*path, "method"), "projector method", entry.method, METHODS)
        yield from _choice((*path, "architecture"), "architecture", entry.architecture, ARCHITECTURES)
        yield from _choice((*path, "activation"), "activation", entry.activation, ACTIVATIONS)
        yield from _choice((*path, "distance"), "distance", entry.distance, DISTANCES)
        yield from _choice((*path, "start"), "start", entry.start, STARTS)
        if entry.source in sides and entry.target in sides:
            yield from _projected_tasks(path, entry, spec, sides)
    yield from _repeats(("projectors",), "projector", [entry.model_dump_json() for entry in spec.projectors])


def _projected_tasks(
    path: Path_, entry: ProjectorEntry, spec: Spec, names: Mapping[str, BackboneEntry]
) -> Found:
    source, target = spec.tasks_of(names[entry.source]), spec.tasks_of(names[entry.target])
    both = [task for task in source if task in target]
    for key, tasks in (("fitting", entry.fitting), ("unseen", entry.unseen)):
        for place, task in enumerate(tasks):
            yield from _choice(
                (*path, key, place), f"task of both {entry.source} and {entry.target}", task, both
            )
    for place, task in enumerate(entry.unseen):
        if task in entry.fitting:
            yield (*path, "unseen", place), f"task {task!r} is a fitting task: it is not unseen"
    tuned = entry.initialisation
    for place, task in enumerate((tuned.tasks or []) if tuned else []):
        known = [*entry.fitting, *entry.unseen]
        yield from _choice((*path, "initialisation", "tasks", place), "task of this projector", task, known)


def _indicators(spec: Spec, folder: Path) -> Found:
    from analysis.low_rank import SIMILARITIES as PRODUCTS
    from analysis.neurons import OVERLAPS, RULES
    from analysis.prefixes import SIMILARITIES as PREFIXES
    from analysis.similarity import INDICATORS
    from prompttransfer.transfers.indicators import OF_ROWS

    of_vectors = all(name not in {**PRODUCTS, **PREFIXES} for name in spec.indicators.similarity)
    if spec.indicators.similarity and of_vectors and (names := _without_vectors(spec)):
        yield (
            ("indicators", "similarity"),
            f"similarity is of soft prompts, and no method here has vectors ({names}): compare by neurons: [ON]",
        )
    for index, name in enumerate(spec.indicators.similarity):
        known = [*INDICATORS, *PRODUCTS, *PREFIXES]
        yield from _choice(("indicators", "similarity", index), "similarity metric", name, known)
    if spec.indicators.estimates is not None:
        for index, name in enumerate(spec.indicators.estimates.measures):
            place: Path_ = ("indicators", "estimates", "measures", index)
            yield from _choice(place, "indicator of labelled rows", name, OF_ROWS)
    neurons = spec.indicators.neurons
    if neurons is not None:
        for index, name in enumerate(neurons.measures):
            yield from _choice(
                ("indicators", "neurons", "measures", index), "overlap of neurons", name, OVERLAPS
            )
        yield from _choice(("indicators", "neurons", "rule"), "rule for active neurons", neurons.rule, RULES)


# With the backbones ----------------------------------------------------------------------------------------------


def task_for(entry: BackboneEntry, name: str, folder: Path) -> Task:
    """A task with the backbone's own label words on it."""
    task = find_any_task(name, folder)
    words = {label: word for label, word in entry.label_words.items() if label in task.labels}
    return with_words(task, words) if words else task


def backbone_mistakes(
    spec: Spec, document: Document, folder: Path, outline: Callable[[str], Backbone | None]
) -> list[Mistake]:
    """Label words, lengths and kinds of every task on every backbone under every method; methods that none takes.

    `outline` gives a backbone without weights. One that cannot be had now (`None`) is passed over; who asks says so.
    """
    found: list[Mistake] = []
    refused: list[list[str]] = [[] for _ in spec.methods]
    for index, entry in enumerate(spec.backbones):
        backbone = outline(entry.name)
        if backbone is None:
            continue
        place = find_layout_mistake(backbone, entry.layout or spec.layout)
        if place is not None:
            key: Path_ = ("backbones", index, "layout") if entry.layout else ("layout",)
            found.append(Mistake(document.line(key), place))
            continue
        found += _window_mistakes(spec, document, backbone)
        where: Path_ = ("backbones", index, "tasks") if entry.tasks is not None else ("tasks",)
        for method, reasons in zip(spec.methods, refused, strict=True):
            tried = [
                one.method
                for one in candidates_on(backbone.family, backbone.state_width, spec, entry, method)
            ]
            chosen = tried[0]
            tasks = {name: task_for(entry, name, folder) for name in spec.tasks_of(entry)}
            without = {name: why_not(tried, backbone, task) for name, task in tasks.items()}
            if tasks and all(without.values()):
                reasons.append(next(iter(without.values())))
                continue
            for position, name in enumerate(tasks):
                if without[name]:
                    continue
                line = document.line((*where, position))
                found += [
                    Mistake(line, text)
                    for text in _task_mistakes(spec, entry, backbone, name, folder, chosen)
                ]
        for position, name in enumerate(spec.library.tasks if spec.library else ()):
            chosen, _ = method_on(backbone.family, backbone.state_width, spec, entry, spec.library_entry)
            found += [
                Mistake(document.line(("library", "tasks", position)), text)
                for text in _task_mistakes(spec, entry, backbone, name, folder, chosen)
            ]
    for index, reasons in enumerate(refused):
        if len(reasons) == len(spec.backbones):
            found += [Mistake(document.line(("methods", index)), reason) for reason in reasons]
    return found


def _task_mistakes(
    spec: Spec, entry: BackboneEntry, backbone: Backbone, name: str, folder: Path, method: Method
) -> Iterator[str]:
    encoding = Encoding(
        entry.layout or spec.layout, entry.max_length or spec.max_length, spec.aggregation, entry.template
    )
    try:
        encoding.place(backbone.family)
        task = task_for(entry, name, folder)
        backbone.check_task(task)
        backbone.answers(task, encoding)
        backbone.text_budget(task, encoding, reserved=method.reserved)
    except UserError as error:
        yield str(error)


def method_on(
    family: str, width: int, spec: Spec, entry: BackboneEntry, method: MethodEntry, task: str | None = None
) -> tuple[Method, Recipe]:
    """A method of the study on a backbone of that family and width, with its recipe there, or that of one task."""
    from prompttransfer.training.recipes import method_and_recipe

    return method_and_recipe(family, width, method.text, **spec.recipe_of(entry, task, method))


def candidates_on(
    family: str,
    width: int,
    spec: Spec,
    entry: BackboneEntry,
    method: MethodEntry,
    task: str | None = None,
    own: Mapping[str, Any] = {},
) -> list[Candidate]:
    """All that is tried for a method on a backbone, the one with most positions in front of the text first; as a rule one.

    `own` are values of the recipe that go before all others: what is given there is not tried.
    """
    from prompttransfer.training.grids import candidates_of, texts_of

    tuned = texts_of(method.tune.grid) if method.tune else {}
    grid = {axis: values for axis, values in tuned.items() if axis.replace("-", "_") not in own}
    swept = {axis.replace("-", "_") for axis in grid}
    known = {**spec.recipe_of(entry, task, method), **own}
    given = {name: value for name, value in known.items() if name not in swept}
    found = candidates_of(family, width, method.text, grid, given)
    return sorted(found, key=lambda one: -one.method.reserved)


def tried_on(
    family: str,
    width: int,
    spec: Spec,
    entry: BackboneEntry,
    method: MethodEntry,
    task: str | None = None,
    own: Mapping[str, Any] = {},
) -> tuple[Recipe, Brought]:
    """The recipe of the first of `candidates_on`, and what other optimizers bring: all others follow from both."""
    from prompttransfer.training.grids import brought_by

    found = candidates_on(family, width, spec, entry, method, task, own)
    return found[0].recipe, brought_by(found)


def why_not(methods: Iterable[Method], backbone: Backbone, task: Task) -> str:
    """Why a backbone cannot have one of these for a task; empty where it can have all."""
    from prompttransfer.adaptations.heads import check_head

    try:
        for method in dict.fromkeys(methods):
            check_head(method, task)
            method.outline(backbone, task)
    except UserError as error:
        return str(error)
    return ""


def barred(method: Method, backbone: Backbone, tasks: Mapping[str, Task]) -> dict[tuple[str, str], str]:
    """(source, target) -> why what was learned on the one cannot be used on the other (`Method.check_cell`)."""
    from prompttransfer.adaptations.method import Method as Base

    found: dict[tuple[str, str], str] = {}
    if type(method).check_cell is Base.check_cell:
        return found
    for source, task in tasks.items():
        tensors = method.outline(backbone, task).tensors()
        for target, other in tasks.items():
            try:
                method.check_cell(tensors, other)
            except UserError as error:
                found[source, target] = str(error)
    return found


def other_heads(method: Method, tasks: Mapping[str, Task]) -> dict[tuple[str, str], str]:
    """(source, target) -> why what was trained on the one cannot answer the other unchanged, for want of its head."""
    from prompttransfer.adaptations.heads import Classes, mismatch, needs_head

    return {
        (source, target): reason
        for source, task in tasks.items()
        for target, other in tasks.items()
        if (reason := mismatch(method, Classes.of(task) if needs_head(method, task) else None, other))
    }


def _window_mistakes(spec: Spec, document: Document, backbone: Backbone) -> list[Mistake]:
    window = spec.indicators.neurons.window if spec.indicators.neurons else None
    layers = layers_of(backbone)
    if window is None or window <= layers:
        return []
    text = (
        f"a window of {window} layers does not fit {backbone.name}, which has {layers}: choose 1 to {layers}"
    )
    return [Mistake(document.line(("indicators", "neurons", "window")), text)]


def layers_of(backbone: Backbone) -> int:
    """Layers whose neurons are read: those of the decoder, where there is one."""
    config = backbone.model.config
    return int(getattr(config, "num_decoder_layers", None) or config.num_hidden_layers)


def find_layout_mistake(backbone: Backbone, layout: str) -> str | None:
    """Why a layout is not for this backbone; None where it is."""
    try:
        find_layout(layout, backbone.family)
    except UserError as error:
        return str(error)
    return None


def sources_of(
    given: Initialisation, target: str, tasks: Sequence[str], types: Mapping[str, str]
) -> list[str]:
    """The source tasks that a target is trained from, in the order of the study's tasks."""
    others = [task for task in tasks if task != target]
    if isinstance(given.sources, dict):
        return [task for task in others if task in given.sources.get(target, ())]
    if given.sources == "same-type":
        return [task for task in others if types[task] == types[target]]
    return others
