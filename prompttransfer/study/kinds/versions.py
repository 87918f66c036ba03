"""Versions of the kinds' code: raise one when the results of its kind change, and its cells are made again."""

from __future__ import annotations

VERSIONS = {
    "prompt": 4,
    "score": 4,
    "tuned": 5,
    "projector": 5,
    "carried": 1,
    "states": 3,
    "indicator": 1,
    "figure": 1,
    "shared": 1,
}
