"""Studies in an environment like SLURM's: the script of the page, run by a stand-in for srun; a task killed, a job preempted."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from slurm import ALLOCATION, srun_variables
from small_study import TEXT, write_study
from toy_kinds import NAME, layers

from prompttransfer.cli.study_run import run as run_command
from prompttransfer.study.engine.engine import run_study
from prompttransfer.study.engine.leases import held
from prompttransfer.study.engine.store import LocalStore

HERE, HOME = Path(__file__).parent, Path(__file__).parents[2]
PATH = [HERE, HOME, HERE.parent / "prompttransfer", os.environ.get("PYTHONPATH", "")]
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join(map(str, PATH)),
    "PYTHONUNBUFFERED": "1",
    "OMP_NUM_THREADS": "1",
}
RUN = f"""
from pathlib import Path
import os, sys
from toy_kinds import layers
from prompttransfer.study.engine.engine import run_study
from prompttransfer.study.engine.store import LocalStore
folder = Path(sys.argv[1])
found = run_study(layers([6, 4], sleep=0.3), LocalStore(folder), kinds={NAME!r},
                  local={{"log": str(folder.parent / os.environ["SLURM_PROCID"])}})
assert found.complete
"""


def script():
    """The batch script of the page."""
    (found,) = re.findall(
        r"```bash\n(#!/bin/bash\n.*?)```", (HOME / "docs" / "clusters.md").read_text(), re.DOTALL
    )
    return found


def submit(folder, text, **more):
    """Run a batch script where srun and scontrol are stand-ins; in a session of its own, as a job is."""
    stubs = {
        "srun": f'exec {sys.executable} {HERE / "srun_stand_in.py"} "$@"',
        "scontrol": f'echo "$@" >> {folder / "scontrol"}',
        "prompttransfer": f'exec {sys.executable} -m prompttransfer "$@"',
    }
    (folder / "bin").mkdir()
    for name, line in stubs.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / "bin" / name).chmod(0o755)
    (folder / "job").write_text(text)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        ["bash", str(folder / "job")],
        env=ENVIRONMENT | ALLOCATION | {"PATH": path, "SLURM_CPUS_PER_TASK": "1", "SCRATCH": str(folder), **more},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def wait_for(ready, seconds=120):
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def test_tasks_of_one_step_share_a_folder_and_one_that_is_killed_is_made_up_for(tmp_path):
    folder = tmp_path / "s"
    tasks = [
        subprocess.Popen([sys.executable, "-c", RUN, str(folder)], env=ENVIRONMENT | own)
        for own in srun_variables(3)
    ]
    wait_for((tmp_path / "1").exists)  # it has begun a cell
    tasks[1].kill()
    assert [task.wait(timeout=120) for task in tasks] == [0, -signal.SIGKILL, 0]
    graph, store, alone = layers([6, 4], sleep=0.3), LocalStore(folder), LocalStore(tmp_path / "alone")
    run_study(graph, alone, kinds=NAME, say=lambda line: None)
    assert not [cell for cell in graph.cells if store.damage(cell, digests=True)]
    assert all(store.record(cell).digest == alone.record(cell).digest for cell in graph.cells)
    logs = [(tmp_path / str(rank)).read_text().split() for rank in (0, 1, 2)]
    assert logs[0] and logs[2]
    assert sum(map(len, logs)) <= len(graph.cells) + 1  # one cell was begun twice
    assert not held(folder / "leases")


def test_the_script_of_the_page_with_a_task_killed_gives_the_tables_of_one_process(tmp_path, backbone_folder):
    text = TEXT[: TEXT.index("transfers:")].replace("[near, far]", "[near]")
    text = text.replace("[films.yaml, songs.yaml, pairs.yaml]", "[films.yaml]")
    file = write_study(tmp_path / "study", backbone_folder, text)
    job = script().replace("study run su2022 ", f"study run {file} --device cpu ")
    running = submit(tmp_path, job, KILL_WHEN=f"{tmp_path}/su2022/cells/*/*/cell.json")
    said, _ = running.communicate(timeout=600)
    assert running.returncode == 128 + signal.SIGKILL, said  # of the task that was killed
    assert not (tmp_path / "scontrol").exists() and "7 of 7 cells finished" in said.replace("\n", " "), said
    run_command(str(file), output=str(tmp_path / "alone"), device="cpu")
    for name in ("results.csv", "results.parquet", "report/summary.csv", "report/comparisons.csv"):
        assert (tmp_path / "su2022" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc to find the step's process in")
def test_a_job_that_is_preempted_goes_back_into_the_queue(tmp_path):
    code = f"""
from pathlib import Path
from prompttransfer.signals import Interrupted, listening
from prompttransfer.study.engine.engine import run_study
from prompttransfer.study.engine.store import LocalStore
from toy_kinds import layers
try:
    with listening():
        run_study(layers([2], sleep=60), LocalStore(Path({str(tmp_path / "s")!r})), kinds={NAME!r},
                  local={{"log": {str(tmp_path / "log")!r}}})
except Interrupted as error:
    print(error)
    raise SystemExit(error.code)
"""
    (tmp_path / "run.py").write_text(code)
    job = re.sub(r"prompttransfer study run .*", f"{sys.executable} {tmp_path / 'run.py'}", script())
    running = submit(tmp_path, job)
    wait_for(lambda: (tmp_path / "log").exists() and len((tmp_path / "log").read_text().split()) == 2)
    (step,) = children(running.pid)
    os.kill(step, signal.SIGTERM)  # as SLURM does with the steps of a job
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 128 + signal.SIGTERM, said
    assert said.count("stopped by SIGTERM: 0 of 2 cells are finished") == 2, said
    assert (tmp_path / "scontrol").read_text() == "requeue 417\n"


def children(process):
    """The processes that a process started."""
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_the_script_of_the_page_asks_slurm_for_what_it_relies_on():
    asked = dict(re.findall(r"#SBATCH --([a-z-]+)=?(\S*)", script()))
    assert asked["signal"].startswith("TERM@") and "requeue" in asked and asked["open-mode"] == "append"
    assert subprocess.run(["bash", "-n"], input=script(), text=True, check=False).returncode == 0
