"""Rows for the benchmark: random tokens with the lengths of real tasks.

Speed depends on lengths, not on words. `QUANTILES` holds 40 equally likely lengths a task, measured on public copies
of the data sets (training rows) as words and punctuation marks, a word of nine letters and more counting as two;
`measure` does the same to the rows of any folder.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

QUANTILES: dict[str, tuple[int, ...]] = {
    "sst2": (
        *(4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 16, 17, 18, 18, 19, 20, 20, 21),
        *(22, 23, 24, 24, 25, 26, 27, 27, 28, 29, 31, 32, 33, 34, 36, 37, 39, 41, 45, 50),
    ),
    "snli": (
        *(12, 13, 14, 15, 16, 16, 17, 17, 18, 18, 19, 19, 20, 20, 20, 21, 21, 22, 22, 23),
        *(23, 24, 24, 25, 25, 26, 27, 27, 28, 29, 30, 30, 31, 32, 33, 35, 36, 38, 41, 48),
    ),
    "imdb": (
        *(56, 77, 92, 106, 120, 133, 142, 147, 152, 156, 161, 164, 169, 173, 179, 185, 193, 199, 207, 213),
        *(
            221,
            229,
            239,
            249,
            258,
            272,
            286,
            303,
            319,
            339,
            362,
            387,
            412,
            451,
            489,
            540,
            610,
            721,
            873,
            1114,
        ),
    ),
    "squad": (
        *(62, 87, 99, 110, 117, 120, 123, 126, 128, 130, 133, 135, 138, 141, 143, 146, 149, 151, 155, 158),
        *(161, 166, 171, 175, 179, 183, 187, 192, 197, 203, 210, 216, 226, 235, 245, 258, 273, 296, 319, 368),
    ),
}
"""Task -> 40 lengths in tokens, from short to long, each standing for one fortieth of the rows."""

LONGEST = 128
"""Text tokens kept, as in training."""


@dataclass(frozen=True)
class Sample:
    """One row: tokens of its text and its label (0 or 1)."""

    ids: tuple[int, ...]
    label: int


def draw(lengths: Sequence[int], count: int, *, vocabulary: int, seed: int = 0) -> list[Sample]:
    """Rows of random ordinary tokens with lengths drawn from `lengths`."""
    chance = random.Random(seed)
    return [
        Sample(
            tuple(
                chance.randrange(10, vocabulary - 200) for _ in range(min(LONGEST, chance.choice(lengths)))
            ),
            chance.randrange(2),
        )
        for _ in range(count)
    ]


def lengths_of(task: str, data: Path | None) -> tuple[int, ...]:
    """The stored lengths of a task, or those measured in `data/<task>/train.jsonl`."""
    return QUANTILES[task] if data is None else measure(data / task / "train.jsonl")


def measure(path: Path) -> tuple[int, ...]:
    """Estimated number of tokens of every row of a file of JSON lines."""
    fields = ("text", "text_a", "text_b", "question", "context", "document")
    lengths = []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            text = " ".join(row[field] for field in fields if row.get(field))
            lengths.append(sum(1 + (len(word) > 8) for word in re.findall(r"\w+|[^\w\s]", text)))
    return tuple(sorted(lengths))
