"""`push` and `pull`: adaptations to the Hugging Face hub and from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prompttransfer.cli.options import AsJson, Overwrite
from prompttransfer.cli.values import Output, checked

if TYPE_CHECKING:
    from prompttransfer.adaptations.hub import Pulled, Shared

Repo = Annotated[str, typer.Argument(help="Repository of the hub, OWNER/NAME.")]


@checked
def push(
    folders: Annotated[list[Path], typer.Argument(help="Prompt folders, or folders of them.")],
    repo: Annotated[str, typer.Option("--to", help="Repository of the hub, OWNER/NAME; made if not there.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private, if it is made.")
    ] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch to put it on; main if not given.")
    ] = None,
    message: Annotated[str, typer.Option("--message", help="Message of the commit.")] = "",
    licence: Annotated[
        str, typer.Option("--licence", help="Licence of the data, for the card, where its source tells none.")
    ] = "",
    local_backbone: Annotated[
        bool,
        typer.Option("--local-backbone", help="Share also what was trained on a folder of this machine."),
    ] = False,
    as_json: AsJson = False,
) -> Shared:
    """Put one adaptation, or a folder of them, on the hub, with a model card: tables, controls, licence of the data, use.

    Sent are the files of adaptations alone, in one commit. Log in first (`hf auth login`, or HF_TOKEN).
    """
    from prompttransfer.adaptations import hub
    from prompttransfer.cli.common import few, print_json, say

    found = hub.push(
        folders,
        repo,
        private=private,
        revision=revision,
        message=message,
        licence=licence,
        local_backbone=local_backbone,
    )
    if as_json:
        print_json({"repo": found.repo, "commit": found.commit, "url": found.url, "names": list(found.names)})
    else:
        say(f"pushed {few(found.names)} to {found.url}")
        say(f"again from there: prompttransfer pull {found.repo} --revision {found.commit}")
    return found


@checked
def pull(
    repo: Repo,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for one folder an adaptation."),
        Output(),
    ] = Path("runs/prompts"),
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch, tag or commit; main if not given.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> Pulled:
    """Fetch the adaptations of a repository of the hub, check them, and put each into a folder of its own."""
    given = dict(locals())
    from prompttransfer.adaptations import hub
    from prompttransfer.cli.common import print_json, say
    from prompttransfer.reports.calls import note_call, remember

    found = hub.pull(repo, output, revision=revision, overwrite=overwrite)
    note_call(found.folders, remember("pull", pull, given, revision=found.commit))
    if as_json:
        folders = [str(folder) for folder in found.folders]
        print_json({"repo": found.repo, "commit": found.commit, "folders": folders})
        return found
    for folder in found.folders:
        there = " (was there, the same)" if folder in found.there else ""
        say(f"{folder}{there}")
    say(f"from {found.repo} at commit {found.commit}")
    return found
