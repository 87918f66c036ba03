"""Shipped studies, found by name: `find_study` takes a path or the name of a shipped file."""

from __future__ import annotations

from pathlib import Path

from prompttransfer.study.plan.reading import StudyFile, read_study
from tasks.errors import UserError, unknown

SHIPPED = Path(__file__).parents[1] / "shipped"


def shipped_studies() -> dict[str, Path]:
    """Name -> file of the studies that come with the package."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def study_path(name: str) -> Path:
    """The file that a person means: a path, or the name of a shipped study. A file of that name goes first."""
    path = Path(name)
    if path.is_file():
        return path
    if name in shipped_studies():
        return shipped_studies()[name]
    if path.suffix in (".yaml", ".yml") or "/" in name:
        raise UserError(f"no study file {name}; shipped are: {', '.join(shipped_studies())}")
    raise unknown("study", name, shipped_studies())


def find_study(name: str) -> StudyFile:
    """A study by path or by the name of a shipped one, checked."""
    return read_study(study_path(name))
