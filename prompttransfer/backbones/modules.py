"""The modules that a backbone was loaded with, as far as its engine passes them by.

What a user does to a module (an adapter of peft, a hook, a weight of its own) would be left out where the module does
not run itself, and count where it does. So a model that was changed in such a place is refused until it is itself again.
The frozen engine passes all modules by, the plain one a few.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import is_
from typing import Any

from torch import nn

from tasks.errors import UserError

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""Where a module keeps its hooks."""

LEFT_OUT = (
    "which the frozen engine leaves out: undo it, or load the backbone with engine='plain', which runs the modules as they "
    "are"
)
PASSED_BY = (
    "which is not run as a module: undo it, or merge it, save the model and load that folder as a backbone"
)


class KnownModules:
    """Modules of `model` as they were: `watched`, full name -> module, and with `weights` their parameters too."""

    def __init__(self, model: Any, name: str, watched: Mapping[str, nn.Module], *, weights: bool):
        self.name = name
        self._way_out = LEFT_OUT if weights else PASSED_BY
        self._paths = list(watched)
        self._places = [
            (model.get_submodule(path.rpartition(".")[0])._modules, path.rpartition(".")[2], module)
            for path, module in watched.items()
            if path
        ]
        self._tables = [vars(module) for module in watched.values()]
        self._hooks = [table[kind] for table in self._tables for kind in HOOKS]
        self._hooked = list(map(len, self._hooks))
        owners = watched.values() if weights else ()
        self._parameters = [module._parameters for module in owners if module._parameters]
        self._weights = [
            weight for table in self._parameters for weight in table.values() if weight is not None
        ]
        self._addresses = self._where()

    def _where(self) -> list[int]:
        return [weight.data_ptr() for weight in self._weights]

    def check(self) -> None:
        """Raise UserError if a module or a weight was replaced since, a hook hung in, or a weight is trained."""
        # Lists rather than generators, which take twice as long: this runs before every pass.
        if not all([table.get(key) is child for table, key, child in self._places]):
            key, old, new = next((k, c, t.get(k)) for t, k, c in self._places if t.get(k) is not c)
            raise self._refused(f"{key}, a {_kind(old)}, is now a {_kind(new)}")
        hooked = list(map(len, self._hooks))
        if hooked != self._hooked:
            first = next(i for i, count in enumerate(hooked) if count != self._hooked[i])
            raise self._refused(f"a hook was hung on {self._paths[first // len(HOOKS)] or 'it'}")
        if any(["forward" in table for table in self._tables]):
            first = next(i for i, table in enumerate(self._tables) if "forward" in table)
            raise self._refused(f"{self._paths[first] or 'it'} was given another forward")
        now = [weight for table in self._parameters for weight in table.values() if weight is not None]
        if len(now) != len(self._weights) or not all(map(is_, now, self._weights)):
            raise self._refused("a weight was replaced")
        if self._where() != self._addresses:
            raise self._refused("a weight was moved, or replaced by way of its data")
        if any([weight.requires_grad for weight in now]):
            raise self._refused("its weights require gradients")

    def _refused(self, change: str) -> UserError:
        return _changed(self.name, change, self._way_out)


def check_untouched(model: Any, name: str) -> None:
    """Raise UserError for a model that was changed before its weights are laid out for the frozen engine."""
    for path, module in model.named_modules():
        if type(module).__module__.startswith("peft."):
            raise _changed(name, f"{path} is of peft", LEFT_OUT)
        if any(vars(module)[kind] for kind in HOOKS):
            raise _changed(name, f"{path or 'it'} has a hook", LEFT_OUT)


def _changed(name: str, change: str, way_out: str) -> UserError:
    return UserError(f"the model of backbone {name} was changed ({change}), {way_out}")


def _kind(module: Any) -> str:
    """Whose class a module is of, as in `peft Linear`."""
    kind = type(module)
    return "nothing" if module is None else f"{kind.__module__.split('.')[0]} {kind.__name__}"
