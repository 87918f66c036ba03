"""The modules that a backbone was loaded with: its weights are partly used past them, so no other may take their place.

What an adapter of peft adds to a layer would be left out where that layer's weight is used directly, and counted where
the module runs. So a model that was changed is refused, until it is itself again.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from torch import nn

from tasks.errors import UserError


class KnownModules:
    """A model's tree of modules as it was."""

    def __init__(self, model: Any, name: str):
        self.name = name
        modules: list[tuple[str, nn.Module]] = list(model.named_modules())
        self._children = [
            (path, module._modules, tuple(module._modules.values())) for path, module in modules
        ]
        adapter = next(
            (path for path, module in modules if type(module).__module__.startswith("peft.")), None
        )
        if adapter is not None:
            raise self._refused(f"{adapter} is of peft")

    def check(self) -> None:
        """Raise UserError if a module was put in, taken out or replaced since."""
        if all(tuple(now.values()) == known for _, now, known in self._children):
            return
        raise self._refused(
            next(
                f"in {path or 'the model'}, {_kind(old)} is now {_kind(new)}"
                for path, now, known in self._children
                for old, new in zip_longest(known, now.values())
                if old is not new
            )
        )

    def _refused(self, change: str) -> UserError:
        return UserError(
            f"the model of backbone {self.name} was changed ({change}), as an adapter of peft does: unload it; or merge it "
            f"(merge_and_unload), save the model and load that folder as a backbone"
        )


def _kind(module: nn.Module | None) -> str:
    """Whose class a module is of, as in `peft Linear`."""
    kind = type(module)
    return "nothing" if module is None else f"{kind.__module__.split('.')[0]} {kind.__name__}"
