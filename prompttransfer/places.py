"""Where the files of a backbone are: embedded in the package, in a local folder, or on the hub.

Nothing heavy is imported here, so that a name that is nothing, or a hub that is out of reach, is said at once.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
from pathlib import Path

from tasks.errors import MachineError, UserError, unknown

EMBEDDED_FOLDER = Path(__file__).parent / "embedded"
EMBEDDED = ("microworld-roberta", "microworld-roberta-wide", "microworld-t5")

HUB_NAMES = (
    *("roberta-base", "roberta-large", "distilroberta-base"),
    *("bert-base-cased", "bert-base-uncased", "bert-large-cased", "bert-large-uncased"),
    *("t5-small", "t5-base", "t5-large", "t5-3b", "t5-11b"),
)
"""Names without an owner that the hub knows; used only to guess what a mistyped name was meant to be."""


def locate(name: str) -> tuple[str, str]:
    """Where the files of a backbone are and what revision they are: (folder, revision).

    The revision is the commit of a hub model, the digest of the weights of a folder. Raises UserError for a name that
    is nothing, MachineError when the hub cannot be reached.
    """
    folder = local_folder(name)
    if folder is not None:
        return str(folder), _weights_digest(folder)
    return _hub_snapshot(name)


def local_folder(name: str) -> Path | None:
    """The folder of an embedded backbone or one on this disk; None for a name that only the hub can know.

    Raises UserError for a name that is nothing, as far as that can be said without asking the hub.
    """
    if name in EMBEDDED:
        return EMBEDDED_FOLDER / name
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").exists():
            raise UserError(
                f"backbone folder {name} has no config.json: give a folder saved by save_pretrained"
            )
        return path
    if path.is_absolute() or name.startswith((".", "~")):
        raise UserError(f"backbone folder {name} does not exist: give a folder saved by save_pretrained")
    close = difflib.get_close_matches(name, [*EMBEDDED, *HUB_NAMES], n=1, cutoff=0.8)
    if close and close[0] != name and "/" not in name:
        raise unknown("backbone", name, [*EMBEDDED, *HUB_NAMES])
    return None


def _hub_snapshot(name: str) -> tuple[str, str]:
    """The local snapshot of a hub model, downloaded if need be, and its commit."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    wanted = ["*.json", "*.safetensors", "*.model", "*.txt"]
    try:
        folder = huggingface_hub.snapshot_download(name, local_files_only=True, allow_patterns=wanted)
        if any(Path(folder).glob("*.safetensors")):
            return folder, Path(folder).name
    except LocalEntryNotFoundError:
        pass
    except Exception as error:
        raise unknown("backbone", name, [*EMBEDDED, *HUB_NAMES]) from error
    try:
        huggingface_hub.HfApi().model_info(name, timeout=4)
        folder = huggingface_hub.snapshot_download(name, allow_patterns=wanted)
    except RepositoryNotFoundError as error:
        raise unknown("backbone", name, [*EMBEDDED, *HUB_NAMES]) from error
    except Exception as error:
        raise MachineError(
            f"cannot reach the Hugging Face hub for backbone {name!r} ({type(error).__name__}): connect, or give the "
            f"path of a local folder saved by save_pretrained, or use an embedded backbone ({', '.join(EMBEDDED)})"
        ) from error
    return folder, Path(folder).name


def _weights_digest(folder: Path) -> str:
    """`sha256:` and 16 digits over the weight files of a folder."""
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise UserError(f"backbone folder {folder} holds no weights (*.safetensors)")
    sha = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            for block in iter(lambda: stream.read(1 << 22), b""):
                sha.update(block)
    return f"sha256:{sha.hexdigest()[:16]}"
