"""Prompts of other systems: read into plain vectors, and written in formats that others read.

A file is known by its first bytes, never by its name. Pickles are read with `weights_only=True` and NumPy files
without pickles, so a file from a stranger can be wrong but cannot run code.

    torch        one tensor, or a checkpoint with the prompt under `model` (thunlp/Prompt-Transferability 1.0 saves both)
    npy          one NumPy array (google-research/prompt-tuning)
    safetensors  one array a key
    peft         a folder with adapter_config.json and adapter_model.safetensors (or .bin)
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from prompttransfer.adaptations.adaptation import Adaptation, same_tensors
from prompttransfer.adaptations.artifacts import PROMPT_KEY, peft_config
from prompttransfer.adaptations.peft_folders import CONFIG, PICKLE, WEIGHTS, families, read_config
from prompttransfer.files import atomic_folder, atomic_path, check_free, write_json
from prompttransfer.outputs import taken
from prompttransfer.tensor_files import check_regular, read_numpy, read_tensors, read_torch
from tasks.documents import cannot_read, shortened
from tasks.errors import UserError, unknown

EXPORTED = "prompttransfer export"
"""Metadata key that marks a safetensors file as ours, which a later export may replace."""


class Foreign(NamedTuple):
    """What `read_foreign` returns."""

    vectors: Tensor
    """[length, width] float32."""
    facts: dict[str, Any]
    """What the file says of itself: `format`, `file`, `stored_as`, and where they are known `key`, `trained_epoch`,
    `global_step`, `base_model`, `family`, `layout`, `rows`."""


def read_foreign(path: Path, key: str | None = None) -> Foreign:
    """Read a soft prompt that another system saved; `key` chooses one of several arrays.

    Raises UserError for a file that is missing, cut short, of no known format, or holds no [length, width] array of
    finite floats.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"no such prompt: {path}")
    if path.is_dir():
        vectors, facts = _read_peft(path, key)
    else:
        check_regular(path, "prompt")
        head = _head(path)
        name = next((name for name, (fits, _) in READERS.items() if fits(head)), None)
        if name is None:
            raise UserError(
                f"{path} is not a prompt that can be read (empty, or cut short, or of another format): give a torch "
                f"pickle, a .npy array, a safetensors file or a PEFT folder"
            )
        vectors, facts = READERS[name][1](path, key)
    facts["file"] = path.name
    return Foreign(_checked(vectors, path, facts), facts)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(16)
    except OSError as error:
        raise cannot_read(path, "prompt", error) from None


def _checked(vectors: Tensor, path: Path, facts: dict[str, Any]) -> Tensor:
    """The vectors as float32; the type they were stored in goes into the facts."""
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise UserError(
            f"{path} holds an array of shape {list(vectors.shape)}: a soft prompt is [length, width]"
        )
    if not vectors.is_floating_point():
        raise UserError(f"{path} holds {_dtype(vectors)}: a soft prompt is made of floats")
    if (
        vectors.layout != torch.strided
        or vectors.untyped_storage().nbytes() < vectors.numel() * vectors.element_size()
    ):
        raise UserError(f"{path} holds an array that is sparse or folded: save a plain one")
    facts["stored_as"] = _dtype(vectors)
    converted = vectors.detach().to(torch.float32).contiguous().clone()
    if not torch.isfinite(converted).all():
        raise UserError(f"{path} has values that are not finite in float32: it cannot be used as a prompt")
    return converted


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


# Formats -----------------------------------------------------------------------------------------------------


def _read_torch(path: Path, key: str | None) -> tuple[Tensor, dict[str, Any]]:
    """A torch pickle: a tensor (`*.task_prompt` of Su et al.), or a dict that holds the prompt under `model`."""
    value = read_torch(path, "prompt")
    if isinstance(value, Tensor):
        _no_key(path, key)
        known = {"layout": "su2022"} if path.suffix == ".task_prompt" else {}
        return value, {"format": "torch", **known}
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}: a tensor or a dict of tensors is needed")
    counters = {
        name: value[name] for name in ("trained_epoch", "global_step") if isinstance(value.get(name), int)
    }
    if isinstance(value.get("model"), Tensor) and key in (None, "model"):
        known = {"layout": "su2022"} if len(counters) == 2 else {}
        return value["model"], {"format": "torch checkpoint", "key": "model", **counters, **known}
    inner = value["model"] if isinstance(value.get("model"), dict) else value
    tensors = {k: v for k, v in inner.items() if isinstance(k, str) and isinstance(v, Tensor)}
    vectors, chosen = _choose(tensors, key, path)
    return vectors, {"format": "torch checkpoint", "key": chosen, **counters}


def _read_numpy(path: Path, key: str | None) -> tuple[Tensor, dict[str, Any]]:
    _no_key(path, key)
    array = read_numpy(path, "prompt")
    if array.dtype.kind != "f":
        raise UserError(f"{path} holds {shortened(str(array.dtype))}: a soft prompt is made of floats")
    width = array.dtype.itemsize
    native = array.astype(f"=f{width}" if width in (2, 4, 8) else np.float64)
    return torch.from_numpy(native), {"format": "npy"}


def _read_safetensors(path: Path, key: str | None) -> tuple[Tensor, dict[str, Any]]:
    vectors, chosen = _choose(read_tensors(path, "prompt").tensors, key, path)
    return vectors, {"format": "safetensors", "key": chosen}


def _read_peft(folder: Path, key: str | None) -> tuple[Tensor, dict[str, Any]]:
    """A PEFT folder; only the encoder's rows are taken where PEFT kept rows for T5's decoder too (peft_model.py)."""
    config = read_config(folder)
    kind = str(config.get("peft_type"))
    if kind != "PROMPT_TUNING":
        raise UserError(
            f"{folder} is a PEFT adapter of type {shortened(kind)}, not a soft prompt (PROMPT_TUNING): "
            f"`prompttransfer import` reads it where a method here is of that type"
        )
    weights = next((folder / n for n in (WEIGHTS, PICKLE) if (folder / n).exists()), None)
    if weights is None:
        raise UserError(f"{folder} has no {WEIGHTS} and no {PICKLE}: the adapter is incomplete")
    read = _read_torch if weights.name == PICKLE else _read_safetensors
    vectors, facts = read(weights, key or PROMPT_KEY)
    length = config.get("num_virtual_tokens")
    if (
        not isinstance(length, int)
        or isinstance(length, bool)
        or vectors.ndim != 2
        or length < 1
        or len(vectors) % length
    ):
        raise UserError(
            f"{folder}: {weights.name} holds {list(vectors.shape)}, which does not fit num_virtual_tokens {shortened(str(length))} "
            f"of {CONFIG}"
        )
    return vectors[:length], {**facts, "format": "peft", "rows": len(vectors), **families(config)}


def _choose(tensors: Mapping[str, Tensor], key: str | None, path: Path) -> tuple[Tensor, str]:
    """The array called `key`, or the only one."""
    if not tensors:
        raise UserError(f"{path} holds no array")
    if key is None and len(tensors) > 1:
        shown = shortened(", ".join(sorted(tensors)), 400)
        raise UserError(f"{path} holds {len(tensors)} arrays: choose one with --key; available: {shown}")
    chosen = next(iter(tensors)) if key is None else key
    if chosen not in tensors:
        raise unknown(f"key in {path}:", chosen, tensors)
    return tensors[chosen], chosen


def _no_key(path: Path, key: str | None) -> None:
    if key is not None:
        raise UserError(f"{path} holds one array without a name: drop --key {key}")


Reader = Callable[[Path, "str | None"], tuple[Tensor, dict[str, Any]]]
READERS: dict[str, tuple[Callable[[bytes], bool], Reader]] = {
    "npy": (lambda head: head.startswith(b"\x93NUMPY"), _read_numpy),
    "safetensors": (lambda head: head[8:9] == b"{", _read_safetensors),
    "torch": (lambda head: head.startswith((b"PK\x03\x04", b"\x80")), _read_torch),
}
"""Format -> (whether the first 16 bytes of a file are of it, what reads it)."""


# Writing -----------------------------------------------------------------------------------------------------


def export_prompts(
    prompts: Sequence[Adaptation], output: Path, format_: str, *, overwrite: bool = False
) -> Path:
    """Write prompts for other programs to `output`, whole or not at all; only an equal export is there already,
    or with `overwrite` another of the same kind.

    Raises UserError for an unknown format, several prompts where one fits, or an output that holds something else.
    """
    if format_ not in WRITERS:
        raise unknown("export format", format_, WRITERS)
    if not prompts:
        raise UserError("no prompt given: name at least one prompt folder")
    for prompt in prompts:
        if format_ != "safetensors" and prompt.head is not None:
            raise UserError(
                f"{prompt.name!r} has a trained head of {prompt.head.told}, for which {format_} has no place and without which "
                f"it answers nothing: export it to .safetensors"
            )
    if len(prompts) > 1 and format_ != "safetensors":
        raise UserError(
            f"{format_} holds one prompt, {len(prompts)} given: export them one at a time, or to .safetensors"
        )
    if format_ != "peft" and output.is_dir():
        raise UserError(f"output {output} is a folder: give the name of a .{format_} file with --output")
    WRITERS[format_](prompts, output, overwrite)
    return output


def _write_safetensors(prompts: Sequence[Adaptation], output: Path, overwrite: bool) -> None:
    names = [prompt.name for prompt in prompts]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(
            f"two prompts are called {twice!r}: a file has one key a prompt, so export them apart"
        )
    if output.exists() and EXPORTED not in _metadata(output):
        raise _taken(output)
    about = {p.name: {"task": p.task, "backbone": p.backbone, "layout": p.layout} for p in prompts}
    tensors = {key: tensor.contiguous() for prompt in prompts for key, tensor in _keyed(prompt).items()}
    if output.exists() and not overwrite and not _holds(output, tensors, about):
        raise taken(output, "an export of other prompts")
    with atomic_path(output) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt", EXPORTED: json.dumps(about)})


def _keyed(one: Adaptation) -> dict[str, Tensor]:
    """Key of a file -> tensor: a prompt's vectors under its name, what else there is (its head) under `name/its own name`."""
    head = {} if one.head is None else {f"{one.name}/{name}": t for name, t in one.head.tensors().items()}
    if one.has_vectors:
        return {one.name: one.vectors, **head}
    return {**{f"{one.name}/{name}": tensor for name, tensor in one.tensors.items()}, **head}


def _holds(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> bool:
    """Whether an export of ours is of these prompts; the order of a file's entries is not always the same."""
    there = read_tensors(path, "export").tensors
    same = _metadata(path).get(EXPORTED) == json.dumps(about) and there.keys() == tensors.keys()
    return same and all(torch.equal(there[name], tensor) for name, tensor in tensors.items())


def _metadata(path: Path) -> Mapping[str, str]:
    if not path.is_file():  # a pipe would be waited for
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def _write_numpy(prompts: Sequence[Adaptation], output: Path, overwrite: bool) -> None:
    stream = io.BytesIO()
    np.save(stream, prompts[0].vectors.numpy(), allow_pickle=False)
    # A .npy file cannot say that it is ours, so nothing but the same bytes is replaced unasked.
    if output.exists() and not overwrite and output.read_bytes() != stream.getvalue():
        raise taken(output, "something else")
    with atomic_path(output) as temporary:
        temporary.write_bytes(stream.getvalue())


def _write_peft(adaptations: Sequence[Adaptation], output: Path, overwrite: bool) -> None:
    one = adaptations[0]
    config = peft_config(one)
    if config is None:
        raise UserError(
            f"PEFT has nothing that {one.method} of {one.name!r} ({one.family}) could be read as: export it to .safetensors"
        )
    if one.layout != "prompt-first" and one.family != "t5":
        raise UserError(
            f"{one.method.called} {one.name!r} was trained under layout {one.layout!r}, but PEFT puts prompts first and "
            f"would give other answers: export it to .safetensors{' or .npy' if one.has_vectors else ''}"
        )
    check_free(output, marker=CONFIG)
    if output.is_dir() and any(output.iterdir()):
        kind = read_config(output).get("peft_type")
        if kind != config["peft_type"] or {p.name for p in output.iterdir()} - {CONFIG, WEIGHTS}:
            raise _taken(output)
        there = read_tensors(output / WEIGHTS, "export").tensors
        if not overwrite and not (
            same_tensors(there, one.tensors) and read_config(output) == _as_read(config)
        ):
            raise taken(output, f"an export of another {one.method.called}")
    with atomic_folder(output, marker=CONFIG) as temporary:
        tensors = {name: tensor.contiguous() for name, tensor in one.tensors.items()}
        save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        write_json(temporary / CONFIG, config)


def _as_read(config: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(config))


def _taken(output: Path) -> UserError:
    return UserError(
        f"output {output} exists and is something else: choose another with --output, or remove it"
    )


WRITERS: dict[str, Callable[[Sequence[Adaptation], Path, bool], None]] = {
    "safetensors": _write_safetensors,
    "npy": _write_numpy,
    "peft": _write_peft,
}
"""Format -> what writes it."""
