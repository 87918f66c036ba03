"""`backbones list`: the models that can run here and now."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from prompttransfer.cli.options import AsJson
from prompttransfer.cli.values import checked

if TYPE_CHECKING:
    from prompttransfer.backbones.available import Available

backbones_app = typer.Typer(help="The frozen models that can run here.", no_args_is_help=True)


@backbones_app.command("list")
@checked
def list_backbones(as_json: AsJson = False) -> list[Available]:
    """List the backbones that can run without a network: embedded, packaged and installed, in the hub's cache."""
    from prompttransfer.backbones.available import available_backbones
    from prompttransfer.cli.common import print_json, say, table

    found = available_backbones()
    if as_json:
        print_json([asdict(each) for each in found])
        return found
    rows = [
        [each.name, each.where, each.model_type or "-", "yes" if each.runs else "no", each.note or "-"]
        for each in found
    ]
    table(f"{sum(each.runs for each in found)} backbones that can run here", ["name", "where", "type", "runs", "note"], rows, left=5)  # fmt: skip
    say("also: any folder saved by save_pretrained, a GGUF file, and what the hub has (docs/backbones.md)")
    return found
