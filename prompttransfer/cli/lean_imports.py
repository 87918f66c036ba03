"""A quicker start: what other packages import or read for features that are not used here is left out.

It takes three of the ten seconds before a first training step (scripts/benchmark.py --only start). Only the
command line does this, in a process of its own: for whoever imports prompttransfer, the other packages are whole.
Where another version of theirs has no such place, it just takes longer; tests/cli/test_lean_imports.py would tell.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError
from types import ModuleType
from typing import Any

Surroundings = Callable[[ModuleType], AbstractContextManager[None]]
"""What is done before and after a module runs for the first time."""


def make_imports_lean() -> None:
    """Take care, from now on, of the modules in `SURROUNDINGS` when they are first imported."""
    sys.meta_path.insert(0, _Finder())


class _Finder:
    """Finds a module of `SURROUNDINGS` as the others do, and lets it run in its surroundings."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As in `importlib.abc.MetaPathFinder`."""
        if name not in SURROUNDINGS:
            return None
        sys.meta_path.remove(self)  # so that the others are asked
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            loader.exec_module = _within(SURROUNDINGS[name], loader.exec_module)
        return spec


def _within(
    surroundings: Surroundings, execute: Callable[[ModuleType], None]
) -> Callable[[ModuleType], None]:
    def run(module: ModuleType) -> None:
        with surroundings(module):
            execute(module)

    return run


@contextmanager
def _no_sound_no_plots(torchmetrics: ModuleType) -> Iterator[None]:
    """torchmetrics, which Lightning imports, finds neither scipy nor matplotlib, and leaves out metrics that need them."""
    from lightning_utilities.core import imports

    hidden = ("scipy", "matplotlib")

    def find_spec(name: str) -> ModuleSpec | None:
        return None if name in hidden else importlib.util.find_spec(name)

    def version(name: str) -> str:
        if name in hidden:
            raise PackageNotFoundError(name)
        return importlib.metadata.version(name)

    imports.package_available.cache_clear()
    with _replaced(imports, find_spec=find_spec, _version=version):
        yield
    imports.package_available.cache_clear()


@contextmanager
def _no_object_detection(losses: ModuleType) -> Iterator[None]:
    """The losses of image models in transformers, imported with any model, do without scipy.optimize."""
    import transformers.utils

    with _replaced(transformers.utils, is_scipy_available=lambda: False):
        yield


@contextmanager
def _models_listed_once(import_utils: ModuleType) -> Iterator[None]:
    """transformers reads the files of all its models twice to list their names, as its cache is too small for them."""
    yield
    listing: Any = vars(import_utils).get("create_import_structure_from_path")
    if hasattr(listing, "__wrapped__"):
        unlimited = lru_cache(maxsize=None)(listing.__wrapped__)
        setattr(import_utils, listing.__name__, unlimited)


@contextmanager
def _replaced(module: ModuleType, **replacements: Any) -> Iterator[None]:
    """Put others in the place of those names that `module` has, for a while."""
    known = {name: vars(module)[name] for name in replacements if name in vars(module)}
    for name in known:
        setattr(module, name, replacements[name])
    try:
        yield
    finally:
        for name, value in known.items():
            setattr(module, name, value)


SURROUNDINGS: dict[str, Surroundings] = {
    "torchmetrics": _no_sound_no_plots,
    "transformers.loss.loss_utils": _no_object_detection,
    "transformers.utils.import_utils": _models_listed_once,
}
