"""What a shell is offered for values: names of tasks, embedded backbones and methods; `--install-completion` sets it up."""

from __future__ import annotations


def tasks(incomplete: str) -> list[str]:
    """Tasks of the catalogue."""
    from tasks.catalog import all_tasks

    return [name for name in all_tasks() if name.startswith(incomplete)]


def backbones(incomplete: str) -> list[str]:
    """Embedded backbones."""
    from prompttransfer.backbones.locating import EMBEDDED

    return [name for name in EMBEDDED if name.startswith(incomplete)]


def methods(incomplete: str) -> list[str]:
    """Methods, without their settings."""
    from prompttransfer.adaptations.methods import METHODS

    return [name for name in METHODS if name.startswith(incomplete)]
