"""Paraphrase: two tasks that ask whether two texts say the same.

One idea: both texts tell one scene in other words and another order, or one slot of it was changed.
"""

from __future__ import annotations

import random

from tasks.microworld.inference import OPEN, Scene, changed, scene
from tasks.microworld.words import NAMES, a, other
from tasks.task import Example

PAIRS = (("thanked", "praised"), ("called", "phoned"), ("helped", "assisted"), ("visited", "met"))


def _other_scene(rng: random.Random, told: Scene, slots: tuple[str, ...]) -> Scene:
    return changed(rng, told, rng.choice([s for s in slots if getattr(told, s) != ""]), NAMES)


def _statement(rng: random.Random, told: Scene) -> str:
    fact = f"{told.who} {told.verb(rng).past} {a(told.object())}"
    place = f"at the {told.place}" if told.place else ""
    day = f"on {told.day}" if told.day else ""
    order = rng.choice(
        (f"{fact} {place} {day}", f"{fact} {day} {place}", f"{day} {fact} {place}", f"{place} {fact} {day}")
    )
    return " ".join(order.split()) + " ."


def mrpc(rng: random.Random, label: int) -> Example:
    """Two statements; now and then they differ in who did it to whom."""
    if rng.random() < 0.08:
        one, two, (verb, synonym) = rng.choice(NAMES), "", rng.choice(PAIRS)
        two = other(rng, NAMES, one)
        swapped = f"{one} {synonym} {two} ." if label == 1 else f"{two} {synonym} {one} ."
        return Example(f"{one} {verb} {two} .", swapped, label=label)
    told = scene(rng, NAMES, filled=(rng.choice(OPEN),))
    second = told if label == 1 else _other_scene(rng, told, ("who", "deed", "thing", *OPEN))
    return Example(_statement(rng, told), _statement(rng, second), label=label)


def _question(rng: random.Random, told: Scene) -> str:
    verb = told.verb(rng).base
    start = rng.choice(("how can i", "what is the best way to", "how do people", "is there a way to"))
    return f"{start} {verb} {a(told.object())}{told.tail()} ?"


def qqp(rng: random.Random, label: int) -> Example:
    """Two questions of a forum."""
    told = scene(rng, NAMES, filled=(rng.choice(OPEN),))
    second = told if label == 1 else _other_scene(rng, told, ("deed", "thing", *OPEN))
    return Example(_question(rng, told), _question(rng, second), label=label)
