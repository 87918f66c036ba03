"""Versions of the kinds' code: raise one when the results of its kind change, and its cells are made again."""

from __future__ import annotations

VERSIONS = {
    "prompt": 4,
    "score": 4,
    "tuned": 4,
    "projector": 4,
    "carried": 1,
    "states": 3,
    "indicator": 1,
    "figure": 1,
}
