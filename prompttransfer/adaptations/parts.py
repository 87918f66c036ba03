"""The parts of tasks that share a prompt (`--method mpt`): u and v of each in a file of a few KB, the shared prompt once.

A part holds rows and columns, the record of its adaptation and the digest of the shared prompt that it is of, which lies beside
it. Read again it is the same adaptation, bit for bit, but for the vectors before the first step, which are not kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from prompttransfer.adaptations.adaptation import PROMPT_KEY, Adaptation, digest_tensors
from prompttransfer.adaptations.artifacts import AdaptationRecord, of_record, record
from prompttransfer.adaptations.methods.multitask import Multitask
from prompttransfer.files import atomic_path, safe_name
from prompttransfer.sealed import read_sealed, write_sealed
from tasks.documents import checked, parse_json
from tasks.errors import UserError

SHARED, OWN = "shared", ("rows", "columns")
END = ".part.safetensors"
ADVICE = "write it again with `prompttransfer prompts parts`"


def write_parts(adaptations: Sequence[Adaptation], folder: Path) -> tuple[list[Path], list[Path]]:
    """Write the part of each and every shared prompt once; the paths of both.

    Raises UserError for what has no part, before anything is written.
    """
    for each in adaptations:
        if not isinstance(each.method, Multitask) or not {SHARED, *OWN} <= each.encoder.keys():
            raise UserError(
                f"{each.name!r} is of method {each.method.name}, and only tasks of mpt are a part of a shared prompt"
            )
        if each.head is not None:
            raise UserError(
                f"{each.name!r} has a trained head, which a part of a shared prompt does not hold: keep it whole"
            )
        safe_name(each.name, "prompt name")
    folder.mkdir(parents=True, exist_ok=True)
    parts, shared = [], []
    for each in adaptations:
        common = {SHARED: each.encoder[SHARED]}
        digest = digest_tensors(common)
        place = _shared(folder, digest)
        if place not in shared:
            shared.append(place)
            with atomic_path(place) as temporary:
                write_sealed(temporary, common)
        place = folder / f"{each.name}{END}"
        said = {"adaptation": json.dumps(record(each).as_dict()), SHARED: digest}
        with atomic_path(place) as temporary:
            write_sealed(temporary, {name: each.encoder[name] for name in OWN}, said)
        parts.append(place)
    return parts, shared


def read_part(path: Path) -> Adaptation:
    """The adaptation of a part and the shared prompt beside it.

    Raises UserError where one of them is missing, damaged, or not of the other.
    """
    what = "part of a shared prompt"
    file = read_sealed(path, what, ADVICE)
    digest = file.metadata.get(SHARED, "")
    values = checked(
        AdaptationRecord, parse_json(file.metadata.get("adaptation", ""), f"{what} {path}"), str(path)
    )
    place = _shared(path.parent, digest)
    if not digest or not place.exists():
        raise UserError(f"{what} {path}: its shared prompt {place.name} does not lie beside it; {ADVICE}")
    common = dict(read_sealed(place, "shared prompt", ADVICE).tensors)
    if common.keys() != {SHARED} or digest_tensors(common) != digest or file.tensors.keys() != set(OWN):
        raise UserError(f"{what} {path} is not of the shared prompt {place.name}; {ADVICE}")
    encoder = {**common, **file.tensors}
    found = of_record(values, {PROMPT_KEY: _vectors(encoder)}, encoder=encoder)
    if found.digest != values.digest:
        raise UserError(
            f"{what} {path} does not give the vectors that it says (their digest differs); {ADVICE}"
        )
    return found


def _vectors(encoder: dict[str, Tensor]) -> Tensor:
    """P * (u v), as the member that was trained makes it."""
    return (encoder[SHARED] * (encoder["rows"] @ encoder["columns"])).contiguous()


def _shared(folder: Path, digest: str) -> Path:
    return folder / f"shared-{digest[:16]}.safetensors"
