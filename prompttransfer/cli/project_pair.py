"""The two backbones of `project`: their options, loading both, and the call that is kept with what came of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from prompttransfer.backbones.base import Backbone

SourceBackbone = Annotated[
    str | None, typer.Option(help="Where they are from; as they say themselves if not given.")
]
TargetBackbone = Annotated[str | None, typer.Option(help="Where they go.")]
SourceRevision = Annotated[str | None, typer.Option(help="Commit of a hub source backbone.")]
TargetRevision = Annotated[str | None, typer.Option(help="Commit of a hub target backbone.")]


def load_pair(given: Mapping[str, Any], source: str, target: str) -> tuple[Backbone, Backbone]:
    """Source and target as the options `given` ask for: their revisions, one precision, one device."""
    from prompttransfer.backbones.loading import load_backbone

    common = {"precision": given["precision"], "device": given["device"]}
    return (
        load_backbone(source, revision=given["source_revision"], **common),
        load_backbone(target, revision=given["target_revision"], **common),
    )


def remember_pair(
    verb: str, command: Callable[..., Any], given: Mapping[str, Any], source: Backbone, target: Backbone
) -> dict[str, Any]:
    """The call of a command between two backbones as JSON, with the names, commits and precision that were used."""
    from prompttransfer.reports.calls import commit_of, precision_name, remember

    return remember(
        verb, command, given, precision=precision_name(source.precision),
        source_backbone=source.name, source_revision=commit_of(source.revision),
        target_backbone=target.name, target_revision=commit_of(target.revision),
    )  # fmt: skip
