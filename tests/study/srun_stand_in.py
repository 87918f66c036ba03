"""Stands for srun: starts the tasks of a step on this machine with its variables, hands SIGTERM on, ends with the highest code.

With KILL_WHEN, a pattern of files, the last task is killed when there is one.
"""

import glob
import os
import signal
import subprocess
import sys
import time

from slurm import srun_variables


def main(words):
    """Start what stands behind srun's own options."""
    command = words[next(index for index, word in enumerate(words) if not word.startswith("-")) :]
    tasks = [subprocess.Popen(command, env=os.environ | own) for own in srun_variables(2)]
    signal.signal(signal.SIGTERM, lambda number, frame: [task.send_signal(number) for task in tasks])
    victim, pattern = tasks[-1], os.environ.get("KILL_WHEN")
    while any(task.poll() is None for task in tasks):
        if pattern and glob.glob(pattern) and victim.poll() is None:
            victim.kill()
            pattern = None
        time.sleep(0.01)
    return max(task.returncode if task.returncode >= 0 else 128 - task.returncode for task in tasks)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
