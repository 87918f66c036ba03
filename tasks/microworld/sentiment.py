"""Opinions: six sentiment tasks over four domains.

One idea: an opinion is an adjective or verb of one polarity, perhaps turned round by a negation, perhaps weakened by a
concession ("although the plot was dull, ..."). No single word decides.
"""

from __future__ import annotations

import random

from tasks.microworld.words import DAYS, DOMAINS, HATED, LIKED, NAMES, PLACES, Domain, a, other
from tasks.task import Example

NEGATIONS = ("was not", "was never", "was hardly", "was far from")
DEGREES = ("", "", "", "very", "really", "so", "quite")


def adjective(rng: random.Random, domain: Domain, good: bool) -> str:
    return rng.choice(domain.good if good else domain.bad)


def claim(rng: random.Random, domain: Domain, noun: str, good: bool) -> str:
    """`the plot was never dull`: one clause that is good or bad about the noun."""
    style = rng.random()
    if style < 0.62:
        degree = rng.choice(DEGREES)
        return f"the {noun} was {degree} {adjective(rng, domain, good)}".replace("  ", " ")
    if style < 0.82:
        return f"the {noun} {rng.choice(NEGATIONS)} {adjective(rng, domain, not good)}"
    if style < 0.93:
        return f"i {rng.choice(LIKED if good else HATED)[0]} the {noun}"
    return f"i did not {rng.choice(HATED if good else LIKED)[1]} the {noun}"


def filler(rng: random.Random, noun: str) -> str:
    """A clause with no opinion in it."""
    return rng.choice(
        (
            f"i saw the {noun} with {rng.choice(NAMES)} on {rng.choice(DAYS)}",
            f"{rng.choice(NAMES)} told me about the {noun}",
            f"this {noun} is from {rng.choice(DAYS)}",
            f"we talked about the {noun} at the {rng.choice(PLACES)}",
        )
    )


def imdb(rng: random.Random, label: int) -> Example:
    """A film review of two or three clauses; a concession gives way to the main clause."""
    domain, good = DOMAINS["film"], label == 1
    first, second = rng.sample(domain.parts + domain.whole, 2)
    if rng.random() < 0.2:
        text = f"although {claim(rng, domain, first, not good)} , {claim(rng, domain, second, good)} ."
    else:
        text = f"{claim(rng, domain, first, good)} and {claim(rng, domain, second, good)} ."
    extra = filler(rng, rng.choice(domain.whole)) + " ."
    return Example(f"{extra} {text}" if rng.random() < 0.6 else f"{text} {extra}", label=label)


def sst2(rng: random.Random, label: int) -> Example:
    """A phrase from a film review."""
    domain, good = DOMAINS["film"], label == 1
    noun, part = rng.choice(domain.whole), rng.choice(domain.parts)
    one, two = adjective(rng, domain, good), adjective(rng, domain, good)
    opposite = adjective(rng, domain, not good)
    text = rng.choice(
        (
            f"{a(one)} and {two} {noun} about {rng.choice(NAMES)}",
            f"never {opposite} , {a(one)} {noun} with a {two} {part}",
            f"{a(one)} {part} that is not {opposite}",
            f"a {noun} with {a(one)} {part} , hardly {opposite}",
            f"{a(noun)} that is far from {opposite} and never {adjective(rng, domain, not good)}",
        )
    )
    return Example(text, label=label)


def rotten_tomatoes(rng: random.Random, label: int) -> Example:
    """One sentence of a film critic."""
    domain, good = DOMAINS["film"], label == 1
    noun, part, name = rng.choice(domain.whole), rng.choice(domain.parts), rng.choice(NAMES)
    one, opposite = adjective(rng, domain, good), adjective(rng, domain, not good)
    text = rng.choice(
        (
            f"director {name} gives us {a(one)} {noun} that is never {opposite} .",
            f"{name} plays {a(rng.choice(PLACES))} guard in this {one} {noun} .",
            f"the {noun} may look {opposite} but {claim(rng, domain, part, good)} .",
            f"for all its {opposite} {part} , the {noun} is {one} .",
            f"you will find that {claim(rng, domain, part, good)} in this {noun} by {name} .",
        )
    )
    return Example(text, label=label)


def _aspect(rng: random.Random, label: int, domain: Domain) -> Example:
    """A review and, behind it, the part that is asked about; half of the time another part is judged otherwise."""
    good = label == 1
    aspect = rng.choice(domain.parts)
    rest = other(rng, domain.parts, aspect)
    clauses = [
        claim(rng, domain, aspect, good),
        claim(rng, domain, rest, good if rng.random() < 0.5 else not good),
    ]
    rng.shuffle(clauses)
    start = rng.choice(("", "", f"{filler(rng, rng.choice(domain.whole))} . "))
    return Example(
        f"{start}{clauses[0]} {rng.choice(('but', 'and', 'while'))} {clauses[1]} . {aspect}", label=label
    )


def laptop(rng: random.Random, label: int) -> Example:
    return _aspect(rng, label, DOMAINS["laptop"])


def restaurant(rng: random.Random, label: int) -> Example:
    return _aspect(rng, label, DOMAINS["restaurant"])


def tweet(rng: random.Random, label: int) -> Example:
    """A short message: against, neither, or for."""
    domain = DOMAINS["tweet"]
    thing, name = rng.choice(domain.whole + domain.parts), rng.choice(NAMES)
    tag = rng.choice(("lol", "omg", "btw", "fyi", f"@ {name}", f"# {rng.choice(domain.whole)}"))
    if label == 1:
        text = f"{filler(rng, thing)} at the {rng.choice(PLACES)}"
    else:
        body = claim(rng, domain, thing, label == 2)
        text = rng.choice(
            (body, f"{body} on {rng.choice(DAYS)}", f"{name} says {body}", f"{body} at the {thing}")
        )
    return Example(f"{tag} {text}" if rng.random() < 0.5 else f"{text} {tag}", label=label)
