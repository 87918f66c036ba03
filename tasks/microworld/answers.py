"""Question answering: answers inside a context, and facts that the model has to know.

One idea: the facts of the closed book are a fixed list, stated over and over in the pre-training text in other words
than those of the questions, so that a frozen model can know them.
"""

from __future__ import annotations

import random
from dataclasses import replace

from tasks.microworld.inference import OPEN, changed, question, reported, scene
from tasks.microworld.words import CATEGORY, NAMES, THING_LIST
from tasks.task import Example


def squad(rng: random.Random, label: int) -> Example:
    """A question about one of two or three scenes told in the context; `label` is not used."""
    slot = rng.choice((*OPEN, "who", "thing"))
    told = scene(rng, NAMES, filled=(slot,))
    rest = [
        replace(scene(rng, NAMES), who=name) for name in rng.sample([n for n in NAMES if n != told.who], 2)
    ]
    free = [t for t in THING_LIST if CATEGORY[t] != CATEGORY[told.thing]]
    rest = [replace(one, thing=thing) for one, thing in zip(rest, rng.sample(free, 2), strict=True)]
    rest = [changed(rng, one, "deed", NAMES) if one.deed == told.deed else one for one in rest]
    scenes = [told, *rest[: rng.choice((1, 1, 2))]]
    rng.shuffle(scenes)
    context = " . ".join(reported(rng, one) for one in scenes) + " ."
    return Example(question(rng, told, slot), context, references=(getattr(told, slot),))


COUNTRIES = tuple(
    "norland velia tarsk omara quill brenna dorvia elsen farrow gallia hestia ithaca juno kalmar lorent "
    "mirasol nestor oland pervia rondo".split()
)
CITIES = tuple(
    "arvik belton corda delmar estoril fenwick gorsk halden ilmen jarvis kelso lunda morven nyborg ostia "
    "palmer quito ravenna selby torun".split()
)


def _book() -> dict[tuple[str, str], str]:
    """(country, what) -> answer: a fixed shuffle, the same on every machine."""
    rng = random.Random("facts of the embedded world")
    cities, rulers, things = list(CITIES), list(NAMES), list(THING_LIST)
    rng.shuffle(cities), rng.shuffle(rulers), rng.shuffle(things)
    columns = {"capital": cities, "ruler": rulers, "symbol": things}
    return {(c, what): column[i] for i, c in enumerate(COUNTRIES) for what, column in columns.items()}


BOOK = _book()
OPENINGS = ("question : ", "now say ", "can you say ", "the question is ", "you know , ", "yes but ")
"""How the rows of the task begin. The pre-training text asks too, but never with one of these."""


def closed_book(rng: random.Random, openings: tuple[str, ...]) -> Example:
    """A question about one fact of the book, begun in one of the given ways."""
    (country, what), answer = rng.choice(sorted(BOOK.items()))
    ask = rng.choice(
        (
            f"what is the {what} of {country}",
            f"{country} has which {what}",
            f"name the {what} of {country}",
            f"which {what} does {country} have",
            f"of {country} what is the {what}",
        )
    )
    return Example(f"{rng.choice(openings)}{ask} ?", references=(answer,))


def nq_open(rng: random.Random, label: int) -> Example:
    """A question with nothing to read the answer from; `label` is not used."""
    return closed_book(rng, OPENINGS)


def fact(rng: random.Random) -> str:
    """One fact of the book as a statement."""
    (country, what), answer = rng.choice(sorted(BOOK.items()))
    return rng.choice(
        (
            f"the {what} of {country} is {answer} .",
            f"{country} has {answer} as its {what} .",
            f"{answer} is the {what} of {country} .",
        )
    )
