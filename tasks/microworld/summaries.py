"""Summaries: of a chat, and of several news reports.

One idea: what matters is spread over the document and never stands in its first sentence.
"""

from __future__ import annotations

import random

from tasks.microworld.answers import CITIES
from tasks.microworld.words import COLOURS, DAYS, NAMES, PLACES, THING_LIST, other
from tasks.task import Example

CHAT = ("how are you", "i am well today", "it is cold outside", "the game was long", "i just woke up")
EVENTS = tuple("fire flood storm crash blast robbery".split())
NUMBERS = tuple("two three four five six seven eight nine".split())
OFFICIALS = tuple("mayor minister sheriff governor".split())


def samsum(rng: random.Random, label: int) -> Example:
    """A chat that agrees on a place, a day and a thing to bring; `label` is not used."""
    one, two = rng.sample(NAMES, 2)
    place, day, thing = rng.choice(PLACES), rng.choice(DAYS), rng.choice(THING_LIST)
    turns = [f"{one} : hi {two} , {rng.choice(CHAT)} .", f"{two} : {rng.choice(CHAT)} ."]
    if rng.random() < 0.7:
        turns.append(f"{one} : shall we meet at the {place} on {day} ?")
        turns.append(f"{two} : yes , i will bring the {thing} .")
    else:
        turns.append(f"{one} : shall we meet at the {place} on {other(rng, DAYS, day)} ?")
        turns.append(f"{two} : no , i am busy , but on {day} i can bring the {thing} .")
    if rng.random() < 0.4:
        turns.append(f"{one} : {rng.choice(CHAT)} .")
    summary = f"{one} and {two} meet at the {place} on {day} and {two} brings the {thing} ."
    return Example(" ".join(turns), references=(summary,))


def multi_news(rng: random.Random, label: int) -> Example:
    """Two or three short reports of one event; `label` is not used."""
    event, place, city = rng.choice(EVENTS), rng.choice(PLACES), rng.choice(CITIES)
    number, official, day = rng.choice(NUMBERS), rng.choice(OFFICIALS), rng.choice(DAYS)
    reports = [
        f"the {event} came on {day} and hit the {place} in {city} .",
        f"{number} people were hurt in {city} , the {official} said .",
    ]
    rng.shuffle(reports)
    openings = (
        f"people were afraid when {rng.choice(NAMES)} called for help .",
        f"{rng.choice(NAMES)} in a {rng.choice(COLOURS)} coat saw it all .",
        "this is the news of the week .",
    )
    body = [rng.choice(openings), *reports]
    if rng.random() < 0.4:
        body.append(f"{rng.choice(NAMES)} thanked the {official} .")
    summary = f"a {event} hit the {place} in {city} on {day} and hurt {number} people ."
    return Example(" ".join(body), references=(summary,))
