"""What can go wrong, in two kinds: the user's mistake (exit code 2) and the machine's fault (exit code 3).

Either is one clear line: what was given, what was needed, what to do. The command line prints the line and no
traceback; a Python caller catches the exception.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class UserError(ValueError):
    """A request that cannot be met as given; the message says what was given, what was needed and what to do."""


class MissingError(UserError):
    """A file that is not there."""


class MachineError(RuntimeError):
    """A fault of the machine (disk full, memory gone, hub out of reach), not of the request."""


class UnreadableError(MachineError):
    """A file that is there but cannot be read now (permission, I/O, too many open files): neither damaged nor missing.

    What depends on it must not be made again over it.
    """


def unknown(kind: str, name: str, available: Iterable[str]) -> UserError:
    """The error for a name that is not in a dict: `unknown projector 'liner': did you mean 'linear'? available: ...`."""
    names = sorted(available)
    name = name if len(name) <= 200 else name[:200] + "..."
    close = difflib.get_close_matches(name.lower(), [n.lower() for n in names], n=1, cutoff=0.5)
    hint = next((f" did you mean {n!r}?" for n in names if close and n.lower() == close[0]), "")
    return UserError(f"unknown {kind} {name!r}:{hint} available: {', '.join(names)}")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's and NumPy's own, torch's on a CPU or GPU, the system's."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    said = str(error).lower()
    return isinstance(error, (RuntimeError, OSError)) and any(words in said for words in _NO_MEMORY)


_NO_MEMORY = (
    "out of memory",
    "allocate memory",
    "not enough memory",
    "bad_alloc",
    "cuda_error_alloc",
    "alloc_failed",
)
