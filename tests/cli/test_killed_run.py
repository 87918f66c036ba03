"""A training whose process is killed: the same command goes on from what was kept, to the same prompt and one log."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from calls import exit_code as run
from toys import write_toy

from prompttransfer.adaptations.artifacts import load_adaptation

STEPS = 200
COMMAND = (
    *(
        "train",
        "--task",
        "film.yaml",
        "--backbone",
        "model",
        "--data",
        "data",
        "--length",
        "3",
        "--batch",
        "4",
    ),
    *("--steps", str(STEPS), "--evaluate-every", "2", "--precision", "fp32", "--output"),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, backbone_folder) -> Path:
    """Two folders: `killed` by the same command after a process of it was killed, and `whole`, never interrupted."""
    place = tmp_path_factory.mktemp("killed")
    words = (("bad", "negative"), ("good", "positive"), ("dull", "negative"))
    write_toy(place, "film", [(f"the film was {word}", label) for word, label in words for _ in range(4)])
    (place / "model").symlink_to(backbone_folder("roberta"))
    process = subprocess.Popen(
        [sys.executable, "-m", "prompttransfer", *COMMAND, "killed"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=place,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list(place.glob("killed/.training-*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(place.glob("killed/.training-*.safetensors"))
    assert not (place / "killed" / "film" / "adaptation.json").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert run(*COMMAND, "killed") == 0 == run(*COMMAND, "whole")
    return place


def test_a_run_that_is_killed_goes_on_to_the_same_prompt(world: Path) -> None:
    one, other = (load_adaptation(world / output / "film") for output in ("killed", "whole"))
    assert (one.vectors == other.vectors).all() and one.curve == other.curve
    assert not list(world.glob("killed/.training-*"))


def points(path: Path) -> list[tuple[int, float]]:
    rows = csv.DictReader(path.read_text().splitlines())
    return [(int(row["step"]), float(row["prompt0/validation"])) for row in rows]


def test_a_killed_run_has_one_log_with_every_point_once(world: Path) -> None:
    (log,) = (world / "killed" / "logs").iterdir()
    curve = points(log / "metrics.csv")
    assert curve == points(world / "whole" / "logs" / "version_0" / "metrics.csv")
    assert [step for step, _ in curve] == list(range(0, STEPS + 1, 2))
