"""Where the files of a backbone are: embedded in the package, in a local folder, in another package, or on the hub.

Nothing heavy is imported here, so that a name that is nothing, or a hub that is out of reach, is said at once.
"""

from __future__ import annotations

import difflib
import logging
from pathlib import Path

from prompttransfer.backbones.packaged import PACKAGED, SUFFIX, is_packaged, packaged_folder
from prompttransfer.backbones.revisions import differing, folder_revision
from tasks.errors import MachineError, UserError, unknown

EMBEDDED_FOLDER = Path(__file__).parents[1] / "embedded"
EMBEDDED = ("microworld-roberta", "microworld-roberta-wide", "microworld-t5")

HUB_NAMES = (
    *("roberta-base", "roberta-large", "distilroberta-base"),
    *("bert-base-cased", "bert-base-uncased", "bert-large-cased", "bert-large-uncased"),
    *("t5-small", "t5-base", "t5-large", "t5-3b", "t5-11b"),
    *("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2"),
)
"""Names without an owner that the hub knows; used only to guess what a mistyped name was meant to be."""


def locate(name: str, revision: str | None = None) -> tuple[str, str]:
    """Where the files of a backbone are and what revision they are at: (folder, revision), see backbones/revisions.py.

    `revision` is the commit, branch or tag of a hub model to take; of a folder it is what it must be at. Raises
    UserError for a name that is nothing or not at that revision, MachineError when the hub cannot be reached.
    """
    folder = local_folder(name)
    if folder is None:
        return _hub_snapshot(name, revision)
    here = folder_revision(folder)
    if revision is not None and differing(revision, here):
        raise UserError(
            f"backbone {name} is at revision {here} (differs in {', '.join(differing(revision, here))}), not at "
            f"{revision}: --revision chooses among those of a hub model; a folder has the one that lies in it"
        )
    return str(folder), here


def check_name(name: str) -> None:
    """Raise UserError for a name that is nothing, as far as that can be said at once: nothing is converted for it."""
    if name.endswith(SUFFIX) and not Path(name).is_file():
        raise UserError(f"backbone file {name} does not exist: give a GGUF file, or a folder of a model")
    if not is_packaged(name):
        local_folder(name)


def local_folder(name: str) -> Path | None:
    """The folder of an embedded backbone or one on this disk; None for a name that only the hub can know.

    Raises UserError for a name that is nothing, as far as that can be said without asking the hub.
    """
    if name in EMBEDDED:
        return EMBEDDED_FOLDER / name
    if is_packaged(name):
        return packaged_folder(name)
    path = Path(name)
    if path.is_dir():
        if (path / "adapter_config.json").exists():
            raise UserError(
                f"backbone folder {name} is one of peft (adapter_config.json), not a whole model: merge it with "
                f"merge_and_unload() and save that, or read a prompt with `prompttransfer import`"
            )
        if not (path / "config.json").exists():
            raise UserError(
                f"backbone folder {name} has no config.json: give a folder saved by save_pretrained"
            )
        return path
    if path.is_absolute() or name.startswith((".", "~")):
        raise UserError(f"backbone folder {name} does not exist: give a folder saved by save_pretrained")
    close = difflib.get_close_matches(name, [*EMBEDDED, *PACKAGED, *HUB_NAMES], n=1, cutoff=0.8)
    if close and close[0] != name and "/" not in name:
        raise unknown("backbone", name, [*EMBEDDED, *PACKAGED, *HUB_NAMES])
    return None


def _hub_snapshot(name: str, revision: str | None) -> tuple[str, str]:
    """The local snapshot of a hub model at a revision, downloaded if need be, and its commit."""
    import huggingface_hub
    from huggingface_hub.errors import (
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    wanted = ["*.json", "*.safetensors", "*.model", "*.txt"]
    try:
        folder = huggingface_hub.snapshot_download(
            name, revision=revision, local_files_only=True, allow_patterns=wanted
        )
        if any(Path(folder).glob("*.safetensors")):
            return folder, Path(folder).name
    except LocalEntryNotFoundError:
        pass
    except Exception as error:
        raise unknown("backbone", name, [*EMBEDDED, *PACKAGED, *HUB_NAMES]) from error
    try:
        huggingface_hub.HfApi().model_info(name, revision=revision, timeout=4)
        folder = huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=wanted)
    except RevisionNotFoundError as error:
        raise UserError(
            f"backbone {name!r} has no revision {revision!r}: give a commit, branch or tag of it"
        ) from error
    except RepositoryNotFoundError as error:
        raise unknown("backbone", name, [*EMBEDDED, *PACKAGED, *HUB_NAMES]) from error
    except Exception as error:
        at = f" at revision {revision!r}" if revision else ""
        raise MachineError(
            f"cannot reach the Hugging Face hub for backbone {name!r}{at} ({type(error).__name__}): connect, or give "
            f"the path of a local folder saved by save_pretrained, or use an embedded backbone ({', '.join(EMBEDDED)})"
        ) from error
    return folder, Path(folder).name
