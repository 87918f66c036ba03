"""Adaptations that run together."""

from __future__ import annotations

from collections.abc import Sequence

from prompttransfer.adaptations.adaptation import Prompt, check_runs_on
from prompttransfer.backbones.base import Backbone
from tasks.errors import UserError


def common_layout(backbone: Backbone, prompts: Sequence[Prompt], *, other_layout: bool = False) -> str:
    """The layout that all prompts share; UserError if they differ or one does not run on the backbone."""
    if not prompts:
        raise UserError("no prompt given: name at least one prompt folder")
    names = [prompt.name for prompt in prompts]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two prompts are called {twice!r}: rename one folder's prompt, or give one of them")
    layout = prompts[0].layout
    for prompt in prompts:
        check_runs_on(
            prompt,
            backbone=backbone.name,
            revision=backbone.revision,
            width=backbone.width,
            family=backbone.family,
            layout=layout,
            other_layout=other_layout,
            other_backbone=backbone.takes_any,
        )
    return layout
