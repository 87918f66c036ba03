"""`import` and `export`: prompts of other systems in, our prompts out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prompttransfer.backbones.layouts import LAYOUTS
from prompttransfer.cli.options import AsJson, Overwrite, Revision
from prompttransfer.cli.values import OneOf, Output, checked

if TYPE_CHECKING:
    from torch import Tensor

    from prompttransfer.adaptations.adaptation import Adaptation
    from prompttransfer.adaptations.method import Method


@checked
def import_prompt(
    path: Annotated[Path, typer.Argument(help="Torch pickle, .npy, safetensors file or PEFT folder.")],
    backbone: Annotated[
        str, typer.Option("--backbone", "-b", help="The model that the prompt was trained on.")
    ],
    task: Annotated[str, typer.Option("--task", "-t", help="The task that it was trained for.")],
    revision: Revision = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Prompt folder to write; runs/prompts/NAME if not given."),
        Output(),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            "--layout", help="Layout that it was trained under; prompt-first if the file does not tell."
        ),
        OneOf("layout", LAYOUTS),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option("--family", help="masked-lm or t5, where the backbone's name does not tell."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the prompt; the task's if not given.")
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", help="Which array, where the file holds several.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> Adaptation:
    """Make an ordinary folder of what another system saved.

    Reads prompts from the pickles of Su et al. 2022, the .npy files of google-research/prompt-tuning and safetensors
    files, and PEFT folders (soft prompts, LORA with DoRA, ADALORA, VERA, IA3, PREFIX_TUNING). Nothing in a file is run. The backbone need not be at hand: its width is checked where it is.
    """
    from prompttransfer.adaptations.adaptation import PROMPT_KEY, Adaptation, Origin
    from prompttransfer.adaptations.artifacts import MARKERS, check_unlike, save_adaptation
    from prompttransfer.backbones.layouts import Encoding
    from prompttransfer.cli.common import print_json, resolve_tasks, say
    from prompttransfer.files import check_free, safe_name
    from tasks.records import kept_of

    target = resolve_tasks([task])[0]
    called = safe_name(name or target.name, "prompt name")
    place = output or Path("runs/prompts") / called
    check_free(place, marker=MARKERS)
    method, tensors, facts = _read(path, key)
    width = int(tensors[PROMPT_KEY].shape[1]) if method.is_prompt else None
    chosen_family, why_family = choose_family(backbone, family, facts, width=width)
    chosen_layout, why_layout = choose_layout(layout, chosen_family, facts)
    prompt = Adaptation(
        method,
        tensors,
        Origin(
            target.name,
            backbone,
            revision or "",
            family=chosen_family,
            recipe={"imported": facts},
            data={"source": f"imported from {facts['file']} ({facts['format']})", **kept_of(target)},
        ),
        Encoding(chosen_layout),
        called,
    )
    if not overwrite:
        check_unlike(prompt, place)
    folder = save_adaptation(prompt, place)
    for line in describe(facts, prompt):
        say(line, quiet=as_json)
    say(f"family {chosen_family}: {why_family}", quiet=as_json)
    say(f"layout {chosen_layout}: {why_layout}", quiet=as_json)
    if as_json:
        print_json({**facts, "folder": str(folder), "family": chosen_family, "layout": chosen_layout})
    else:
        say(f"written to {folder}")
    return prompt


def _read(path: Path, key: str | None) -> tuple[Method, dict[str, Tensor], dict[str, Any]]:
    """What a file or folder holds, as a method and its tensors, and what it says of itself."""
    from prompttransfer.adaptations.adaptation import PROMPT_KEY
    from prompttransfer.adaptations.exchange import read_foreign
    from prompttransfer.adaptations.methods import make_method
    from prompttransfer.adaptations.peft_folders import TYPES, peft_type, read_peft_folder
    from tasks.errors import UserError

    if path.is_dir() and peft_type(path) in TYPES:
        if key is not None:
            raise UserError(f"--key {key}: a PEFT adapter of type {peft_type(path)} is read whole; drop it")
        return read_peft_folder(path)
    vectors, facts = read_foreign(path, key)
    return make_method("prompt", {"length": len(vectors)}), {PROMPT_KEY: vectors}, facts


def describe(facts: dict[str, Any], prompt: Adaptation) -> list[str]:
    """What was read, a line a fact that a user should know."""
    size = f"{prompt.length} vectors of width {prompt.width}" if prompt.has_vectors else prompt.size
    lines = [f"read {facts['file']}: {facts['format']}, {size}"]
    if facts["stored_as"] != "float32":
        lines.append(f"stored as {facts['stored_as']}, converted to float32")
    if prompt.has_vectors and facts.get("rows", prompt.length) != prompt.length:
        lines.append(
            f"{facts['rows']} rows in the file, the first {prompt.length} are the encoder's and were taken"
        )
    counters = [f"{name} {facts[name]}" for name in ("trained_epoch", "global_step") if name in facts]
    return [*lines, ", ".join(counters)] if counters else lines


def choose_family(
    backbone: str, given: str | None, facts: dict[str, Any], *, width: int | None
) -> tuple[str, str]:
    """The family of a backbone that may not be at hand, and how it is known.

    Order: the backbone's own configuration, what was given, what the file says, the name. Raises UserError where these
    contradict each other, the width differs, or nothing tells.
    """
    from tasks.errors import UserError, unknown
    from tasks.task import FAMILIES

    if given is not None and given not in FAMILIES:
        raise unknown("family", given, FAMILIES)
    local = local_config(backbone)
    if local is not None:
        family, own_width = local
        if width is not None and own_width != width:
            raise UserError(
                f"the prompt has width {width}, but {backbone} has width {own_width}: name the backbone that it was "
                f"trained on"
            )
        if given not in (None, family):
            raise UserError(f"{backbone} is a {family} backbone, not {given}: drop --family")
        return family, f"{backbone} is at hand" + (f" and has width {width} too" if width else "")
    if given is not None:
        return given, "as given; the backbone is not at hand, so its width was not checked"
    if "family" in facts:
        return str(
            facts["family"]
        ), "PEFT's task type says so; the backbone is not at hand, so its width was not checked"
    last = backbone.rstrip("/").rsplit("/", 1)[-1].lower()
    guess = "t5" if "t5" in last else "masked-lm" if "bert" in last else None
    if guess is None:
        raise UserError(
            f"the family of backbone {backbone!r} is not known: give --family {' or '.join(FAMILIES)}"
        )
    return guess, f"guessed from the name {last!r}; the backbone is not at hand, so its width was not checked"


def local_config(backbone: str) -> tuple[str, int] | None:
    """Family and width of a backbone that is embedded or a folder, from its configuration; None if it is elsewhere."""
    from prompttransfer.backbones.locating import EMBEDDED, EMBEDDED_FOLDER
    from tasks.documents import read_json_object, shortened
    from tasks.errors import UserError

    folder = EMBEDDED_FOLDER / backbone if backbone in EMBEDDED else Path(backbone)
    path = folder / "config.json"
    if not path.exists():
        if folder.is_dir() or folder.is_absolute() or backbone.startswith((".", "~")):
            raise UserError(
                f"backbone folder {backbone} has no config.json: give a folder saved by save_pretrained"
            )
        return None

    from prompttransfer.backbones.loading import FAMILIES

    config = read_json_object(path, "configuration", any_number=True)
    kind = config.get("model_type")
    width = config.get("d_model" if kind == "t5" else "hidden_size")
    if not isinstance(kind, str) or not isinstance(width, int) or width < 1:
        raise UserError(
            f"{path} is damaged: it needs model_type and the width, hidden_size (t5: d_model), as in those that "
            "save_pretrained writes"
        )
    if kind not in FAMILIES:
        raise UserError(
            f"backbone {backbone!r} is a {shortened(kind)} model: prompttransfer runs {', '.join(FAMILIES)}"
        )
    return FAMILIES[kind].family, width


def choose_layout(given: str | None, family: str, facts: dict[str, Any]) -> tuple[str, str]:
    """The layout that a prompt was trained under, and how it is known."""
    from prompttransfer.backbones.layouts import find_layout

    if given is not None:
        return find_layout(given, family).name, "as given"
    if "layout" not in facts:
        return "prompt-first", "assumed; say --layout if it was trained under another"
    if family == "t5":
        return "prompt-first", "the code of Su et al. 2022 puts the prompt first on T5"
    return facts["layout"], "the file is of the code of Su et al. 2022; say --layout if it is not"


@checked
def export_prompt(
    prompts: Annotated[list[Path], typer.Argument(help="Prompt folders, or folders of them.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="FILE.safetensors, FILE.npy or, for PEFT, a folder.")
    ],
    format_: Annotated[
        str | None,
        typer.Option("--format", help="safetensors, npy or peft; by the output's name if not given."),
        OneOf("export format", ("npy", "peft", "safetensors")),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> Path:
    """Write adaptations for other programs: a safetensors file with a key a prompt, a .npy array, or a PEFT folder.

    What is no prompt has a key for each of its tensors; PEFT reads the methods that it has.
    """
    from prompttransfer.adaptations.artifacts import find_adaptations, load_adaptation
    from prompttransfer.adaptations.exchange import WRITERS, export_prompts
    from prompttransfer.cli.common import print_json, say
    from prompttransfer.outputs import check_place
    from tasks.errors import UserError, unknown

    chosen = format_ or output.suffix.lstrip(".")
    if not chosen:
        raise UserError(
            f"--output {output}: name a .safetensors or .npy file, or give --format peft for a folder"
        )
    if chosen not in WRITERS:
        raise unknown("export format", chosen, WRITERS)
    check_place(output, folder=chosen == "peft")
    loaded = [load_adaptation(path) for folder in prompts for path in find_adaptations(folder)]
    export_prompts(loaded, output, chosen, overwrite=overwrite)
    if as_json:
        print_json({"output": str(output), "format": chosen, "prompts": [prompt.name for prompt in loaded]})
    else:
        say(f"{', '.join(prompt.name for prompt in loaded)}: written to {output} ({chosen})")
    return output
