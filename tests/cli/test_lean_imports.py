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


def test_the_other_packages_work_and_find_scipy_and_matplotlib_again():
    code = (
        "from prompttransfer.cli.lean_imports import make_imports_lean; make_imports_lean()\n"
        "import torchmetrics, transformers, transformers.loss.loss_utils\n"
        "from lightning_utilities.core import imports\n"
        "print(float(torchmetrics.MeanMetric()(3.0)), transformers.utils.is_scipy_available())\n"
        "print(imports.package_available('scipy'), bool(imports.RequirementCache('matplotlib')))\n"
        "import scipy.signal, matplotlib.pyplot"
    )
    assert python("-c", code).stdout.split() == ["3.0", "True", "True", "True"]


def test_transformers_lists_its_models_once_and_as_it_would():
    code = (
        "import sys; from prompttransfer.cli.lean_imports import make_imports_lean\n"
        "if len(sys.argv) > 1: make_imports_lean()\n"
        "import transformers; from transformers import AutoModel; from transformers.utils import import_utils\n"
        "folders = import_utils.create_import_structure_from_path.cache_info().misses\n"
        "print(folders, len(dir(transformers)), len(dir(transformers.models)))"
    )
    own, lean = (python("-c", code, *more).stdout.split() for more in ((), ("lean",)))
    assert own[1:] == lean[1:] and int(lean[0]) < 0.6 * int(own[0])


def test_whoever_imports_the_package_gets_all_of_torchmetrics():
    code = "import sys, prompttransfer.training.train; print('scipy.signal' in sys.modules, 'matplotlib' in sys.modules)"
    assert python("-c", code).stdout.split() == ["True", "True"]


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
