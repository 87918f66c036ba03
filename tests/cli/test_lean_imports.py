"""The command line starts without what torchmetrics would import for metrics that are not used here."""

import os
import subprocess
import sys

import pytest

from prompttransfer.cli.waiting import others_running, wait_briefly

UNUSED = ("scipy.signal", "scipy.optimize", "matplotlib")


def python(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=300, check=True
    )


def test_a_training_command_imports_no_scipy_and_no_matplotlib(tmp_path):
    command = ("train", "--task", "microworld-sst2", "--output", str(tmp_path), "--dry-run")
    done = python("-X", "importtime", "-m", "prompttransfer", *command)
    assert "expected peak memory" in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "torchmetrics.metric" in imported
    assert [name for name in UNUSED if name in imported] == []


LISTS = """
import transformers
from transformers import AutoModel
from transformers.utils import import_utils
folders = import_utils.create_import_structure_from_path.cache_info().misses
print(folders, len(dir(transformers)), len(dir(transformers.models)))
"""
AFTERWARDS = """
import torchmetrics, transformers.loss.loss_utils
from lightning_utilities.core import imports
print(float(torchmetrics.MeanMetric()(3.0)), transformers.utils.is_scipy_available())
print(imports.package_available("scipy"), bool(imports.RequirementCache("matplotlib")))
import scipy.signal, matplotlib.pyplot
"""


@pytest.fixture(scope="module")
def lean():
    """What a process prints that imports the other packages as the command line does."""
    begin = "from prompttransfer.cli.lean_imports import make_imports_lean; make_imports_lean()"
    return python("-c", begin + LISTS + AFTERWARDS).stdout.split()


@pytest.fixture(scope="module")
def whole():
    """What one prints that imports the package, as from Python."""
    after = "import sys, prompttransfer.training.train\n"
    return python(
        "-c", LISTS + after + "print(*(name in sys.modules for name in ('scipy.signal', 'matplotlib')))"
    ).stdout.split()


def test_the_other_packages_work_and_find_scipy_and_matplotlib_again(lean):
    assert lean[3:] == ["3.0", "True", "True", "True"]


def test_transformers_lists_its_models_once_and_as_it_would(whole, lean):
    assert whole[1:3] == lean[1:3] and int(lean[0]) < 0.6 * int(whole[0])


def test_whoever_imports_the_package_gets_all_of_torchmetrics(whole):
    assert whole[3:] == ["True", "True"]


@pytest.mark.parametrize(
    ("given", "busy", "wanted"),
    [
        ({}, 0, {"GOMP_SPINCOUNT": "2000"}),
        ({}, os.cpu_count(), {"GOMP_SPINCOUNT": "0"}),
        ({"GOMP_SPINCOUNT": "7"}, 0, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, os.cpu_count(), {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)
def test_threads_wait_briefly_and_not_at_all_beside_others_unless_the_user_says_how(given, busy, wanted):
    environment = dict(given)
    wait_briefly(environment, busy=busy)
    assert environment == wanted


def test_who_else_runs_is_read_where_the_system_says_it(tmp_path):
    said = tmp_path / "loadavg"
    said.write_text("0.52 0.40 0.38 3/116 9933\n")
    assert list(others_running(said)) == [2, 2, 2]
    assert list(others_running(tmp_path / "nothing")) == []
