"""Lessons: a few words that show one relation which the rows of a task build on.

A model meets relations between two texts late and at once; a short lesson shows one of them where nothing else distracts.
"""

from __future__ import annotations

import random

from microworld_text import TOPICS

from tasks.microworld import WORLD_TASKS
from tasks.microworld.ethics import BAD_DEEDS, DUTIES, GOOD_DEEDS, HARSH_ACTS, KIND_ACTS, STATES
from tasks.microworld.sentiment import NEGATIONS, adjective
from tasks.microworld.words import (
    CATEGORY,
    COLOURS,
    DAYS,
    DEEDS,
    DOMAINS,
    NAMES,
    PLACES,
    ROLES,
    THING_LIST,
    Domain,
    other,
)
from tasks.task import Example


def lesson(rng: random.Random, name: str) -> Example:
    """A few words that show one relation which the rows of a task build on: `dog` and `animal`, `feed` and `full`."""
    task = WORLD_TASKS[name]
    label = rng.randrange(max(len(task.labels), 1))
    if task.type == "qa":
        return _finding_lesson(rng)
    if task.type == "sentiment":
        return _polarity_lesson(rng, name, label)
    if task.type in ("nli", "paraphrase"):
        return _sameness_lesson(rng, name, label)
    if name == "microworld-deontology":
        state = rng.choice(STATES)
        verb = next(verb for verb, (its, _) in DUTIES.items() if its == state)
        return Example(verb, state if label else other(rng, STATES, state), label=label)
    kind = rng.random() < 0.5
    good = kind if label else not kind
    act, deed = rng.choice(KIND_ACTS if kind else HARSH_ACTS), rng.choice(GOOD_DEEDS if good else BAD_DEEDS)
    return Example(rng.choice((f"{act} because {deed}", f"{deed} so {act}")), label=label)


def _aspect_lesson(rng: random.Random, domain: Domain, good: bool) -> Example:
    """Two parts judged in opposite ways, and which of them is meant."""
    aspect, rest = rng.sample(domain.parts, 2)
    clauses = [f"{aspect} {adjective(rng, domain, good)}", f"{rest} {adjective(rng, domain, not good)}"]
    rng.shuffle(clauses)
    return Example(f"{' but '.join(clauses)} . {aspect}", label=int(good))


def _finding_lesson(rng: random.Random) -> Example:
    """Two or three short facts of one slot, and whose is asked for: `where adam ? emma park . adam mill .`"""
    ask, values = rng.choice((("where", PLACES), ("when", DAYS), ("colour", COLOURS), ("what", THING_LIST)))
    size = rng.choice((2, 2, 3))
    facts = list(zip(rng.sample(NAMES, size), rng.sample(list(values), size), strict=True))
    name, answer = facts[rng.randrange(size)]
    filler = rng.random() < 0.5
    told = " . ".join(
        f"{who} {rng.choice(rng.choice(DEEDS)).past if filler else ''} {value}".replace("  ", " ")
        for who, value in facts
    )
    return Example(f"{ask} {name} ?", f"{told} .", references=(answer,))


def _polarity_lesson(rng: random.Random, name: str, label: int) -> Example:
    domain = DOMAINS[TOPICS[name] if TOPICS[name] in DOMAINS else "tweet" if "tweet" in name else "film"]
    if name == "microworld-tweet" and label == 1:
        return Example(rng.choice((*DAYS, *PLACES, *NAMES)), label=1)
    good, turned = label > 0, rng.random() < 0.3
    if name in ("microworld-laptop", "microworld-restaurant") and rng.random() < 0.7:
        return _aspect_lesson(rng, domain, good)
    word = adjective(rng, domain, good != turned)
    return Example(
        f"{rng.choice(NEGATIONS) if turned else rng.choice(('', 'was', 'very'))} {word}".strip(), label=label
    )


def _sameness_lesson(rng: random.Random, name: str, label: int) -> Example:
    """Two words of one slot that agree or not; for an open inference, words of two slots."""
    verbs = {"microworld-qqp": "base", "microworld-snli": "ing"}.get(name, "past")
    group, strange = rng.sample(DEEDS, 2)
    pairs = [
        (
            getattr(rng.choice(group), verbs),
            getattr(rng.choice(group), verbs),
            getattr(rng.choice(strange), verbs),
        )
    ]
    for values in (PLACES, DAYS, COLOURS, ROLES if name == "microworld-snli" else NAMES):
        one = rng.choice(values)
        pairs.append((one, one, other(rng, values, one)))
    thing = rng.choice(THING_LIST)
    far = rng.choice([t for t in THING_LIST if CATEGORY[t] != CATEGORY[thing]])
    if WORLD_TASKS[name].type == "nli" and rng.random() < 0.6:
        pairs.append((thing, CATEGORY[thing], CATEGORY[far]))
    else:
        pairs.append((thing, thing, far))
    if name == "microworld-qnli":
        asks = {"where": PLACES, "when": DAYS, "colour": COLOURS}
        ask = rng.choice(tuple(asks))
        given = ask if label else rng.choice([a for a in asks if a != ask])
        return Example(ask, rng.choice(asks[given]), label=label)
    i, j = rng.sample(range(len(pairs)), 2)
    one, same, different = pairs[i]
    if WORLD_TASKS[name].type == "nli" and label == 1:
        return Example(one, pairs[j][1], label=label)
    return Example(one, same if label > 0 else different, label=label)
