"""Tasks, rows and prompts for the tiny backbones of conftest.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from prompttransfer.adaptations.adaptation import PROMPT_KEY, Adaptation, Origin
from prompttransfer.adaptations.methods import parse_method
from prompttransfer.adaptations.prompts import soft_prompt
from prompttransfer.adaptations.starts import RANDOM
from prompttransfer.backbones.base import Backbone
from prompttransfer.training.recipes import Recipe
from tasks.loading import Splits
from tasks.task import Example, Task

BAD, GOOD = (
    ("dull", "cold", "rude", "slow", "grim", "sour"),
    ("fresh", "warm", "kind", "quick", "bright", "sweet"),
)


def label_task(name: str = "toy", **words: str | tuple[str, ...]) -> Task:
    """A sentence task; `words` are label=word or label=(alternatives)."""
    chosen = words or {"negative": "terrible", "positive": "great"}
    given = {label: (word,) if isinstance(word, str) else tuple(word) for label, word in chosen.items()}
    return Task(
        name=name,
        type="sentiment",
        kind="sentence",
        labels=tuple(given),
        words={"masked-lm": given, "t5": given},
    )


def write_toy(place: Path, name: str, rows: Sequence[tuple[str, str]]) -> None:
    """The task of `label_task` as a user has it: NAME.yaml, and data/NAME with the same rows (text, label) in both splits."""
    folder = place / "data" / name
    folder.mkdir(parents=True)
    (place / f"{name}.yaml").write_text(
        f"name: {name}\ntype: sentiment\nkind: sentence\nwords:\n  negative: terrible\n  positive: great\n"
    )
    lines = "\n".join(json.dumps({"text": text, "label": label}) for text, label in rows)
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text(lines)


def toy_rows(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Rows of texts, the first half of which are negative."""
    half = len(texts) // 2
    return [
        (f"the {text} was {word}", "negative" if place < half else "positive")
        for place, text in enumerate(texts)
        for word in ("bad" if place < half else "good", "it", "so", "that")
    ]


def pair_task(name: str = "toy-pair") -> Task:
    """A three-label task over two texts."""
    words = {"no": ("no",), "maybe": ("maybe",), "yes": ("yes",)}
    return Task(
        name=name,
        type="nli",
        kind="pair",
        labels=("no", "maybe", "yes"),
        words={"masked-lm": words, "t5": words},
    )


def question_task(name: str = "toy-question") -> Task:
    """Question answering with a context."""
    return Task(name=name, type="qa", kind="extractive-qa")


def sentences(nouns: Sequence[str] = ("film", "food")) -> tuple[Example, ...]:
    """Twelve labelled rows a noun, of unequal length."""
    rows = []
    for noun in nouns:
        for label, adjectives in enumerate((BAD, GOOD)):
            for index, adjective in enumerate(adjectives):
                tail = (" and the " + noun + " was very " + adjective) if index % 2 else ""
                rows.append(Example(f"the {noun} was {adjective}{tail}", label=label))
    return tuple(rows)


def splits(*nouns: str) -> Splits:
    """Train, validation and test rows about different nouns."""
    first, second, third = nouns or ("film", "food", "room")
    return Splits(sentences((first,)), sentences((second,)), sentences((third,)), "toy rows", "1")


def recipe(**values: object) -> Recipe:
    """A short recipe for the tiny backbones."""
    base: dict[str, object] = {
        "optimizer": "adamw",
        "lr": 0.05,
        "source": "a test",
        "steps": 6,
        "batch": 4,
        "length": 3,
        "evaluate_every": 2,
    }
    return Recipe(**{**base, **values})  # type: ignore[arg-type]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Seeded normal values, float32."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def prompt_on(
    backbone: Backbone, *, task: str = "toy", length: int = 3, seed: int = 0, **fields: object
) -> Adaptation:
    """A random prompt for a backbone."""
    given = {"name": f"{task}-s{seed}", "revision": backbone.revision, "seed": seed, **fields}
    return soft_prompt(
        vectors=noise(length, backbone.width, seed=seed),
        task=task,
        backbone=backbone.name,
        family=backbone.family,
        **given,  # type: ignore[arg-type]
    )


def changed(adaptation: Adaptation, **fields: object) -> Adaptation:
    """An adaptation with other values of its own fields, of its origin's, its encoding's, or other vectors."""
    own: dict[str, object] = {}
    for key in ("vectors", "initial"):
        if key in fields:
            value = fields.pop(key)
            own["tensors" if key == "vectors" else key] = None if value is None else {PROMPT_KEY: value}
    for part in ("origin", "encoding"):
        known = {name for name in getattr(adaptation, part).__dataclass_fields__ if name in fields}
        own[part] = replace(getattr(adaptation, part), **{name: fields.pop(name) for name in known})
    return replace(adaptation, **own, **fields)  # type: ignore[arg-type]


def adapted(
    backbone: Backbone,
    text: str,
    *,
    task: Task | None = None,
    seed: int = 0,
    name: str = "",
    rows: Sequence[Example] = (),
) -> Adaptation:
    """An adaptation of any method (`lora:rank=2`) for a backbone, away from its start."""
    method, task = parse_method(text), task or label_task()
    member = method.started(backbone, task, RANDOM, seed=seed, rows=rows or sentences())
    with torch.no_grad():
        for number, parameter in enumerate(member.parameters()):
            parameter += 0.2 * noise(*parameter.shape, seed=100 * seed + number)
    words = {label: options[0] for label, options in task.words_of(backbone.family).items()}
    origin = Origin(
        task.name, backbone.name, backbone.revision, family=backbone.family, seed=seed, words=words
    )
    name = name or f"{task.name}-{method.name}-s{seed}"
    return Adaptation(method, member.tensors(), origin, name=name, notes=member.notes())


class Watcher:
    """What a training run tells of itself: kept, and answered with an act behind one step."""

    def __init__(self, at: int | None = None, act: Callable[[Any], object] = print):
        self.at, self.act = at, act
        self.seen: list[tuple[int, list[bool]]] = []
        self.resumed_at: int | None = None

    def resumed(self, step: int) -> None:
        self.resumed_at = step

    def step(self, bank: Any) -> None:
        if bank.steps_done == self.at:
            self.act(bank)

    def evaluated(self, bank: Any) -> None:
        self.seen.append((bank.steps_done, list(bank.active)))


def stop(bank: object) -> None:
    """End a run in its middle, as an error would."""
    raise RuntimeError("stopped by the test")
