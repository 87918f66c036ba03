"""Mutants of a file: what disks, editors and strangers make of it. The same generator gives the same mutants.

A mutant keeps the file's form where it can, because what no parser reads is refused early: `json_mutants` change values
and keys inside the document, `header_mutants` those in the header of a safetensors file, `bytes_mutants` anything.
"""

from __future__ import annotations

import json
import random
import re
import struct
from collections.abc import Callable, Iterator

import yaml

Mutate = Callable[[bytes, random.Random], bytes]

DEEP = 100_000
VALUES = (
    None, True, False, 0, -1, 3, 1.5, -0.0, 1e300, 10**30, -(2**63), "", "x", "a b", "\x00", "\x1b[2J", "../../x",
    "é" * 40, "1", "nan", [], {}, [1], [None], ["x", "x"], {"a": 1}, {"": None}, [[1.0]], {"mean": "x"}, "y" * 5000,
)  # fmt: skip
"""What a value may become."""


def bytes_mutants(content: bytes, draw: random.Random) -> bytes:
    """Cut, flipped, filled, doubled, emptied, or with bytes of another encoding."""
    place = draw.randrange(len(content) + 1)
    other = draw.randrange(len(content) + 1)
    low, high = sorted((place, other))
    bit = bytes([content[place] ^ (1 << draw.randrange(8))]) if place < len(content) else b"\xff"
    return draw.choice(
        [
            content[:place],
            content[place:],
            content[:place] + bit + content[place + 1 :],
            content[:place] + bit + content[place + 1 :],
            content[:low] + content[high:],
            content[:low] + bytes(high - low) + content[high:],
            content + content,
            content[:place] + draw.randbytes(draw.randrange(1, 9)) + content[place:],
            content[:place] + b"\x00" + content[place:],
            content[:place] + b"\xff\xfe" + content[place:],
            b"\xef\xbb\xbf" + content,
            content.decode("utf-8", "replace").encode("utf-16"),
            b"",
            b"[" * DEEP,
            b'{"a":' * DEEP,
        ]
    )


def text_mutants(content: bytes, draw: random.Random) -> bytes:
    """The same, and tokens of the text changed for others."""
    if draw.random() < 0.4:
        return bytes_mutants(content, draw)
    text = content.decode()
    words = list(re.finditer(r"[\w.-]+", text))
    if not words:
        return content
    word = draw.choice(words)
    new = draw.choice(
        [
            "",
            "nan",
            "inf",
            "-1",
            "1e999",
            "9" * 5000,
            "0x_",
            '"',
            "\n",
            ",",
            "x",
            "a" * 200_000,
            "\x00",
            "1_0",
            "é",
        ]
    )
    return (text[: word.start()] + new + text[word.end() :]).encode()


# Documents -------------------------------------------------------------------------------------------------------


def mutate_value(value: object, draw: random.Random) -> object:
    """The value with one place in it changed: dropped, added, given another type, doubled or nested deeply."""
    places = list(_places(value))
    if not places:
        return draw.choice(VALUES)
    path = draw.choice(places)
    holder = value
    for step in path[:-1]:
        holder = holder[step]  # type: ignore[index]
    step = path[-1]
    kind = draw.choice(("drop", "add", "retype", "retype", "retype", "rename", "repeat", "nest", "swap"))
    if kind == "drop":
        del holder[step]  # type: ignore[attr-defined]
    elif kind == "add" and isinstance(holder, dict):
        holder[draw.choice(("zz", "", "\x00", "a.b", "__class__", "self"))] = draw.choice(VALUES)
    elif kind == "rename" and isinstance(holder, dict):
        holder[str(step) + draw.choice(("x", " ", "2"))] = holder.pop(step)
    elif kind == "repeat" and isinstance(holder, list):
        holder.insert(draw.randrange(len(holder) + 1), holder[step])  # type: ignore[call-overload]
    elif kind == "nest":
        nested = holder[step]  # type: ignore[index]
        for _ in range(draw.choice((1, 50, 150, 400))):
            nested = draw.choice(([nested], {"a": nested}))
        holder[step] = nested  # type: ignore[index]
    elif kind == "swap":
        first, second = path, draw.choice(places)
        if first[:-1] == second[:-1]:
            other = second[-1]
            holder[step], holder[other] = holder[other], holder[step]  # type: ignore[index]
    else:
        holder[step] = draw.choice(VALUES)  # type: ignore[index]
    return value


def _places(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, below in inner:
        yield (*path, step)
        yield from _places(below, (*path, step))


def json_mutants(content: bytes, draw: random.Random) -> bytes:
    """A JSON document with something in it changed, or what only its text can have: a key twice, NaN, a deep nest."""
    kind = draw.random()
    if kind < 0.15:
        return bytes_mutants(content, draw)
    value = mutate_value(json.loads(content), draw)
    text = json.dumps(value)
    if kind < 0.3 and (keys := list(re.finditer(r'"[\w.-]*": ', text))):
        key = draw.choice(keys)
        new = draw.choice(
            [
                key[0] + '"x", ' + key[0], key[0] + "NaN, " + '"zz": ', key[0] + "Infinity", key[0] + "1e999, " + '"zz": ',
                key[0] + "[" * DEEP, key[0] + "7" * 5000 + ', "zz": ', key[0] + "7" * 400 + ', "zz": ',
                key[0] + '"\\ud800", "zz": ', key[0] + "-", key[0] + "'x', ",
            ]
        )  # fmt: skip
        text = text[: key.start()] + new + text[key.end() :]
    return text.encode()


SCALARS = (
    "2026-02-30", "0x_", "!!bool maybe", "!!timestamp x", "!!int x", "!!float x", "!!binary é", "!!null x", "!!set x",
    "!!python/object:os.system x", "!unknown x", "1:99:99", "0b", "0o9", "9" * 5000, "0x" + "f" * 20000, ".inf", "2024-01-01",
    "~", "yes", "[", "{a: }", "*none", "&a [*a]", "<<", "? [a]", "{[1]: 2}", "{{a: 1}: 2}", "!!omap [1]", "!!pairs [1]",
    "!!set {a, b}", "!!str [1]", "'", '"\\ud800"', "1e999", "\t", "@", "%", "|", "- 1", "\x00", "1:" * 3000 + "1",
)  # fmt: skip
"""What a scalar of YAML may become."""

BOMB = "\n".join(
    ["a0: &a0 [x, x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)), ""]
)
MERGED = "\n".join(
    ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}], y{n}: 1}}" for n in range(1, 10)), ""]
)  # fmt: skip
CHAIN = "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 1500)), ""])


def yaml_mutants(content: bytes, draw: random.Random) -> bytes:
    """A YAML document with something in it changed, scalars that PyYAML refuses, keys twice, bombs of aliases."""
    kind = draw.random()
    if kind < 0.15:
        return bytes_mutants(content, draw)
    if kind < 0.5:
        return json.dumps(mutate_value(yaml.safe_load(content), draw)).encode()  # which is YAML too
    text = content.decode()
    if kind < 0.6:
        return (draw.choice((BOMB, MERGED, CHAIN, "x: &x {<<: *x}\n", "x: &x [*x]\n")) + text).encode()
    lines = text.splitlines()
    if kind < 0.7:
        return "\n".join([*lines, draw.choice(lines), *lines[-1:]]).encode()
    scalars = list(re.finditer(r"(?<=[:,\[] )[\w.-]+", text))
    place = draw.choice(scalars)
    return (text[: place.start()] + draw.choice(SCALARS) + text[place.end() :]).encode()


# Tensors ---------------------------------------------------------------------------------------------------------


def header_mutants(content: bytes, draw: random.Random) -> bytes:
    """A safetensors file whose header says something else: other sizes, types, names, or other JSON in its metadata."""
    kind = draw.random()
    if kind < 0.2:
        return bytes_mutants(content, draw)
    (size,) = struct.unpack("<Q", content[:8])
    data = content[8 + size :]
    if kind < 0.3:
        return (
            struct.pack("<Q", draw.choice((0, 1, size - 1, size + 1, 2**31, 2**40, 2**63, 2**64 - 1)))
            + content[8:]
        )
    header = json.loads(content[8 : 8 + size])
    meta = header.get("__metadata__")
    if meta and draw.random() < 0.8:
        meta.pop("sha256", None)  # files of earlier versions carry no digest
    if meta and kind < 0.75:
        key = draw.choice(sorted(meta))
        try:
            json.loads(meta[key])
            meta[key] = json_mutants(meta[key].encode(), draw).decode("utf-8", "replace")
        except ValueError:
            meta[key] = draw.choice(("", "x", "[]", "{}"))
    elif kind < 0.85:
        names = [name for name in header if name != "__metadata__"]
        entry = header[draw.choice(names)]
        change = draw.choice(("dtype", "shape", "order", "name"))
        if change == "dtype":
            entry["dtype"] = draw.choice(
                ("I32", "U32", "F16", "BF16", "F64", "I64", "U8", "BOOL", "C64", "F8_E4M3", "X")
            )
        elif change == "shape":
            entry["shape"] = draw.choice(
                ([], [1], list(reversed(entry["shape"])), [1, *entry["shape"]], [2**40, 2**40], [-1])
            )
        elif change == "name":
            header[draw.choice(("zz", "", "optimizer.x.y", "moment.a.b", "vectors.9"))] = header.pop(names[0])
        else:
            entry["data_offsets"] = draw.choice(([0, 0], [4, 0], [0, 2**60], [-1, 4], "x"))
    else:
        header = mutate_value(header, draw)  # type: ignore[assignment]
    text = json.dumps(header).encode()
    if draw.random() < 0.5 and data:  # values that are not finite
        place = draw.randrange(max(1, len(data) // 4)) * 4
        data = (
            data[:place]
            + struct.pack("<f", draw.choice((float("nan"), float("inf"), 1e30)))
            + data[place + 4 :]
        )
    return struct.pack("<Q", len(text)) + text + data


def npy_mutants(content: bytes, draw: random.Random) -> bytes:
    """A .npy file with another header: types, sizes, orders, lengths that are not there."""
    if draw.random() < 0.3:
        return bytes_mutants(content, draw)
    head = draw.choice(
        [
            "{'descr': '|O', 'fortran_order': False, 'shape': (5, 16), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-5, -16), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 1099511627776), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (100000000000,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",), }",
            "{'descr': [('a', '<f4'), ('b', '<i4')], 'fortran_order': False, 'shape': (5, 8), }",
            "{'descr': '<f4', 'fortran_order': 'x', 'shape': (5, 16), }",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (5, 16), }",
            "{'descr': '<c8', 'fortran_order': False, 'shape': (5, 8), }",
            "{'descr': '>f4', 'fortran_order': False, 'shape': (5, 16), }",
            "{'descr': '<i4', 'fortran_order': False, 'shape': (5, 16), }",
            "{'descr': '<f2', 'fortran_order': False, 'shape': (5, 16), }",
            "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (5, 8), }",
            "{'descr': '<U4', 'fortran_order': False, 'shape': (5, 4), }",
            "{'descr': ',', 'fortran_order': False, 'shape': (5, 16), }",
            "{'descr': ('<f4', (2, 2)), 'fortran_order': False, 'shape': (5, 4), }",
            "{'descr': '<f4', 'shape': (5, 16), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (5, True), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': [5, 16], }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (5.0, 16), }",
            "[" * 90_00, "(" * 300, "{", "__import__('os')", "None", "{'descr': '<f4'" + ", 'x': 1" * 9000 + "}",
        ]
    )  # fmt: skip
    data = content[128:]
    version = draw.choice((1, 2, 3, 9))
    text = head.encode("latin1") + b"\n"
    length = draw.choice((len(text), len(text), len(text), 0, 2**16 - 1, 2**32 - 1))
    size = struct.pack("<H", min(length, 2**16 - 1)) if version == 1 else struct.pack("<I", length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data
