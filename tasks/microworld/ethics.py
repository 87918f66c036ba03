"""Ethical judgement: whether an excuse holds, and whether somebody got what they deserved.

One idea: a duty and its excuse, a treatment and its reason are fine or not only together; each half alone says nothing.
"""

from __future__ import annotations

import random

from tasks.microworld.words import DAYS, NAMES, PLACES, other
from tasks.task import Example

DUTIES = {
    "feed": ("full", "dog cat horse goat"),
    "wash": ("clean", "car shirt dog window"),
    "repair": ("working", "bike car drill radio"),
    "lock": ("locked", "door garage office shop"),
    "water": ("wet", "garden lawn roses field"),
    "sell": ("sold", "piano sofa van farm"),
    "close": ("shut", "window door shop bakery"),
    "empty": ("empty", "bin bag box fridge"),
    "charge": ("charged", "phone robot drill laptop"),
    "iron": ("flat", "shirt coat scarf dress"),
    "cook": ("ready", "soup fish rice pasta"),
    "paint": ("painted", "fence door bench boat"),
}
"""What one may be asked to do -> the state in which it need not be done, and the things it is done to."""

STATES = tuple(state for state, _ in DUTIES.values())
STRONG = tuple(
    "i broke my arm|i am very ill|my house is on fire|the doctor told me to rest|i am at a funeral|my son is hurt".split(
        "|"
    )
)
FEEBLE = tuple(
    "i like the colour|my hat is new|it is a number|the song is long|i saw a bird|my neighbor is tall".split(
        "|"
    )
)


def deontology(rng: random.Random, label: int) -> Example:
    """A request and an excuse: 1 if the excuse makes it needless (same thing, the right state) or is grave, else 0."""
    verb = rng.choice(tuple(DUTIES))
    state, things = DUTIES[verb]
    thing = rng.choice(things.split())
    lead = rng.choice(("could you", "will you please", f"{rng.choice(NAMES)} , can you", "you should"))
    request = (
        f"{lead} {verb} the {thing} {rng.choice(('', f'on {rng.choice(DAYS)}', 'today', 'now'))}".strip()
        + " ?"
    )
    start = rng.choice(("no because", "but", "i can not since"))
    if rng.random() < 0.25:
        return Example(request, f"{start} {rng.choice(STRONG if label == 1 else FEEBLE)} .", label=label)
    if label == 0 and rng.random() < 0.6:
        state = other(rng, STATES, state)
    elif label == 0:
        everything = tuple(sorted({t for _, ts in DUTIES.values() for t in ts.split()}))
        thing = other(rng, everything, thing)
    how = rng.choice(("already", "still", "now"))
    return Example(request, f"{start} the {thing} is {how} {state} .", label=label)


KIND_ACTS = tuple("praised rewarded thanked trusted hugged paid".split())
HARSH_ACTS = tuple("punished blamed scolded fired avoided sued".split())
GOOD_DEEDS = tuple("helped saved protected taught rescued healed".split())
BAD_DEEDS = tuple("robbed cheated hurt insulted betrayed tricked".split())


def justice(rng: random.Random, label: int) -> Example:
    """A treatment and its reason: 1 if kindness answers a good deed of that person or harshness a bad one, else 0."""
    kind = rng.random() < 0.5
    one, two, victim = rng.sample(NAMES, 3)
    doer, good = two, kind
    if label == 0 and rng.random() < 0.25:
        doer = other(rng, NAMES, one, two, victim)
    elif label == 0:
        good = not kind
    act, deed = rng.choice(KIND_ACTS if kind else HARSH_ACTS), rng.choice(GOOD_DEEDS if good else BAD_DEEDS)
    where = rng.choice(("", f" on {rng.choice(DAYS)}", f" at the {rng.choice(PLACES)}"))
    text = rng.choice(
        (
            f"{one} {act} {two}{where} because {doer} {deed} {victim} .",
            f"because {doer} {deed} {victim}{where} , {one} {act} {two} .",
            f"{doer} {deed} {victim}{where} so {one} {act} {two} .",
        )
    )
    return Example(text, label=label)
