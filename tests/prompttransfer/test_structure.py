"""The house: imports go one way, importing is light, and a stranger's package of the same name is reported."""

import ast
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[2]
ORDER = ("tasks", "prompttransfer", "projectors", "analysis")
"""Each package may import itself and those before it."""
LOOKERS = (
    "cli",
    "study",
    "indicators",
    "advice",
    "reporting",
    "report_commands",
    "report_pictures",
    "run_folder",
    "masking",
    "neurons",
    "neuron_states",
    "__main__",
)
"""Parts of prompttransfer that may look at everything; nothing in the rest of it imports them."""


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


def part_of(path):
    """`cli` for prompttransfer/cli/train.py, `training` for prompttransfer/training.py."""
    return path.relative_to(HOME / "prompttransfer").parts[0].removesuffix(".py")


@pytest.mark.parametrize("package", ORDER)
def test_imports_go_one_way(package):
    later = ORDER[ORDER.index(package) + 1 :]
    wrong = [
        f"{path.relative_to(HOME)}: {name}"
        for path in modules(package)
        for name in imported(path)
        if name.split(".")[0] in later and not (package == "prompttransfer" and part_of(path) in LOOKERS)
    ]
    assert wrong == []


def test_the_core_does_not_import_what_looks_at_everything():
    wrong = [
        f"{path.relative_to(HOME)}: {name}"
        for package in ORDER[:3]
        for path in modules(package)
        if package != "prompttransfer" or part_of(path) not in LOOKERS
        for name in imported(path)
        if name.startswith("prompttransfer.") and name.split(".")[1] in LOOKERS
    ]
    assert wrong == []


def test_nothing_imports_scripts_or_tests():
    outside = ("scripts", "tests", "conftest", *(path.stem for path in (HOME / "scripts").glob("*.py")))
    wrong = [
        f"{path.relative_to(HOME)}: {name}"
        for package in ORDER
        for path in modules(package)
        for name in imported(path)
        if name.split(".")[0] in outside
    ]
    assert wrong == []


def test_every_module_says_what_it_is():
    silent = [
        str(path.relative_to(HOME))
        for package in ORDER
        for path in modules(package)
        if path.stat().st_size and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_no_pickle_is_written():
    writers = ("torch.save", "pickle.dump", "pickle.dumps", "joblib.dump")
    found = []
    for path in (path for package in ORDER for path in modules(package)):
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
    code = (
        "import pkgutil, importlib, prompttransfer\n"
        "for found in pkgutil.walk_packages(prompttransfer.__path__, 'prompttransfer.'):\n"
        "    if '__main__' not in found.name and 'ray' not in found.name: importlib.import_module(found.name)\n"
        "print([name for name in prompttransfer.__all__ if name != '__version__' and not callable(getattr(prompttransfer, name))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
