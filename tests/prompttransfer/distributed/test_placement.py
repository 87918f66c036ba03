"""Placement: two processes train the prompts that one would, each with its share of the rows and of the weights."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import placed_runs
import pytest
import torch
from calls import exit_code
from conftest import KINDS
from slurm import ALLOCATION, srun_variables

from prompttransfer.adaptations.artifacts import load_adaptation
from prompttransfer.backbones.loading import load_backbone
from prompttransfer.cli.train import train
from prompttransfer.distributed.fsdp import check_shardable
from prompttransfer.distributed.launching import must_start, run_on
from prompttransfer.distributed.placement import Placement
from prompttransfer.distributed.processes import Processes, check_devices
from prompttransfer.study.engine.engine import run_study
from prompttransfer.study.engine.store import LocalStore
from prompttransfer.study.plan.plan import plan_study
from tasks.errors import UserError

STUDY = """
study: small
backbones: [microworld-roberta]
precision: fp32
tasks: [microworld-imdb, microworld-snli]
seeds: [0]
limit-train: 64
limit-test: 24
recipe: {steps: 4, batch: 8, length: 5, evaluate-every: 2, lr: 0.003}
transfers:
  zero-shot: true
  initialisation: {sources: all, steps: 2, evaluate-every: 2}
"""
HOME = Path(__file__).resolve().parents[3]
OPTIONS = {
    "task": ["microworld-snli"],
    "limit_train": 64,
    "limit_test": 30,
    "steps": 6,
    "batch": 8,
    "length": 5,
    "evaluate_every": 2,
    "lr": 0.003,
    "precision": "fp32",
    "device": "cpu",
}


def code():
    """When the project's files were last changed, and how many they are."""
    packages = ("prompttransfer", "tasks", "analysis", "projectors", "tests")
    times = [path.stat().st_mtime_ns for name in packages for path in (HOME / name).rglob("*.py")]
    return max(times), len(times)


CODE = code()
"""As this process has it; processes that are started later read the files again."""


def command(output, **options):
    """The command line of a training."""
    given = {**OPTIONS, "output": output, **options}
    words = ["train"]
    for name, value in given.items():
        words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return words


def write_study(folder):
    """The file of a study with trained, transferred and scored prompts."""
    path = folder / "small.yaml"
    path.write_text(STUDY)
    return path


def python(*arguments, each=({},)):
    """Run Python in processes of its own, one thread each, one for each mapping of more variables; all that they printed."""
    path = os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "COLUMNS": "160"}
    running = [
        subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment | more,
        )
        for more in each
    ]
    printed = [process.communicate(timeout=600)[0] for process in running]
    if code() != CODE:
        pytest.fail(
            "files of the project were changed while its tests ran, so two processes had other code than one: run it again",
            pytrace=False,
        )
    assert not any(process.returncode for process in running), printed
    return "".join(printed)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The prompt that one process trains."""
    return train(**OPTIONS, output=tmp_path_factory.mktemp("alone"), logger="none")[0]


@pytest.fixture(scope="module")
def two(tmp_path_factory, backbone_folder):
    """What two processes found that torchrun started, and what their command printed."""
    folder = tmp_path_factory.mktemp("two")
    kinds = (*KINDS, *placed_runs.DECODERS, *placed_runs.OTHERS)
    backbones = json.dumps({kind: str(backbone_folder(kind)) for kind in kinds})
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    study = ["study", "run", write_study(folder), "--device", "cpu", "--devices", "2", "--strategy", "fsdp"]
    commands = [
        command(folder / "prompts", devices=2, strategy="ddp"),
        [*map(str, study), "--output", str(folder / "study")],
    ]
    printed = python(*launcher, placed_runs.__file__, folder, backbones, json.dumps(commands))
    return folder, json.loads((folder / "found.json").read_text()), printed


def close(first, second):
    torch.testing.assert_close(torch.tensor(first), torch.tensor(second), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("strategy", "kind", "again"), placed_runs.CASES)
def test_two_processes_train_the_prompts_of_one(two, backbone_folder, strategy, kind, again):
    found = two[1][f"{strategy} {kind} {again}"]
    one = placed_runs.measured(kind, backbone_folder(kind), Placement(), again=again)
    close(found["vectors"], one["vectors"])
    for own, other in zip(found["curves"], one["curves"], strict=True):
        assert [(step, score) for step, _, score, _ in own] == [(step, score) for step, _, score, _ in other]
        for (_, loss, _, validation), (_, loss1, _, validation1) in zip(own, other, strict=True):
            assert (loss, validation) == (
                pytest.approx(loss1, abs=1e-5),
                pytest.approx(validation1, abs=1e-5),
            )
    assert found["words"] == pytest.approx(one["words"])
    assert found["bytes"] == one["bytes"] if strategy == "ddp" else found["bytes"] < 0.8 * one["bytes"]


def test_a_killed_run_goes_on_in_two_processes_or_in_one(two, backbone_folder):
    folder, found, _ = two
    parts = found["interrupted"]
    assert parts["resumed_at"] == 4
    close(parts["rest"], parts["whole"])
    keeper = placed_runs.Keeper()
    one = placed_runs.measured(
        "roberta",
        backbone_folder("roberta"),
        Placement(),
        longer=True,
        state_folder=folder / "for-one",
        progress=keeper,
    )
    assert keeper.resumed_at == 4
    close(one["vectors"], parts["whole"])


def test_processes_that_do_not_see_the_same_state_stop_with_one_line(two):
    assert "process 2 of 2 has other rows, settings or another state" in two[1]["interrupted"]["line"]


def test_the_command_started_by_torchrun_speaks_and_writes_once(two, alone):
    folder, _, printed = two
    assert printed.count("2 processes, ddp") == printed.count("written to") == printed.count("step 4/6") == 1
    assert printed.count("cells finished") == 1
    assert len(list((folder / "prompts" / "logs").iterdir())) == 1
    assert not list((folder / "prompts").glob(".training-*"))
    prompt = load_adaptation(folder / "prompts" / "microworld-snli")
    close(prompt.vectors.tolist(), alone.vectors.tolist())
    assert prompt.scores["validation"]["step"] > 0 and prompt.settings == alone.settings


def test_a_study_on_two_devices_makes_the_cells_of_one(two, tmp_path):
    made = plan_study(str(write_study(tmp_path)))
    run_study(made.graph, LocalStore(tmp_path / "s"), local={**made.local, "device": "cpu"})
    prompts = sorted((tmp_path / "s" / "cells").rglob("adaptation.json"))
    assert len(prompts) == 6
    for path in prompts:
        other = two[0] / "study" / path.parent.relative_to(tmp_path / "s")
        close(load_adaptation(other).vectors.tolist(), load_adaptation(path.parent).vectors.tolist())
    scores = sorted((tmp_path / "s" / "cells").rglob("score.json"))
    assert scores and all(
        json.loads(path.read_text())
        == json.loads((two[0] / "study" / path.relative_to(tmp_path / "s")).read_text())
        for path in scores
    )


def test_the_command_starts_its_processes_and_shards_the_backbone(tmp_path, alone, monkeypatch, capfd):
    for name, value in {**ALLOCATION, "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    assert exit_code(*command(tmp_path / "prompts", devices=2, strategy="fsdp")) == 0
    printed = capfd.readouterr().out
    close(load_adaptation(tmp_path / "prompts" / "microworld-snli").vectors.tolist(), alone.vectors.tolist())
    whole = load_backbone("microworld-roberta", precision="fp32", device="cpu").held_bytes
    held = float(printed.split("2 processes, fsdp, ")[1].split(" MB")[0]) * 1e6
    assert 0.45 * whole < held < 0.6 * whole  # the small parts stay whole
    assert printed.count("written to") == 1


def test_the_command_started_by_srun_speaks_and_writes_once(tmp_path, alone):
    words = command(tmp_path / "prompts", devices=2, strategy="ddp")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    tasks = srun_variables(2, MASTER_PORT=str(port), SLURM_JOB_NAME="interactive")
    printed = python("-m", "prompttransfer", *words, each=tasks)
    close(load_adaptation(tmp_path / "prompts" / "microworld-snli").vectors.tolist(), alone.vectors.tolist())
    assert printed.count("2 processes, ddp") == printed.count("written to") == printed.count("step 4/6") == 1
    assert "srun" not in printed  # no hint of a library


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({}, None),
        ({"SLURM_JOB_NAME": "bash"}, None),
        ({"SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2"}, "2 processes were started from outside"),
        ({"SLURM_NTASKS": "3"}, "3 processes were started from outside"),
        ({"SLURM_NTASKS_PER_NODE": None}, "give srun --ntasks-per-node, and the same number to --devices"),
    ],
)
def test_what_srun_started_is_read_off_its_own_variables(monkeypatch, variables, line):
    for name, value in (srun_variables(2)[1] | variables).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    if line is None:
        assert not must_start(Placement(2), "cpu")
    else:
        with pytest.raises(UserError, match=line):
            must_start(Placement(2), "cpu")


def test_several_tasks_of_srun_that_are_told_of_no_others_are_refused_before_any_work(monkeypatch, tmp_path):
    for name, value in srun_variables(4)[2].items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        UserError, match="srun started 4 processes that would all do the same: give --devices"
    ):
        train(**OPTIONS, output=tmp_path / "prompts")
    assert not (tmp_path / "prompts").exists()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))  # a shell of `srun --pty`
    assert not must_start(Placement(), "cpu")
    monkeypatch.undo()
    for variables in (ALLOCATION, srun_variables(1)[0]):  # a batch script; a step of one task
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert not must_start(Placement(), "cpu")


def test_an_allocation_of_several_tasks_has_started_none(monkeypatch):
    for name, value in ALLOCATION.items():
        monkeypatch.setenv(name, value)
    assert must_start(Placement(2), "cpu")


def test_an_error_in_one_process_ends_the_others_and_is_raised_here():
    with pytest.raises(UserError, match=r"^the second does not like this$"):
        run_on(Placement(2), placed_runs.fail_in_second)


def test_one_device_is_a_plain_call():
    assert run_on(Placement(), placed_runs.add, first=1, second=2) == 3
    assert not must_start(Placement(), "cuda:7")


def test_a_share_takes_every_row_once_and_lengths_evenly():
    shares = [Processes(Placement(3), rank).share(range(8)) for rank in range(3)]
    assert shares == [[0, 3, 6], [1, 4, 7], [2, 5]]
    assert Processes(Placement(3), 2).share([1, 2]) == []


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"devices": 0}, "--devices 0: give a number from 1 on"),
        ({"nodes": -1}, "--nodes -1: give a number from 1 on"),
        ({"devices": 2, "strategy": "fdsp"}, "unknown strategy 'fdsp': did you mean 'fsdp'?"),
        ({"strategy": "fsdp"}, "needs at least 2: give --devices 2"),
    ],
)
def test_a_placement_that_cannot_be_is_one_line(values, line):
    with pytest.raises(UserError, match=line.replace("?", r"\?")):
        Placement(**values)


@pytest.mark.parametrize(
    ("device", "line"),
    [
        ("cuda:1", "--device cuda:1 with 4 processes"),
        ("mps", "--device mps with 4 processes"),
        ("cuda", "--devices 4: torch sees 2 GPUs here"),
    ],
)
def test_devices_that_are_not_there_are_one_line(monkeypatch, device, line):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=line):
        check_devices(Placement(4), device)
    check_devices(Placement(4), "cpu")


def test_several_machines_are_started_from_outside():
    with pytest.raises(UserError, match=r"on every machine with torchrun .*--nproc-per-node 4"):
        run_on(Placement(4, nodes=2), placed_runs.add, first=1, second=2)


def test_processes_that_torchrun_started_must_be_asked_for(monkeypatch):
    for name, value in {
        "TORCHELASTIC_RUN_ID": "1",
        "WORLD_SIZE": "4",
        "RANK": "0",
        "LOCAL_RANK": "0",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="torchrun started 4 processes that would all do the same"):
        must_start(Placement(), "cpu")
    with pytest.raises(UserError, match=r"4 processes were started from outside.* are 2: give --devices"):
        must_start(Placement(2), "cpu")


def test_a_backbone_on_several_devices_needs_their_processes():
    with pytest.raises(UserError, match=r"give the function that loads it to run_on\(placement, function\)"):
        load_backbone("microworld-roberta", device="cpu", placement=Placement(2))


def test_a_model_without_layers_cannot_be_sharded():
    class Odd(torch.nn.Module):
        base_model = torch.nn.Linear(2, 2)

    with pytest.raises(UserError, match=r"backbone odd cannot be shared out: .* use --strategy ddp"):
        check_shardable(Odd(), "odd")
