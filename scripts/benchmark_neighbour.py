"""What a process that keeps one core costs a short `train`, by how the threads of a product wait for one another.

    python scripts/benchmark_neighbour.py            an idle machine, about five minutes on two cores

Settings take turns, first on the idle machine, then beside the neighbour; what is shown are medians, and their ratios to
the idle run with nothing set.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmark_print import markdown, say

SETTINGS = {
    "the command line's own": {},
    "GOMP_SPINCOUNT=2000": {"GOMP_SPINCOUNT": "2000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "torch's (as from Python)": {"GOMP_SPINCOUNT": "300000"},
}
COMMAND = "train --task microworld-imdb microworld-snli --limit-test 100 --logger none"


def seconds(setting: dict[str, str], steps: int) -> float:
    """Wall-clock seconds of the command with so many steps."""
    kept = {
        key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "prompttransfer", *COMMAND.split(), "--steps", str(steps)]
        command += ["--evaluate-every", str(max(1, steps // 2)), "--output", f"{folder}/out"]
        start = time.perf_counter()
        subprocess.run(command, env=kept | setting, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


@contextmanager
def neighbour() -> Iterator[None]:
    """A process that keeps one core."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60, help="of the command")
    options = parser.parse_args()
    seconds({}, options.steps)  # files into memory
    idle: dict[str, list[float]] = {name: [] for name in SETTINGS}
    beside: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for _ in range(options.rounds):
        for name, setting in SETTINGS.items():
            idle[name].append(seconds(setting, options.steps))
        with neighbour():
            for name, setting in SETTINGS.items():
                beside[name].append(seconds(setting, options.steps))
    least = statistics.median(idle["torch's (as from Python)"])
    rows = []
    for name in SETTINGS:
        alone, crowded = statistics.median(idle[name]), statistics.median(beside[name])
        rows.append(
            [name, f"{alone:.2f}", f"{alone / least:.2f}", f"{crowded:.2f}", f"{crowded / least:.2f}"]
        )
    say(f"median seconds of {options.rounds} runs; times as long as the idle run with torch's setting")
    markdown(["threads wait", "idle s", "", "beside a busy core s", ""], rows)


if __name__ == "__main__":
    main()
