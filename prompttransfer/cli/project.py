"""`prompttransfer project`: fit a projector between two backbones, carry prompts across with it, show what it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prompttransfer.cli.options import AsJson, Device, Overwrite
from prompttransfer.cli.project_distil import distil
from prompttransfer.cli.project_fit import fit
from prompttransfer.cli.project_pair import SourceBackbone, SourceRevision, TargetBackbone, TargetRevision
from prompttransfer.cli.project_tables import show_scores
from prompttransfer.cli.project_weights import Directions, Signs, Way, carry_all, compare_ways
from prompttransfer.cli.values import Output, checked

if TYPE_CHECKING:
    from collections.abc import Sequence

project_app = typer.Typer(help="Carry prompts and LoRAs to another backbone.", no_args_is_help=True)
project_app.command("compare")(compare_ways)
project_app.command("distil")(distil)
project_app.command("fit")(fit)


@project_app.command("apply")
@checked
def apply(
    projector: Annotated[
        Path, typer.Argument(help="Projector folder; with --method the first of the folders to carry.")
    ],
    prompts: Annotated[
        list[Path] | None, typer.Argument(help="Prompt folders, or folders of them.", show_default=False)
    ] = None,
    method: Way = None,
    source_backbone: SourceBackbone = None,
    target_backbone: TargetBackbone = None,
    source_revision: SourceRevision = None,
    target_revision: TargetRevision = None,
    rank: Directions = None,
    signs: Signs = "words",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for one folder a prompt."), Output()
    ] = Path("runs/projected"),
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Carry prompts across; what comes out are ordinary prompts of the target, for evaluate and transfer.

    With --method it is LoRAs and their kin, which need no projector: `project apply --method cross-lora
    --target-backbone NAME FOLDER`. What comes out are plain LoRAs of the target.
    """
    given = dict(locals())
    from projectors.weights import Carrier
    from prompttransfer.reports.calls import note_call, remember
    from tasks.errors import UserError

    if method is not None:
        made_in = carry_all(
            [projector, *(prompts or [])],
            Carrier(method, rank, signs),
            source=source_backbone,
            target=target_backbone,
            revisions=(source_revision, target_revision),
            output=output,
            device=device,
            overwrite=overwrite,
            as_json=as_json,
        )
    else:
        unused = {"--target-backbone": target_backbone, "--source-backbone": source_backbone, "--rank": rank}
        for option, value in unused.items():
            if value is not None:
                raise UserError(f"{option} is for LoRAs, with --method: a projector knows its own")
        made_in = carry_prompts(projector, prompts or [], output, overwrite=overwrite, as_json=as_json)
    note_call(made_in, remember("project apply", apply, given))


@project_app.command("show")
@checked
def show(
    projector: Annotated[Path, typer.Argument(help="Projector folder.")], as_json: AsJson = False
) -> None:
    """Show what a projector joins, how it was fitted, its table and whether it is collapsed."""
    from projectors.artifacts import load_projector, read_record
    from prompttransfer.cli.common import print_json, say, table

    if as_json:
        print_json(read_record(projector).model_dump())
        return
    found = load_projector(projector)
    rows = [
        ["takes", f"prompts of {found.source}"],
        ["gives", f"prompts of {found.target}"],
        ["method", f"{found.method}, {found.architecture.name}, seed {found.seed}"],
        ["fitted on", ", ".join(found.tasks) or "no task (shared words only)"],
        ["loss", f"{found.curve[0]:.4f} -> {found.curve[-1]:.4f}" if found.curve else "-"],
        ["parameters", f"{sum(p.numel() for p in found.module.parameters()):,}"],
        ["verdict", found.verdict],
    ]
    table(f"projector {projector}", ["", ""], rows, left=2)
    show_scores(found)
    say("a random source that scores like a projected prompt means that the projector is a constant")


@project_app.command("methods")
def methods() -> None:
    """List the methods, architectures and distances."""
    from projectors.architectures import ARCHITECTURES
    from projectors.fitting import DISTANCES
    from projectors.methods import LABEL_FREE, METHODS
    from projectors.weights import CARRIERS
    from prompttransfer.cli.common import table

    rows = [
        [name, "no" if name in LABEL_FREE else "yes", (method.__doc__ or "").strip().splitlines()[0]]
        for name, method in METHODS.items()
    ]
    table("methods", ["method", "labels", "what it does"], rows, left=3)
    kinds = [[name, (kind.__doc__ or "").strip().splitlines()[0]] for name, kind in ARCHITECTURES.items()]
    table("architectures", ["architecture", "what it is"], kinds, left=2)
    table("distances", ["distance"], [[name] for name in DISTANCES], left=1)
    ways = [[name, (way.__doc__ or "").strip().splitlines()[0]] for name, way in CARRIERS.items()]
    table("for LoRAs, nothing is fitted", ["method", "what an update becomes"], ways, left=2)


def carry_prompts(
    projector: Path, prompts: Sequence[Path], output: Path, *, overwrite: bool, as_json: bool
) -> list[Path]:
    """Carry the prompts of these folders through a projector; returns the folders they lie in now.

    Raises UserError, before anything is written, for prompts of another backbone, two of one name, and other things
    that lie where they would.
    """
    from projectors.artifacts import load_projector
    from projectors.projector import check_source, project
    from prompttransfer.adaptations.artifacts import (
        MARKER,
        check_unlike,
        find_adaptations,
        load_adaptation,
        save_adaptation,
    )
    from prompttransfer.cli.common import print_json, say
    from prompttransfer.files import check_free, safe_name
    from tasks.errors import UserError

    fitted = load_projector(projector)
    if not prompts:
        raise UserError("no prompt given: name prompt folders behind the projector's")
    found = [load_adaptation(folder) for path in prompts for folder in find_adaptations(path)]
    names = [safe_name(prompt.name, "prompt name") for prompt in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(
            f"two prompts are called {twice!r}: carry them one at a time, or to different folders"
        )
    for prompt in found:
        check_source(fitted, prompt)
        check_free(output / prompt.name, marker=MARKER)
    if fitted.collapsed:
        say(f"warning: this projector is {fitted.verdict}", quiet=as_json)
    made = [project(fitted, prompt) for prompt in found]
    for prompt in made if not overwrite else ():
        check_unlike(prompt, output / prompt.name)
    for prompt in made:
        save_adaptation(prompt, output / prompt.name)
        say(
            f"{prompt.name}: now a prompt of {prompt.backbone} ({prompt.length} x {prompt.width})",
            quiet=as_json,
        )
    if as_json:
        print_json([{"name": prompt.name, "folder": str(output / prompt.name)} for prompt in made])
    else:
        say(f"written to {output}; use them with `prompttransfer transfer {output} --to TASK...`")
    return [output / prompt.name for prompt in made]
