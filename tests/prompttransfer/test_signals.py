"""Signals: a stop ends a command within seconds with its own exit code and one line, and is no failure of the work."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2]

LOOP = """
from prompttransfer.signals import Interrupted, keeping, listening
import time
try:
    with listening(), keeping(lambda: "3 of 8 are kept"):
        try:
            print("ready", flush=True)
            time.sleep(60)
        except Exception:
            print("taken for a failure", flush=True)
        finally:
            print("cleaned up", flush=True)
            {slow}
except Interrupted as error:
    print(error)
    raise SystemExit(error.code)
print("went on")
"""


def begin(code, *numbers, ignored=(), pause=0.5):
    """Run code until it says `ready`, send the signals one after the other, and wait: (exit code, output, seconds)."""

    def as_a_terminal_does():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(HOME)}, preexec_fn=as_a_terminal_does,
    )  # fmt: skip
    said = ""
    while "ready" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    started = time.monotonic()
    for number in numbers:
        process.send_signal(number)
        time.sleep(pause)
    said += process.communicate(timeout=60)[0]
    return process.returncode, said, time.monotonic() - started


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_stop_cleans_up_says_what_is_kept_and_is_no_failure(number, code):
    ended, said, _ = begin(LOOP.format(slow=""), number)
    assert ended == code
    assert said == f"ready\ncleaned up\nstopped by {number.name}: 3 of 8 are kept\n"


def test_a_second_signal_ends_the_process_at_once():
    ended, said, seconds = begin(LOOP.format(slow="time.sleep(60)"), signal.SIGTERM, signal.SIGTERM)
    assert ended == 143 and seconds < 6
    assert "stopped by SIGTERM: 3 of 8 are kept" in said


def test_what_does_not_unwind_is_ended_within_seconds():
    ended, said, seconds = begin(LOOP.format(slow="time.sleep(60)"), signal.SIGINT)
    assert ended == 130 and seconds < 20
    assert "stopped by SIGINT: 3 of 8 are kept" in said


def test_a_signal_that_the_shell_ignores_stays_ignored():
    ended, said, _ = begin(LOOP.format(slow="").replace("60", "2"), signal.SIGHUP, ignored=[signal.SIGHUP])
    assert ended == 0 and said.endswith("went on\n")


def test_no_exception_leaves_a_library_that_must_not_be_left():
    code = """
from prompttransfer.signals import Interrupted, held, listening
import time
try:
    with listening(), held():
        print("ready", flush=True)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            time.sleep(0.1)
        print("the call came to its end")
except Interrupted as error:
    raise SystemExit(error.code)
"""
    ended, said, _ = begin(code, signal.SIGTERM)
    assert ended == 143 and "the call came to its end" in said


def test_a_training_that_was_stopped_ends_with_one_line_and_the_same_command_goes_on(tmp_path):
    command = f"""
import sys
from prompttransfer.cli import main
from prompttransfer.training.state import write_state
import prompttransfer.training.loop as bank
def told(*arguments):
    write_state(*arguments)
    if arguments[-1] == 2:
        print("ready", flush=True)
bank.write_state = told
sys.argv[1:] = ["train", "--task", "microworld-imdb", "--length", "2", "--steps", "5000", "--evaluate-every", "1",
                "--batch", "2", "--limit-train", "40", "--limit-test", "4", "--output", {str(tmp_path)!r}]
main()
"""
    ended, said, _ = begin(command, signal.SIGTERM)
    assert ended == 143, said
    (last,) = [line for line in said.splitlines() if line.startswith(("stopped", "error", "Traceback"))]
    assert last.startswith("stopped by SIGTERM: step ") and "goes on from there" in last
    assert not list(tmp_path.glob("microworld-imdb*"))
    assert [path.suffix for path in tmp_path.glob(".*")] == [
        ".safetensors"
    ]  # the state, nothing half written
