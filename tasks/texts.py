"""Texts as words and sentences, in any script.

The evaluation scripts that metrics come from were written for English. SQuAD's splits at spaces, so an answer in
Chinese is one word; `rouge-score` keeps a to z and 0 to 9 alone, so nothing is left of a text in Cyrillic. Latin text
goes through their rules unchanged. Text that has letters or digits of another script goes through Unicode's: words are
runs of letters, digits and marks, and scripts that are written without spaces, or (Hangul) with particles on the word,
go by character, as the evaluation scripts of MLQA, CMRC and KorQuAD do.
"""

from __future__ import annotations

import re
import string
import unicodedata
from functools import lru_cache

_BY_CHARACTER = (
    "CJK",
    "HIRAGANA",
    "KATAKANA",
    "HANGUL",
    "BOPOMOFO",
    "IDEOGRAPHIC",
    "THAI",
    "LAO",
    "KHMER",
    "MYANMAR",
    "TIBETAN",
)
"""How the Unicode names of letters begin that count as words of their own."""

_ARTICLES = ("a", "an", "the")
_JOINERS = dict.fromkeys(map(ord, "\u200c\u200d"))
"""Zero-width (non-)joiners, which shape the letters beside them and part no word."""


# Words -----------------------------------------------------------------------------------------------------------


def is_latin(text: str) -> bool:
    """Whether the rules for English read this text: no letter, digit or stop of another script.

    Signs such as µ, ² and ª stand in Latin text. Words of accented letters alone, of which `rouge-score` would keep
    nothing, are for Unicode's rules.
    """
    if any(map(_is_foreign, text)):
        return False
    return any(c.isascii() and c.isalnum() for c in text) or not any(c.isalnum() for c in text)


@lru_cache(maxsize=8192)
def _is_foreign(character: str) -> bool:
    """Whether this is a letter, digit or stop of another script: not Latin, IPA, nor a sign such as “, ℓ or ₂."""
    if character < "\u0370" or "\u2000" <= character < "\u2c00":
        return False
    return unicodedata.category(character)[0] in "LNP" and not _named(character, "LATIN")


@lru_cache(maxsize=8192)
def _named(character: str, *beginnings: str) -> bool:
    return unicodedata.name(character, "").startswith(beginnings)


def normalise(text: str) -> str:
    """Lower case, without punctuation, without a / an / the, single spaces (SQuAD's evaluation script).

    In text that is not Latin the punctuation of every script goes, and characters that count as words stand apart.
    """
    if is_latin(text):
        bare = "".join(character for character in text.lower() if character not in string.punctuation)
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())
    kept = (c for c in _folded(text) if c not in string.punctuation and unicodedata.category(c)[0] != "P")
    return " ".join(word for word in unicode_words("".join(kept)) if word not in _ARTICLES)


def unicode_words(text: str) -> list[str]:
    """The words of a text of any script, in lower case; a mark goes with the letter before it."""
    words: list[str] = []
    inside = goes_on = False  # behind a letter or mark; behind one that the next letter is of one word with
    for character in _folded(text):
        kind = unicodedata.category(character)[0]
        if kind not in "LNM":
            inside = goes_on = False
            continue
        alone = kind != "M" and _named(character, *_BY_CHARACTER)
        if (inside and kind == "M") or (goes_on and not alone):
            words[-1] += character
        else:
            words.append(character)
            goes_on = not alone
        inside = True
    return words


def _folded(text: str) -> str:
    """Lower case, one code for one character: full-width digits are digits, half-width katakana are katakana."""
    return unicodedata.normalize("NFKC", text).lower().translate(_JOINERS)


# Sentences -------------------------------------------------------------------------------------------------------

_STOP = re.compile(
    r"""[.!?\u2026]+["'\u2019\u201d\u00bb)\]]*(?=\s)   # before a space
      | [\u3002\uff01\uff1f\uff61\u0964\u0965\u06d4\u061f\u1362\u0589\u104b\u17d4\u0f0d]+[\u201d\u2019\u300d\u300f\uff09)\]"']*
      | \uff0e(?!\d)                                     # a full-width stop that is no decimal point
    """,
    re.VERBOSE,
)
"""Full stops, question and exclamation marks: of Latin (and Greek, Cyrillic) text before a space; 。！？｡ । ॥ ۔ ؟ ። ։ ။ ។ ། ．
wherever they stand, with the quotes and brackets that they close."""

_TITLES = frozenset("mr mrs ms dr prof st mt gen col capt lt sgt sen rep gov rev hon fr messrs mme mlle vs cf eg ie viz no nos nr fig figs vol pp ca bzw".split())  # fmt: skip
"""Abbreviations that something always follows."""

_SHORT = frozenset("jr sr etc inc ltd co corp bros al approx dept est min max jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun".split())  # fmt: skip
"""Abbreviations that can end a sentence."""

_OPENERS = frozenset("The A An He She It They We I You But And So Or If In On At As When While After Before Then What Who This That These Those There His Her Its Their Our My".split())  # fmt: skip
"""Words that begin sentences more often than they follow an abbreviation or an initial."""


def first_sentence(text: str) -> str:
    """The text up to its first full stop, question or exclamation mark, or its first line.

    The stop of an abbreviation (Dr., e.g., U.S.), of an initial or between digits is none.
    """
    line = text.strip().split("\n", 1)[0]
    for stop in _STOP.finditer(line):
        if _ends(line, stop):
            return line[: stop.end()]
    return line


def _ends(line: str, stop: re.Match[str]) -> bool:
    """Whether a sentence ends at this stop, by the word before it and the one behind."""
    before, mark, after = line[: stop.start()], stop.group(), line[stop.end() :].lstrip()
    if not any(map(str.isalnum, before)):
        return False
    quoted = mark[0] in ".!?" and mark[-1] not in ".!?"
    if quoted or mark.startswith(("..", "\u2026")):
        return not after[:1].islower()  # "Go!" he said ... and went
    if mark != ".":
        return True
    word = re.split(r"[\s(\[\"'\u2018\u201c-]", before)[-1]
    if word.replace(".", "").lower() in _TITLES:
        # "no." is a number's only before a digit
        return word.lower() in ("no", "nos") and not after[:1].isdigit()
    if len(word) == 1 and word.islower():
        return not after[:1].islower()
    initial = len(word) == 1 and word.isupper()
    if initial or "." in word or word.lower() in _SHORT:
        following = re.match(r"\w+(?!\.\s|\w)", after)
        return following is not None and following.group() in _OPENERS
    return True
