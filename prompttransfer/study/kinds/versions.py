"""Versions of the kinds' code: raise one when the results of its kind change, and its cells are made again."""

from __future__ import annotations

VERSIONS = {
    "prompt": 1,
    "score": 1,
    "tuned": 1,
    "projector": 1,
    "carried": 1,
    "states": 1,
    "indicator": 1,
    "figure": 1,
}
