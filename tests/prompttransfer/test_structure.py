"""The house: imports go one way, importing is light, and a stranger's package of the same name is reported."""

import ast
import importlib
import os
import pkgutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[2]
PACKAGES = ("tasks", "prompttransfer", "projectors", "analysis")
ROOMS = (
    "tasks",
    "files",
    "distributed",
    "backbones",
    "adaptations",
    "evaluation",
    "training",
    "analysis",
    "neurons",
    "transfers",
    "projectors",
    "reports",
    "study",
    "cli",
)
"""Rooms of the house from the ground up: each imports itself and those before it."""
FILES = ("files", "sealed", "tensor_files", "signals", "outputs")
"""Modules directly in prompttransfer, together the room `files`: reading, writing and stopping."""


def modules(package):
    return sorted((HOME / package).rglob("*.py"))


@cache
def imported(path):
    """Full names of the modules that a file imports anywhere in it, also inside functions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def room(module):
    """`cli` for prompttransfer.cli.train, `files` for prompttransfer.sealed, `tasks` for tasks.hub."""
    parts = module.split(".")
    if parts[0] != "prompttransfer":
        return parts[0]
    part = parts[1] if len(parts) > 1 else "__init__"
    return "files" if part in FILES else part


def module_of(path):
    """prompttransfer.cli.train for prompttransfer/cli/train.py."""
    return ".".join(path.relative_to(HOME).with_suffix("").parts).removesuffix(".__init__")


def resolved(name):
    """The module that a full name is, or lies in."""
    while name and not (place(name).with_suffix(".py").exists() or place(name).is_dir()):
        name = name.rpartition(".")[0]
    return name


def place(module):
    return HOME / module.replace(".", "/")


@cache
def arrows():
    """(importing module, imported module) for all of the house."""
    return [
        (module_of(path), resolved(name))
        for package in PACKAGES
        for path in modules(package)
        for name in imported(path)
        if name.split(".")[0] in PACKAGES
    ]


def test_every_module_is_in_a_room():
    every = {module_of(path) for package in PACKAGES for path in modules(package)}
    assert {room(module) for module in every} == {*ROOMS, "__init__", "__main__"}


def test_imports_go_one_way():
    floor = {name: index for index, name in enumerate(ROOMS)} | {"__main__": len(ROOMS)}
    wrong = [
        f"{here} imports {there}"
        for here, there in arrows()
        if room(here) != "__init__" and floor[room(there)] > floor[room(here)]
    ]
    assert wrong == []


def test_no_two_modules_import_each_other():
    found = set(arrows())
    assert [pair for pair in sorted(found) if pair[0] < pair[1] and pair[::-1] in found] == []


def test_every_room_says_what_lives_there():
    rooms = [folder for package in PACKAGES for folder in (HOME / package).rglob("*") if holds_code(folder)]
    silent = [
        str(f.relative_to(HOME))
        for f in rooms
        if not ast.get_docstring(ast.parse((f / "__init__.py").read_text()))
    ]
    assert rooms and silent == []


def holds_code(folder):
    return folder.is_dir() and any(folder.glob("*.py"))


def test_nothing_imports_scripts_or_tests():
    outside = ("scripts", "tests", "conftest", *(path.stem for path in (HOME / "scripts").glob("*.py")))
    wrong = [
        f"{path.relative_to(HOME)}: {name}"
        for package in PACKAGES
        for path in modules(package)
        for name in imported(path)
        if name.split(".")[0] in outside
    ]
    assert wrong == []


def test_every_module_says_what_it_is():
    silent = [
        str(path.relative_to(HOME))
        for package in PACKAGES
        for path in modules(package)
        if path.stat().st_size and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_no_pickle_is_written():
    writers = ("torch.save", "pickle.dump", "pickle.dumps", "joblib.dump")
    found = []
    for path in (path for package in PACKAGES for path in modules(package)):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        found += [f"{path.name}: {ast.unparse(call)}" for call in calls if ast.unparse(call) in writers]
    assert found == []


def python(code, path=(HOME,)):
    """Run code in a fresh interpreter, in the first folder of `path`, that finds packages in `path` first."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(folder) for folder in path)}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        cwd=path[0],
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("module", ["tasks", "prompttransfer", "prompttransfer.cli"])
def test_importing_is_light(module):
    heavy = ("torch", "transformers", "lightning", "datasets", "pandas", "matplotlib", "sklearn")
    done = python(f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])")
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_a_strangers_tasks_module_is_reported(tmp_path):
    (tmp_path / "tasks.py").write_text("todo = ['write thesis']\n")
    done = python("import prompttransfer", (tmp_path, HOME))
    assert done.returncode == 1
    assert "prompttransfer needs its own package 'tasks'" in done.stderr
    assert str(tmp_path) in done.stderr


def test_verbs_stay_functions_when_everything_is_imported() -> None:
    import prompttransfer

    for found in pkgutil.walk_packages(prompttransfer.__path__, "prompttransfer."):
        if "__main__" not in found.name and "ray" not in found.name:
            importlib.import_module(found.name)
    names = [name for name in prompttransfer.__all__ if name != "__version__"]
    assert [name for name in names if not callable(getattr(prompttransfer, name))] == []
