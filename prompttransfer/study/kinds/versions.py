"""Versions of the kinds' code: raise one when the results of its kind change, and its cells are made again."""

from __future__ import annotations

VERSIONS = {
    "prompt": 2,
    "score": 2,
    "tuned": 2,
    "projector": 2,
    "carried": 1,
    "states": 2,
    "indicator": 1,
    "figure": 1,
}
