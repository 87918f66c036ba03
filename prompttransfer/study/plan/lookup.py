"""Facts: what a plan must know of backbones and rows before anything runs.

A cell's id holds the revision of its backbone and a digest of the rows that it uses, so both are looked up when a
study is planned; nothing heavy is loaded for it: a backbone is an outline without weights. Where the hub is out of
reach, sizes that are widely known stand in, so that a cost can be told; such a plan says so and cannot be run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompttransfer.backbones.layouts import Encoding, find_layout
from prompttransfer.study.methods import PROMPT, Use, called, labels_of, text_of, tuned_by
from prompttransfer.study.plan.checks import (
    backbone_mistakes,
    backbone_place,
    barred,
    candidates_on,
    has_vectors,
    label_of,
    layers_of,
    other_heads,
    task_for,
    why_not,
)
from prompttransfer.study.plan.document import Document, Mistake
from prompttransfer.study.plan.few_row_checks import start_mistakes
from prompttransfer.study.plan.reading import StudyFile
from prompttransfer.study.plan.spec import BackboneEntry, MethodEntry, Spec
from tasks.errors import MachineError
from tasks.loading import Splits, load_seeded, load_splits, validation_size
from tasks.rows import digest_rows
from tasks.task import Example, Task

if TYPE_CHECKING:
    from prompttransfer.adaptations.method import Method
    from prompttransfer.backbones.base import Backbone
    from prompttransfer.training.grids import Candidate
    from prompttransfer.training.recipes import Recipe

SAMPLE = 100
"""Rows that are tokenised to learn how long the texts of a task are."""


@dataclass(frozen=True)
class FewRows:
    """The labelled rows that one seed draws of a task."""

    train: int
    validation: int
    learned: str
    """Digest of both."""


@dataclass(frozen=True)
class RowFacts:
    """The rows of one task: how many, and digests that change with any of them."""

    train: int
    validation: int
    test: int
    learned: str
    """Digest of the training and validation rows."""
    tested: str
    """Digest of the test rows."""
    certain: bool = True
    """False where the rows could not be had and the numbers are what is widely known."""
    few: Mapping[tuple[int, int], FewRows] = field(default_factory=dict)
    """(shots, seed) -> the rows of a target of a study of few rows."""


@dataclass(frozen=True)
class TaskFacts:
    """One task on one backbone."""

    task: Task
    rows: RowFacts
    words: Mapping[str, str]
    budget: int
    """Text tokens kept."""
    tokens: float
    """Mean text tokens of a row."""

    def few(self, shots: int, seed: int) -> TaskFacts:
        """The same with the few rows that a seed draws."""
        rows = self.rows.few[shots, seed]
        few = replace(self.rows, train=rows.train, validation=rows.validation, learned=rows.learned)
        return replace(self, rows=few)


@dataclass(frozen=True)
class MethodFacts:
    """One method on one backbone."""

    label: str
    """How the study and its results call it (study/methods.py)."""
    text: str
    """What names it in cells: as `--method` takes it, without its length."""
    start: str
    """What its members start from."""
    recipe: Recipe
    told: str
    """The recipe in words, and those of tasks that have their own."""
    length: int
    """Vectors in front of the text or the like; 0 for a method without."""
    reserved: int
    """Positions in front of the text."""
    values: int
    """Numbers that a member trains."""
    vectors: bool
    """Whether its members are soft prompts."""
    trains: bool = True
    """Whether anything of it is trained."""
    lacks: Mapping[str, str] = field(default_factory=dict)
    """Indicator of the study that its members have no value of -> what that asks for."""
    unread: str = ""
    """Why its neurons cannot be read without a text, if the study asks for them."""
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    """Name in the study file -> the recipe of a task that has one of its own."""
    tasks: Mapping[str, TaskFacts] = field(default_factory=dict)
    """Name in the study file -> facts; what the method reserves is taken from the length of texts."""
    refused: str = ""
    """Why the backbone cannot have it."""
    refused_tasks: Mapping[str, str] = field(default_factory=dict)
    """Name in the study file of a task that it is not for -> why; such a task is not among `tasks`."""
    barred: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(source, target) -> why what was learned on the one cannot be used on the other."""
    other_heads: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(source, target) -> why the source cannot answer the target unchanged, though it can be trained on from there."""
    tune: Mapping[str, Any] = field(default_factory=dict)
    """What is tried for each member, as its cell says; empty where nothing is."""
    beside: int = 1
    """Members of one bank that a member is chosen among."""
    one_shape: bool = True
    """Whether all its members have tensors of one shape, whatever is chosen."""

    @property
    def tuned(self) -> tuple[str, ...]:
        """`Use.tuned`."""
        return tuned_by(self.tune)


@dataclass(frozen=True)
class BackboneFacts:
    """One backbone of a study, with its layout and the methods on it, one of which is looked at."""

    label: str
    """How the study and its results call it."""
    place: str
    """How this machine loads it."""
    revision: str
    family: str
    width: int
    layers: int
    neurons: int
    parameters: int
    embedded: int
    """Parameters that are looked up, not multiplied with."""
    special: int
    """Special tokens of a row."""
    layout: str
    template: str | None = None
    """What it reads in place of each task's own; decoders only."""
    methods: tuple[MethodFacts, ...] = ()
    """In the order of the study's file."""
    chosen: int = 0
    """Which of them is looked at."""
    states: int = 0
    """Width of its layers where that is not the one of word embeddings, else 0."""
    certain: bool = True
    library: MethodFacts | None = None
    """The prompts of source tasks, in a study that has such a library."""

    @property
    def state_width(self) -> int:
        """Width of its layers, which recipes go by."""
        return self.states or self.width

    def under(self, chosen: int) -> BackboneFacts:
        """The same, looking at another method."""
        return replace(self, chosen=chosen)

    @property
    def method(self) -> MethodFacts:
        """The method that is looked at."""
        return self.methods[self.chosen]

    @property
    def called(self) -> str:
        """Backbone and method, for labels."""
        return called(self.label, self.method.label)

    @property
    def recipe(self) -> Recipe:
        """The method's recipe."""
        return self.method.recipe

    @property
    def tasks(self) -> Mapping[str, TaskFacts]:
        """Name in the study file -> facts."""
        return self.method.tasks

    @property
    def all_tasks(self) -> Mapping[str, TaskFacts]:
        """The same with the tasks of the library."""
        return {**(self.library.tasks if self.library else {}), **self.tasks}

    def recipe_of(self, task: str) -> Recipe:
        """What a task (its name in the study file) is trained with."""
        return self.method.recipes.get(task, self.recipe)


@dataclass(frozen=True)
class Facts:
    """What a plan is made from."""

    backbones: Mapping[str, BackboneFacts]
    """Name in the study file -> facts."""
    notes: tuple[str, ...] = ()
    """What could not be looked up."""

    @property
    def certain(self) -> bool:
        """Whether everything was looked up, so that the plan can be run."""
        return not self.notes


def gather_facts(study: StudyFile, *, guess: bool = False) -> Facts:
    """Look everything up, and check label words and lengths of every task on every backbone.

    Raises one UserError with all mistakes. What is out of reach raises MachineError, or with `guess` is a note and
    stands in with what is known of it.
    """
    spec, folder = study.spec, study.folder
    notes: list[str] = []
    away: dict[str, str] = {}
    outlines = {entry.name: _outline(entry, folder, notes, guess) for entry in spec.backbones}
    wrong = backbone_mistakes(spec, study.document, folder, outlines.get)
    study.document.raise_all(wrong + start_mistakes(spec, study.document, folder, outlines.get))
    rows: dict[str, RowFacts] = {}
    texts: dict[str, Sequence[Example]] = {}
    sources = spec.library.tasks if spec.library else []
    for entry in spec.backbones:
        for name in [*spec.tasks_of(entry), *sources]:
            if name not in rows:
                task = task_for(entry, name, folder)
                rows[name], texts[name] = _rows(task, spec, folder, away, guess)
                if spec.shots and name not in sources:
                    rows[name] = with_few_rows(rows[name], task, spec, data_folder(spec, folder))
    study.document.raise_all(_lacking_rows(spec, study.document, rows))
    found = {
        entry.name: _backbone_facts(spec, entry, folder, outlines[entry.name], rows, texts)
        for entry in spec.backbones
    }
    if away:
        said = f"rows of {', '.join(away)} are out of reach, their numbers are those widely known"
        notes.append(f"{said}: {next(iter(away.values()))}")
    return Facts(_labelled(found, [method.label for method in spec.methods]), tuple(dict.fromkeys(notes)))


def _labelled(found: Mapping[str, BackboneFacts], called: Sequence[str]) -> dict[str, BackboneFacts]:
    """The same with what methods are called, which is the same on all backbones; `called` is what the file calls them."""
    uses = {
        (name, index): Use(side.label, method.text, method.length, method.tuned)
        for name, side in found.items()
        for index, method in enumerate(side.methods)
    }
    labels = labels_of(uses.values())
    return {
        name: replace(
            side,
            methods=tuple(
                replace(method, label=given or labels[uses[name, index]])
                for index, (method, given) in enumerate(zip(side.methods, called, strict=True))
            ),
        )
        for name, side in found.items()
    }


def data_folder(spec: Spec, folder: Path) -> Path | None:
    """The study's data folder, relative to its file."""
    return folder / spec.data if spec.data is not None else None


@lru_cache(maxsize=64)
def load_rows(
    task: Task, data: Path | None, limit_train: int | None, limit_test: int | None, seed: int = 0
) -> tuple[Splits, str, str]:
    """The splits of a task with the digests of what is learned from and of what is tested on; kept for the process."""
    splits = load_splits(task, data=data, limit_train=limit_train, limit_test=limit_test, seed=seed)
    return splits, digest_rows((splits.train, splits.validation)), digest_rows((splits.test,))


def with_few_rows(rows: RowFacts, task: Task, spec: Spec, data: Path | None) -> RowFacts:
    """Facts of a target's rows with those that each seed draws; where rows are out of reach, only how many."""
    few: dict[tuple[int, int], FewRows] = {}
    for shots in spec.shots:
        if not rows.certain:
            size = validation_size(rows.train + rows.validation, shots)
            few |= {(shots, seed): FewRows(shots, size, "unknown") for seed in spec.seeds}
            continue
        for seed, splits in load_seeded(task, spec.seeds, data=data, limit_train=shots, limit_test=1).items():
            counts = len(splits.train), len(splits.validation)
            few[shots, seed] = FewRows(*counts, digest_rows((splits.train, splits.validation)))
    return replace(rows, few=few)


def _lacking_rows(spec: Spec, document: Document, rows: Mapping[str, RowFacts]) -> list[Mistake]:
    """Numbers of few rows that a target does not have, and of rows in context."""
    shown = spec.transfers.in_context or 0
    return [
        Mistake(
            document.line(("transfers", "in-context")),
            f"{shown} rows of {name} in context: it has {facts.train} training rows: ask for fewer",
        )
        for name, facts in rows.items()
        if facts.certain and facts.train < shown
    ] + [
        Mistake(
            document.line(("shots", place)),
            f"{shots} rows of {name}: it has {min(had)} beside its validation rows: ask for fewer",
        )
        for place, shots in enumerate(spec.shots)
        for name, facts in rows.items()
        if (had := [one.train for (count, _), one in facts.few.items() if count == shots])
        and min(had) < shots
    ]


def _rows(
    task: Task, spec: Spec, folder: Path, away: dict[str, str], guess: bool
) -> tuple[RowFacts, Sequence[Example]]:
    try:
        splits, learned, tested = load_rows(
            task, data_folder(spec, folder), spec.limit_train, spec.limit_test
        )
    except MachineError as error:
        if not guess:
            raise
        away[task.name] = _short(error)
        train, test = KNOWN_ROWS.get(task.name, (10_000, 1_000))
        count = [
            min(n, limit) if limit else n for n, limit in ((train, spec.limit_train), (test, spec.limit_test))
        ]
        validated = validation_size(train, spec.limit_train)
        return RowFacts(count[0], validated, count[1], "unknown", "unknown", certain=False), ()
    counts = len(splits.train), len(splits.validation), len(splits.test)
    return RowFacts(*counts, learned, tested), splits.train[:SAMPLE]


def _outline(entry: BackboneEntry, folder: Path, notes: list[str], guess: bool) -> Backbone | None:
    from prompttransfer.backbones.loading import outline_backbone

    try:
        at = {"revision": entry.revision} if entry.revision else {}
        outline = outline_backbone(backbone_place(entry.name, folder), **at)
        outline.name = entry.name  # mistakes name it as the file does
        return outline
    except MachineError as error:
        if not guess or entry.name not in KNOWN_BACKBONES:
            raise
        notes.append(
            f"backbone {entry.name} is out of reach, label words and lengths are not checked: {_short(error)}"
        )
        return None


def _short(error: Exception) -> str:
    """What happened, without the advice on other ways."""
    return str(error).split(": connect, or ")[0]


def _backbone_facts(
    spec: Spec,
    entry: BackboneEntry,
    folder: Path,
    outline: Backbone | None,
    rows: Mapping[str, RowFacts],
    texts: Mapping[str, Sequence[Example]],
) -> BackboneFacts:
    if outline is None:
        bare = _known(entry.name, spec, entry, folder)
    else:
        bare = BackboneFacts(
            label=label_of(entry.name, folder),
            place=backbone_place(entry.name, folder),
            revision=outline.revision,
            family=outline.family,
            width=outline.width,
            states=outline.state_width if outline.state_width != outline.width else 0,
            layers=layers_of(outline),
            neurons=outline.neurons,
            parameters=sum(p.numel() for p in outline.model.parameters()),
            embedded=outline.word_embeddings.weight.numel(),
            special=outline.special_tokens,
            layout=entry.layout or spec.layout,
            template=entry.template,
        )
    tasks = {name: task_for(entry, name, folder) for name in spec.tasks_of(entry)}
    found: list[MethodFacts] = []
    for method in spec.methods:
        facts = _method_facts(spec, entry, bare, outline, method, tasks)
        known: dict[str, TaskFacts] = {}
        for name, task in tasks.items():
            if name in facts.refused_tasks:
                continue
            like = next(
                (
                    other.tasks[name]
                    for other in found
                    if other.reserved == facts.reserved and name in other.tasks
                ),
                None,
            )
            known[name] = like or _task_facts(
                spec, entry, bare, outline, task, rows[name], texts[name], facts.reserved
            )
        found.append(replace(facts, tasks=known))
    return replace(
        bare,
        methods=tuple(found),
        library=_library_facts(spec, entry, bare, outline, folder, rows, texts),
    )


def _library_facts(
    spec: Spec,
    entry: BackboneEntry,
    side: BackboneFacts,
    outline: Backbone | None,
    folder: Path,
    rows: Mapping[str, RowFacts],
    texts: Mapping[str, Sequence[Example]],
) -> MethodFacts | None:
    """The prompts of the library's tasks; None for a study without a library."""
    if spec.library is None:
        return None
    tasks = {name: task_for(entry, name, folder) for name in spec.library.tasks}
    facts = _method_facts(spec, entry, side, outline, spec.library_entry, tasks)
    known = {
        name: _task_facts(spec, entry, side, outline, task, rows[name], texts[name], facts.reserved)
        for name, task in tasks.items()
    }
    return replace(facts, tasks=known)


def most_beside(tried: Sequence[Candidate]) -> int:
    """How many of these train in one bank, at most: those that differ in their rate alone."""
    from prompttransfer.training.grids import banked

    return max(map(len, banked(tried, rates_apart=False)))


def _told_of_others(tried: Sequence[Candidate]) -> list[str]:
    """What other optimizers bring, each once."""
    from prompttransfer.training.grids import brought_by

    return [
        f"{optimizer} with {', '.join(f'{name} {_short_value(value)}'.replace('_', ' ') for name, value in own.items())}"
        for optimizer, own in brought_by(tried).items()
    ]


def _told_of_tasks(method: Method, recipes: Mapping[str, Recipe]) -> list[str]:
    """The recipes of tasks that have their own, each once."""
    tasks: dict[str, list[str]] = {}
    for name, recipe in recipes.items():
        tasks.setdefault(recipe.told(method), []).append(name)
    return [f"{', '.join(names)}: {told}" for told, names in tasks.items()]


def _method_facts(
    spec: Spec,
    entry: BackboneEntry,
    side: BackboneFacts,
    outline: Backbone | None,
    given: MethodEntry,
    tasks: Mapping[str, Task],
) -> MethodFacts:
    tried = candidates_on(side.family, side.state_width, spec, entry, given)
    methods = list(dict.fromkeys(one.method for one in tried))
    method, recipe = tried[0].method, tried[0].recipe
    recipes = {
        name: candidates_on(side.family, side.state_width, spec, entry, given, name)[0].recipe
        for name in entry.recipe.per_task
    }
    without: dict[str, str] = {}
    values, pairs = method.reserved * side.width, {}
    shapes: set[object] = {one.reserved for one in methods}
    if outline is not None:
        without = {name: said for name, task in tasks.items() if (said := why_not(methods, outline, task))}
        able = {name: task for name, task in tasks.items() if name not in without}
        pairs = barred(method, outline, able)
        for task in [*able.values()][:1]:
            members = [one.outline(outline, task) for one in methods]
            values = max(sum(p.numel() for p in member.parameters()) for member in members)
            if not has_vectors(method):
                shapes = {tuple(tuple(each.shape) for each in member.parameters()) for member in members}
    return MethodFacts(
        label=PROMPT,
        text=text_of(given.method(method.settings().get("length", 1))),
        start=spec.start_of(given),
        recipe=recipe,
        told="; ".join(
            [_tried(given) + recipe.told(method), *_told_of_others(tried), *_told_of_tasks(method, recipes)]
        ),
        length=method.settings().get("length", 0),
        reserved=method.reserved,
        values=values,
        vectors=has_vectors(method),
        trains=method.trains,
        lacks=_lacks(spec, method),
        unread=_unread(spec, side, outline, method),
        recipes=recipes,
        refused=next(iter(without.values())) if tasks and len(without) == len(tasks) else "",
        refused_tasks=without,
        barred=pairs,
        other_heads=other_heads(method, {name: task for name, task in tasks.items() if name not in without}),
        tune=given.tune.settings if given.tune else {},
        beside=most_beside(tried),
        one_shape=len(shapes) == 1,
    )


def _tried(given: MethodEntry) -> str:
    """What a system starts from and tries, before its recipe."""
    grid = given.tune.grid if given.tune else {}
    named = {"lr": "rates"}
    tuned = "; ".join(f"{named.get(axis, axis)} {', '.join(map(_short_value, grid[axis]))}" for axis in grid)
    taught = f"distilled from {given.distil.start}" if given.distil else ""
    halved = "the worse half stopped at a quarter and at half" if given.tune and given.tune.halving else ""
    return "".join(f"{said}; " for said in (given.start, taught, tuned, halved) if said)


def _short_value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _lacks(spec: Spec, method: Method) -> dict[str, str]:
    """`MethodFacts.lacks` of a method."""
    given = spec.indicators
    names = [*given.similarity, *(given.estimates.measures if given.estimates else ())]
    if not names:
        return {}
    from prompttransfer.transfers.indicators import NEEDS

    needs = {name: NEEDS[name] for name in names if name in NEEDS}
    return {name: need.what for name, need in needs.items() if not need.of_method(method)}


def _unread(spec: Spec, side: BackboneFacts, outline: Backbone | None, method: Method) -> str:
    """`MethodFacts.unread` of a method."""
    if spec.indicators.neurons is None or outline is None:
        return ""
    from prompttransfer.neurons.capture import nothing_alone

    return nothing_alone(outline, find_layout(side.layout), method.reserved)


def _task_facts(
    spec: Spec,
    entry: BackboneEntry,
    facts: BackboneFacts,
    outline: Backbone | None,
    task: Task,
    rows: RowFacts,
    sample: Sequence[Example],
    reserved: int,
) -> TaskFacts:
    wanted = entry.max_length or spec.max_length
    if outline is None:
        budget = wanted or (384 if task.generates else 128)
        return TaskFacts(task, rows, {}, budget, 0.5 * budget)
    encoding = Encoding(facts.layout, wanted, spec.aggregation, facts.template)
    budget = outline.text_budget(task, encoding, reserved=reserved)
    answers = outline.answers(task, encoding)
    tokens = 0.5 * budget
    if sample:
        encoded = outline.encode(task, sample, encoding, reserved=reserved)
        tokens = sum(row.size for row in encoded) / len(encoded)
    return TaskFacts(task, rows, answers.mapping if answers else {}, budget, tokens)


# What is widely known, for estimates only ------------------------------------------------------------------------

KNOWN_BACKBONES: dict[str, tuple[str, int, int, int, int, int]] = {
    "roberta-base": ("masked-lm", 768, 12, 3072, 124_697_433, 38_603_520),
    "roberta-large": ("masked-lm", 1024, 24, 4096, 355_412_057, 51_471_360),
    "bert-base-uncased": ("masked-lm", 768, 12, 3072, 109_514_298, 23_440_896),
    "bert-base-cased": ("masked-lm", 768, 12, 3072, 108_340_804, 22_268_928),
    "t5-small": ("t5", 512, 6, 2048, 60_506_624, 16_449_536),
    "t5-base": ("t5", 768, 12, 3072, 222_903_552, 24_674_304),
    "t5-large": ("t5", 1024, 24, 4096, 737_668_096, 32_899_072),
    "t5-3b": ("t5", 1024, 24, 16_384, 2_851_598_336, 32_899_072),
    "t5-11b": ("t5", 1024, 24, 65_536, 11_307_321_344, 32_899_072),
}
"""Name -> family, width, layers, neurons a layer, parameters, parameters of the embedding table."""

KNOWN_ROWS: dict[str, tuple[int, int]] = {
    "imdb": (25_000, 25_000),
    "sst2": (67_349, 872),
    "laptop": (2_300, 638),
    "restaurant": (3_600, 1_120),
    "movie_rationales": (1_600, 200),
    "tweeteval_sentiment": (45_615, 2_000),
    "mnli": (392_702, 9_815),
    "qnli": (104_743, 5_463),
    "snli": (549_367, 9_842),
    "ethics_deontology": (18_164, 3_596),
    "ethics_justice": (21_791, 2_704),
    "qqp": (363_846, 40_430),
    "mrpc": (3_668, 408),
    "squad": (87_599, 10_570),
    "nq_open": (87_925, 3_610),
    "multi_news": (44_972, 5_622),
    "samsum": (14_732, 818),
}
"""Task -> training rows, test rows, about; a plan with rows at hand does not look here."""


def _known(name: str, spec: Spec, entry: BackboneEntry, folder: Path) -> BackboneFacts:
    family, width, layers, neurons, parameters, embedded = KNOWN_BACKBONES[name]
    return BackboneFacts(
        label=label_of(name, folder),
        place=name,
        revision="unknown",
        family=family,
        width=width,
        layers=layers,
        neurons=neurons,
        parameters=parameters,
        embedded=embedded,
        special=5 if family == "masked-lm" else 2,
        layout=entry.layout or spec.layout,
        template=entry.template,
        certain=False,
    )
