"""Inference: three tasks that ask whether one text follows from another.

One idea: a text fills slots (who, deed, thing, colour, place, day). A hypothesis mentions some of them: it follows if
each matches the premise (by itself, a synonym or its category), contradicts if one differs, and is open if one was
never filled.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

from tasks.microworld.words import (
    CATEGORY,
    COLOURS,
    DAYS,
    DEEDS,
    NAMES,
    PLACES,
    ROLES,
    THING_LIST,
    Verb,
    a,
    other,
)
from tasks.task import Example

OPEN = ("colour", "place", "day")
"""Slots that a text may leave unfilled."""


@dataclass(frozen=True)
class Scene:
    """Who did what to which thing; `deed` is an index into DEEDS, an empty string an unfilled slot."""

    who: str
    deed: int
    thing: str
    colour: str = ""
    place: str = ""
    day: str = ""

    def verb(self, rng: random.Random) -> Verb:
        return rng.choice(DEEDS[self.deed])

    def tail(self) -> str:
        """` at the park on monday`, as far as filled."""
        return (f" at the {self.place}" if self.place else "") + (f" on {self.day}" if self.day else "")

    def object(self) -> str:
        return f"{self.colour} {self.thing}".strip()


SLOTS: dict[str, tuple[str, ...]] = {"colour": COLOURS, "place": PLACES, "day": DAYS, "thing": THING_LIST}


def scene(
    rng: random.Random, people: tuple[str, ...], filled: tuple[str, ...] = (), empty: str = ""
) -> Scene:
    """A random scene in which the named open slots are filled, one may be kept empty, and the others are as it comes."""
    slots = {
        slot: rng.choice(SLOTS[slot]) if slot in filled or (slot != empty and rng.random() < 0.6) else ""
        for slot in OPEN
    }
    return Scene(rng.choice(people), rng.randrange(len(DEEDS)), rng.choice(THING_LIST), **slots)


def with_slot(base: Scene, slot: str, value: str) -> Scene:
    """The scene with one of its open slots filled anew."""
    values: dict[str, Any] = {slot: value}
    return replace(base, **values)


def changed(rng: random.Random, base: Scene, slot: str, people: tuple[str, ...]) -> Scene:
    """The scene with another value in one filled slot; another thing is of another category."""
    if slot == "who":
        return replace(base, who=other(rng, people, base.who))
    if slot == "deed":
        return replace(base, deed=rng.choice([i for i in range(len(DEEDS)) if i != base.deed]))
    if slot == "thing":
        return replace(base, thing=rng.choice([t for t in THING_LIST if CATEGORY[t] != CATEGORY[base.thing]]))
    return with_slot(base, slot, other(rng, SLOTS[slot], getattr(base, slot)))


FOCUS = {
    "place": ("who", "place"),
    "day": ("who", "day"),
    "colour": ("thing", "colour"),
    "thing": ("who", "deed", "thing"),
}
"""What a hypothesis is about -> the slots that it mentions."""


def _hypothesis(rng: random.Random, told: Scene, focus: str, present: bool) -> str:
    """One short statement about the scene, in the present or the past tense."""
    who = f"the {told.who}" if present else told.who
    be = "is" if present else "was"
    if focus == "place":
        return f"{who} {be} at the {told.place}"
    if focus == "day":
        return f"{who} did it on {told.day}" if not present else f"{who} is there on {told.day}"
    if focus == "colour":
        return f"the {told.thing} {be} {told.colour}"
    thing = CATEGORY[told.thing] if rng.random() < 0.5 else told.thing
    verb = told.verb(rng)
    return f"{who} {'is ' + verb.ing if present else verb.past} {a(thing)}"


def _three_way(rng: random.Random, label: int, people: tuple[str, ...], present: bool) -> tuple[Scene, str]:
    """A scene and a hypothesis: 0 contradicts it, 1 is open, 2 follows."""
    focus = rng.choice(OPEN) if label == 1 else rng.choice((*OPEN, "thing"))
    told = scene(rng, people, filled=(focus,) if label != 1 else (), empty=focus if label == 1 else "")
    claimed = told
    if label == 1:
        claimed = with_slot(told, focus, rng.choice(SLOTS[focus]))
    elif label == 0:
        # mostly the slot in question: who is named wrongly would give the answer away where it is the only name
        slot = focus if rng.random() < 0.7 else rng.choice(FOCUS[focus])
        claimed = changed(rng, told, slot, people)
    return told, _hypothesis(rng, claimed, focus, present)


def snli(rng: random.Random, label: int) -> Example:
    """What a picture shows. `first` is the premise, `second` the hypothesis."""
    told, hypothesis = _three_way(rng, label, ROLES, present=True)
    verb = told.verb(rng).ing
    premise = rng.choice(
        (
            f"{a(told.who)} is {verb} {a(told.object())}{told.tail()} .",
            f"there is {a(told.who)} {verb} {a(told.object())}{told.tail()} .",
            f"we see {a(told.who)} who is {verb} {a(told.object())}{told.tail()} .",
        )
    )
    return Example(premise, f"{hypothesis} .", label=label)


def reported(rng: random.Random, told: Scene) -> str:
    """`anna bought a red hat at the market on monday`, told in one of several ways."""
    fact = f"{told.who} {told.verb(rng).past} {a(told.object())}{told.tail()}"
    return rng.choice(
        (fact, f"it is said that {fact}", f"the paper wrote that {fact}", f"as we know , {fact}")
    )


def mnli(rng: random.Random, label: int) -> Example:
    """What somebody reported. `first` is the premise, `second` the hypothesis."""
    told, hypothesis = _three_way(rng, label, NAMES, present=False)
    return Example(f"{reported(rng, told)} .", f"{hypothesis} .", label=label)


def question(rng: random.Random, asked: Scene, slot: str) -> str:
    """A question for one slot of the scene."""
    verb = asked.verb(rng)
    if slot == "place":
        return f"where did {asked.who} {verb.base} the {asked.thing} ?"
    if slot == "day":
        return f"when did {asked.who} {verb.base} the {asked.thing} ?"
    if slot == "colour":
        return f"what colour was the {asked.thing} of {asked.who} ?"
    return f"who {verb.past} the {asked.thing} ?" if slot == "who" else f"what did {asked.who} {verb.base} ?"


def qnli(rng: random.Random, label: int) -> Example:
    """A question and a sentence: 1 if the sentence answers it, 0 if the slot is empty or the sentence is of another."""
    slot = rng.choice(OPEN)
    missing = label == 0 and rng.random() < 0.6
    told = scene(rng, NAMES, filled=() if missing else (slot,), empty=slot if missing else "")
    asked = told
    if label == 0 and not missing:
        asked = changed(rng, told, rng.choice(("who", "thing")), NAMES)
    return Example(question(rng, asked, slot), f"{reported(rng, told)} .", label=label)
