"""What can be wrong with a study of few rows (`shots`): its library, and what each system takes from it.

`few_row_mistakes` needs the file alone; `start_mistakes` asks every method on every backbone whether it can start from a
prompt at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prompttransfer.backbones.base import Backbone
from prompttransfer.study.library_starts import SHARED, LibraryStart, parse_library_start
from prompttransfer.study.plan.checks import candidates_on, find_any_task, method_on, task_for
from prompttransfer.study.plan.document import Document, Mistake, Path_
from prompttransfer.study.plan.spec import MethodEntry, Spec
from tasks.errors import UserError

Found = Iterator[tuple[Path_, str]]
"""Place in the file and what is wrong there."""


def few_row_mistakes(spec: Spec, document: Document, folder: Path) -> list[Mistake]:
    """Everything that the file alone tells."""
    checks = (_together, _library, _systems) if spec.shots else (_alone,)
    return [Mistake(document.line(path), text) for check in checks for path, text in check(spec, folder)]


def takes_library(entry: MethodEntry) -> bool:
    """Whether a method takes the library's prompts as they are, as its sources."""
    return str(entry.given.get("sources", "")).partition(":")[0] == "library"


def _alone(spec: Spec, folder: Path) -> Found:
    """Keys that mean something in a study of few rows only."""
    if spec.library is not None:
        yield ("library",), "a library is for targets of few rows: add `shots: [16, 64]`"
    for index, entry in enumerate(spec.methods):
        for key in ("start", "distil", "teachers"):
            if getattr(entry, key):
                advice = ", or write `initialiser`" if key == "start" else ""
                yield (
                    ("methods", index, key),
                    f"{key!r} is for systems on few rows: add `shots: [16, 64]`{advice}",
                )


def _together(spec: Spec, folder: Path) -> Found:
    """Parts that a study of few rows does not have."""
    other = {
        ("transfers", "zero-shot"): spec.transfers.zero_shot
        and "zero_shot" in spec.transfers.model_fields_set,
        ("transfers", "initialisation"): spec.transfers.initialisation,
        ("transfers", "calibrate"): spec.transfers.calibrate != "none",
        ("transfers", "in-context"): spec.transfers.in_context,
        ("projectors",): spec.projectors,
        ("indicators", "similarity"): spec.indicators.similarity,
        ("indicators", "neurons"): spec.indicators.neurons,
        ("indicators", "estimates"): spec.indicators.estimates,
    }
    for path, given in other.items():
        if given:
            yield (
                path,
                f"a study with `shots` compares systems on few rows: leave {path[-1]!r} to another study",
            )
    if spec.limit_train is not None and spec.library is None:
        yield (
            ("limit-train",),
            "`shots` says how many rows targets have: `limit-train` is for a library's tasks",
        )


def _library(spec: Spec, folder: Path) -> Found:
    if spec.library is None:
        return
    names = spec.library.tasks
    targets = {task for entry in spec.backbones for task in spec.tasks_of(entry)}
    for index, name in enumerate(names):
        place: Path_ = ("library", "tasks", index)
        if name in names[:index]:
            yield place, f"task {name!r} is given twice: keep one"
        elif name in targets:
            yield place, f"task {name!r} is a target of this study: a library is of other tasks"
        try:
            find_any_task(name, folder)
        except UserError as error:
            yield place, str(error)
    if spec.library.recipe.optimizer not in (None, "adamw", "adafactor"):
        yield (
            ("library", "recipe", "optimizer"),
            f"unknown optimizer {spec.library.recipe.optimizer!r}: adamw or adafactor",
        )


def _systems(spec: Spec, folder: Path) -> Found:
    called: list[str] = []
    for index, entry in enumerate(spec.methods):
        path: Path_ = ("methods", index)
        label = entry.label or entry.text
        if label in called:
            yield path, f"two systems are called {label!r}: give each a `label` of its own"
        called.append(label)
        if takes_library(entry) and spec.library is None:
            yield (*path, "sources"), "there is no library in this study: add `library: {tasks: [...]}`"
        yield from _start(path, entry, spec)
        yield from _distilled(path, entry, spec, folder)
        yield from _taught(path, entry, spec, folder)


def _distilled(path: Path_, entry: MethodEntry, spec: Spec, folder: Path) -> Found:
    """A teacher needs a library, answers that are label words, and where its similarity counts, one that is measured."""
    if entry.distil is None:
        return
    teacher = entry.model_copy(update={"start": entry.distil.start, "distil": None})
    yield from _start((*path, "distil"), teacher, spec)
    try:
        probes, follows = parse_library_start(entry.distil.start).probes, entry.method(1).has_gradients
    except UserError:
        return  # said already
    if not follows:
        yield (*path, "distil"), f"method {entry.name} follows no gradient, so a teacher tells it nothing"
    if entry.start is not None:
        yield (*path, "start"), "a student starts from scratch: write the start of its teacher under `distil`"
    if entry.distil.weight is None and not probes:
        yield (
            (*path, "distil"),
            f"start {entry.distil.start!r} measures no similarity to weigh its teacher by: give a `weight`, such as 0.01",
        )
    targets = dict.fromkeys(task for backbone in spec.backbones for task in spec.tasks_of(backbone))
    yield from _written((*path, "distil"), targets, folder)


def _taught(path: Path_, entry: MethodEntry, spec: Spec, folder: Path) -> Found:
    """Teachers are of tasks that are trained together, whose answers are label words."""
    if entry.teachers is None:
        return
    if entry.start != SHARED:
        yield (
            (*path, "teachers"),
            f"`teachers` teach a library's tasks that are trained together: add `start: {SHARED}`, or write `distil`",
        )
    if spec.library is not None:
        yield from _written((*path, "teachers"), spec.library.tasks, folder)


def _written(path: Path_, tasks: Iterable[str], folder: Path) -> Found:
    """Tasks that cannot be distilled, as their answers are written."""
    if written := [name for name in tasks if _generates(name, folder)]:
        yield (
            path,
            f"the answers of {', '.join(written)} are written, so there are no label words to distil: leave them out",
        )


def _generates(name: str, folder: Path) -> bool:
    try:
        return find_any_task(name, folder).generates
    except UserError:
        return False  # said already


def _start(path: Path_, entry: MethodEntry, spec: Spec) -> Found:
    if entry.start is None:
        return
    try:
        start = parse_library_start(entry.start)
        shares = entry.method(1).shares_among_tasks
    except UserError as error:
        yield (*path, "start"), str(error)
        return
    if spec.library is None:
        yield (*path, "start"), "there is no library in this study: add `library: {tasks: [...]}`"
    elif (start.top or 0) > len(spec.library.tasks):
        yield (
            (*path, "start"),
            f"start {entry.start!r}: the library has {len(spec.library.tasks)} tasks, fewer than top={start.top}",
        )
    if entry.initialiser is not None:
        yield (*path, "initialiser"), "a system has one start: keep `start` or `initialiser`"
    if start.how == SHARED and not shares:
        yield (
            (*path, "start"),
            f"method {entry.name} shares nothing among tasks: `start: {SHARED}` is for mpt",
        )


def start_mistakes(
    spec: Spec, document: Document, folder: Path, outline: Callable[[str], Backbone | None]
) -> list[Mistake]:
    """Methods that cannot start from a library's prompts on any of the backbones, and library tasks that these cannot do."""
    found: list[Mistake] = []
    for index, entry in enumerate(spec.methods):
        reasons = [
            reason
            for backbone in spec.backbones
            if (known := outline(backbone.name)) is not None
            and (reason := _without_start(entry, spec, known, backbone.name, folder))
        ]
        found += [Mistake(document.line(("methods", index, "start")), reason) for reason in reasons[:1]]
    return found


def _without_start(entry: MethodEntry, spec: Spec, backbone: Backbone, name: str, folder: Path) -> str:
    """Why a method does not start from prompts of the library's length; empty where it does, or need not."""
    import torch

    from prompttransfer.adaptations.adaptation import PROMPT_KEY
    from prompttransfer.adaptations.starts import From

    wanted = entry.start or (entry.distil.start if entry.distil else None)
    if wanted is None:
        return ""
    side = next(one for one in spec.backbones if one.name == name)
    family, width = backbone.family, backbone.state_width
    sources, _ = method_on(family, width, spec, side, spec.library_entry)
    vectors = torch.zeros(sources.reserved, backbone.width)
    task = task_for(side, spec.tasks_of(side)[0], folder)
    try:
        for one in candidates_on(family, width, spec, side, entry):
            one.method.started(backbone, task, From({PROMPT_KEY: vectors}, "a prompt of the library"), seed=0)
    except UserError as error:
        return f"method {entry.name} has no start {wanted!r}: {error}"
    return ""


def library_start_of(entry: MethodEntry) -> LibraryStart | None:
    """The start of a system from the library, where it has one."""
    return parse_library_start(entry.start) if entry.start is not None else None
