"""The lexicon of the embedded world: its people, things, places, deeds and opinions, as plain tuples.

One idea: every word stands in a group (synonyms, a category of things, a polarity), and the tasks ask about groups,
never about single words, so that a model has to learn relations and cannot count tokens.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

NAMES = tuple(
    "anna ben carla david emma felix grace henry iris jack kate leo maria nina oscar paul rosa sam tina victor "
    "wendy adam bella clara dennis erik fiona george hanna ivan".split()
)
DAYS = tuple("monday tuesday wednesday thursday friday saturday sunday".split())
COLOURS = tuple("red blue green yellow black white brown pink".split())
PLACES = tuple(
    "park beach kitchen garden school market station library museum office farm harbor church hotel bridge mill".split()
)
ROLES = tuple("man woman boy girl chef nurse farmer pilot teacher singer doctor guard".split())

THINGS = {
    "animal": tuple("dog cat horse cow goat".split()),
    "fruit": tuple("apple pear plum peach melon".split()),
    "tool": tuple("hammer saw drill wrench shovel".split()),
    "seat": tuple("chair sofa bench stool couch".split()),
    "vehicle": tuple("car bus truck bike van".split()),
    "instrument": tuple("guitar piano violin drum flute".split()),
    "garment": tuple("shirt coat hat scarf jacket".split()),
    "toy": tuple("doll kite puppet ball robot".split()),
}
"""Category -> things that belong to it."""

CATEGORY = {thing: category for category, things in THINGS.items() for thing in things}
THING_LIST = tuple(CATEGORY)


@dataclass(frozen=True)
class Verb:
    """One verb in the three forms that the templates need."""

    base: str
    past: str
    ing: str


def _verbs(line: str) -> tuple[Verb, ...]:
    words = line.split()
    return tuple(Verb(*words[i : i + 3]) for i in range(0, len(words), 3))


DEEDS = tuple(
    _verbs(line)
    for line in (
        "buy bought buying purchase purchased purchasing",
        "find found finding discover discovered discovering",
        "carry carried carrying haul hauled hauling",
        "repair repaired repairing mend mended mending",
        "hide hid hiding conceal concealed concealing",
        "clean cleaned cleaning wash washed washing",
        "watch watched watching observe observed observing",
        "throw threw throwing toss tossed tossing",
        "draw drew drawing sketch sketched sketching",
        "break broke breaking smash smashed smashing",
        "choose chose choosing select selected selecting",
        "sell sold selling trade traded trading",
    )
)
"""Groups of two verbs with one meaning."""


@dataclass(frozen=True)
class Domain:
    """What opinions of one domain are about: the thing as a whole, its parts, and adjectives for and against."""

    whole: tuple[str, ...]
    parts: tuple[str, ...]
    good: tuple[str, ...]
    bad: tuple[str, ...]


_GOOD = tuple(
    "superb charming brilliant lovely delightful wonderful excellent pleasant solid splendid".split()
)
_BAD = tuple("awful lousy clumsy dreadful poor horrible weak ugly annoying miserable".split())


def _domain(whole: str, parts: str, good: str, bad: str) -> Domain:
    return Domain(
        tuple(whole.split()), tuple(parts.split()), _GOOD + tuple(good.split()), _BAD + tuple(bad.split())
    )


DOMAINS = {
    "film": _domain(
        "film movie picture drama comedy",
        "plot story cast script ending music dialogue camera director pacing",
        "gripping moving funny clever fresh witty touching thrilling",
        "dull boring silly shallow stale lifeless messy predictable",
    ),
    "laptop": _domain(
        "laptop computer machine notebook",
        "screen battery keyboard speaker fan case trackpad price charger webcam",
        "fast bright light sturdy quiet reliable sharp smooth",
        "slow dim heavy noisy flimsy faulty blurry sticky",
    ),
    "restaurant": _domain(
        "restaurant diner bistro cafe",
        "soup pasta waiter service dessert bread wine menu fish salad",
        "tasty friendly cozy crisp tender warm generous juicy",
        "bland rude dirty soggy burnt cold greasy bitter",
    ),
    "tweet": _domain(
        "day concert game trip party weather",
        "phone train team song traffic crowd ticket band goal airport",
        "awesome happy sweet cool amazing lucky fun epic",
        "sad sick angry gross lame broken late rotten",
    ),
}

LIKED = tuple(
    zip("loved enjoyed liked adored admired".split(), "love enjoy like adore admire".split(), strict=True)
)
HATED = tuple(
    zip(
        "hated disliked regretted despised loathed".split(),
        "hate dislike regret despise loathe".split(),
        strict=True,
    )
)
"""(past, base) of what a reviewer says of a thing."""


def a(word: str) -> str:
    """The word with its article: `an apple`, `a pear`."""
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def other(rng: random.Random, options: tuple[str, ...], *taken: str) -> str:
    """One of the options that is none of those taken."""
    return rng.choice([option for option in options if option not in taken])
