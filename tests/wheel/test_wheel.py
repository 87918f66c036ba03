"""The wheel as a stranger gets it: built from the source distribution, put where only what it declares can be imported, and used.

Nothing is downloaded. The environment is new; beside the wheel it has links to the installed packages that the wheel
requires, and to those that these require, so an import of anything else fails as it would for the stranger.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator, Sequence
from email.parser import BytesParser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("prompttransfer", "tasks", "projectors", "analysis")
SMALL = "--steps 2 --evaluate-every 1 --batch 4 --limit-train 24 --limit-test 8 --precision fp32".split()
IMPORT_ALL = """
import importlib, pkgutil
for top in {packages}:
    package = importlib.import_module(top)
    for module in pkgutil.walk_packages(package.__path__, top + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""


def call(words: Sequence[str | Path], folder: Path) -> str:
    """What a command prints, run in `folder` with nothing of this environment."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    kept |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, words)], cwd=folder, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(kind: str, source: Path, output: Path) -> Path:
    call([sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", output], source)
    (made,) = output.iterdir()
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what the source distribution holds, as pip does where there is no wheel."""
    source = tmp_path_factory.mktemp("source")
    with tarfile.open(sdist) as archive:
        archive.extractall(source, filter="data")
    (unpacked,) = source.iterdir()
    return build("wheel", unpacked, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that has the wheel and what it requires."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=False)
    python = place / "bin" / "python"
    call(
        [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel], place
    )
    site = Path(call([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], place).strip())
    for one in required(wheel):
        for top in {path.parts[0] for path in one.files or () if path.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():
                (site / top).symlink_to(one.locate_file(top))
    return python.parent


def required(wheel: Path) -> Iterator[metadata.Distribution]:
    """The installed distributions that the wheel needs without extras, through all that they need in turn."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = BytesParser().parsebytes(archive.read(name)).get_all("Requires-Dist") or []
    wanted, seen = [(line, "") for line in lines], set()
    while wanted:
        line, extra = wanted.pop()
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        found = metadata.distribution(requirement.name)
        assert requirement.specifier.contains(found.version, prereleases=True), f"{line}: {found.version}"
        for asked in ("", *requirement.extras):
            if (requirement.name, asked) not in seen:
                seen.add((requirement.name, asked))
                wanted += [(needed, asked) for needed in found.requires or ()]
                yield found


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        ours = {name.split(".dist-info/")[1] for name in archive.namelist() if ".dist-info/" in name}
    kept = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == kept
    assert {f"{package}/py.typed" for package in PACKAGES} <= held
    assert any(name.endswith("/model.safetensors") for name in held)  # the embedded models
    assert "prompttransfer/study/shipped/demo.yaml" in held and not any(
        "test" in Path(name).parts[0] for name in held
    )
    assert {"licenses/LICENSE", "entry_points.txt"} <= ours


def test_the_source_distribution_holds_what_is_needed_to_test_it(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "pyproject.toml",
        "constraints.txt",
        "README.md",
        "LICENSE",
        "CITATION.cff",
        "Makefile",
        "mkdocs.yml",
    ):
        assert name in held
    assert "tests/conftest.py" in held and "docs/index.md" in held
    assert not [name for name in held if name.startswith((".venv", "runs/", "build/"))]


def test_every_module_can_be_imported_with_nothing_but_what_is_declared(
    installed: Path, tmp_path: Path
) -> None:
    call([installed / "python", "-c", IMPORT_ALL.format(packages=PACKAGES)], tmp_path)


def test_the_program_says_its_version_lists_its_tasks_and_trains(installed: Path, tmp_path: Path) -> None:
    program = installed / "prompttransfer"
    (version,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert call([program, "--version"], tmp_path).strip().endswith(version)
    assert "microworld-imdb" in call([program, "tasks", "list"], tmp_path)
    call([program, "train", "--task", "microworld-imdb", *SMALL, "--output", "runs"], tmp_path)
    assert (tmp_path / "runs" / "microworld-imdb" / "adapter_model.safetensors").is_file()
