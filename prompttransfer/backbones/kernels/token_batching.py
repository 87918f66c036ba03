"""Which rows run together: as many as the device holds, in order of length, cut where padding costs more than a call.

A call costs something however few rows it has: its Python, and one reading of the weights. Where the rows to come are
so long that padding the others to them would cost more than that, they get a call of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

WINDOW = 8
"""Batches within which the rows of a pass are sorted by length, so that rows of similar length meet."""


def sorts_by_length(rows: int, batch: int) -> bool:
    """Whether training sorts by length: only where a pass has more than one window.

    A window of rows that are always the same ones, sorted, is cut into nearly the same batches in every pass: of the
    pairs that meet in a batch of 16 of 64 rows .96 met again, .24 by chance (docs/transfer-statistics.md).
    """
    return rows - rows % batch > batch * WINDOW


CALL_TOKENS = 100
"""Tokens that a layer runs in the time that its weights take to be read, on a CPU: an estimate."""
CALL_PRODUCTS = 15e6
"""Multiply-adds of a token and a layer that a CPU does in the time of the layer's Python calls, forward and backward.

With `CALL_TOKENS` a call costs what 176 tokens of `microworld-roberta` and 102 of `roberta-base` cost. Measured on the
embedded backbones (2 cores): 175 to 250 tokens in training.
"""
SHAPE_PRODUCTS = 400e6
"""The same in bf16, where oneDNN compiles every product anew, a millisecond each, for every number of rows.

A bank of 16 prompts on `microworld-roberta`, batch 4, 50 steps in bf16 took 9.8 s where padding was cut at 176 tokens,
8.2 s at 500, 5.9 s at 1,500, 5.4 s uncut (2 cores with AMX).
"""

RECORDED_CALL_TOKENS = 1000
"""Tokens that a GPU runs in the time that a recorded call takes however few it has.

Measured on an H100 at 16 and 64 rows: 500 for roberta-large, 1,100 for roberta-base, 1,900 for t5-large.
"""


def cut(sizes: Sequence[int], *, most: int, call: float = math.inf, copies: int = 1) -> Iterator[slice]:
    """Cut rows in order of length into parts that run together; `sizes` are their tokens, prompt included.

    A part has at most `most` tokens, padding included, or a single row; padding in it is at most `call` tokens. Each
    row counts `copies` times.
    """
    start = tokens = 0
    for stop, size in enumerate(sizes):
        padded = (stop + 1 - start) * size * copies
        if stop > start and (padded > most or padded - (tokens + size) * copies > call):
            yield slice(start, stop)
            start, tokens = stop, 0
        tokens += size
    if sizes:
        yield slice(start, len(sizes))


def halve(sizes: Sequence[int], *, most: int) -> Iterator[slice]:
    """Cut rows in order of length into 1, 2, 4, ... parts of as many rows each, whichever cost least on a GPU.

    For calls that are recorded (cuda_graphs.py): parts of any size would be as many recordings. A part has at most `most`
    tokens, padding included, or a single row.
    """
    ways = []
    rows = len(sizes)
    while rows:
        parts = [slice(start, start + rows) for start in range(0, len(sizes), rows)]
        tokens = [len(sizes[part]) * sizes[part][-1] for part in parts]
        if max(tokens) <= most or rows == 1:
            ways.append((sum(tokens) + RECORDED_CALL_TOKENS * len(parts), parts))
        rows = math.ceil(rows / 2) if rows > 1 else 0
    yield from min(ways, key=lambda way: way[0])[1] if ways else ()


def call_tokens(device: torch.device, products: int, dtype: torch.dtype) -> float:
    """Tokens that cost as much as a call, for layers of `products` multiply-adds a token and weights of type `dtype`.

    On a GPU, whose calls wait for Python, more than any padding.
    """
    if device.type == "cuda":
        return math.inf
    return CALL_TOKENS + (SHAPE_PRODUCTS if dtype is torch.bfloat16 else CALL_PRODUCTS) / products


def tokens_at_once(device: torch.device) -> int:
    """Tokens, padding included, that run through a backbone at one time: enough to keep the device busy."""
    return 262_144 if device.type == "cuda" else 8_192
