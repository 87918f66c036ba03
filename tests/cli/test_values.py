"""Every value of every option is looked at before work: one line and exit 2, from the command line and from Python."""

from __future__ import annotations

from pathlib import Path

import pytest

import prompttransfer
from prompttransfer.cli import main
from prompttransfer.distributed.processes import choose_device
from prompttransfer.training.recipes import Recipe
from tasks.errors import UserError, out_of_memory

TRAIN = ("train", "--task", "microworld-imdb", "--output", "o")
FIT = ("project", "fit", "--tasks", "microworld-imdb", "--output", "o")
WRONG = [
    *[(*TRAIN, *more) for more in (
        ("--lr", "nan"), ("--lr", "inf"), ("--lr", "0"), ("--lr", "-1"), ("--weight-decay", "nan"),
        ("--weight-decay", "-0.1"), ("--weight-decay", "inf"), ("--seeds", "-1"), ("--seeds", "1" + 30 * "0"),
        ("--batch", "0"), ("--batch", "9" * 12), ("--length", "0"), ("--length", "-3"), ("--length", "1" + 9 * "0"),
        ("--steps", "-1"), ("--steps", "1" + 30 * "0"), ("--evaluate-every", "0"), ("--patience", "-1"),
        ("--limit-train", "0"), ("--limit-test", "-5"), ("--max-length", "0"), ("--max-length", "9" * 20),
        ("--devices", "0"), ("--nodes", "0"), ("--precision", "fp64"), ("--aggregation", "max"),
        ("--layout", "first"), ("--logger", "wanda"), ("--optimizer", "sgd"), ("--strategy", "zero"),
        ("--init", "radnom"), ("--init", "text:"), ("--init", "prompt:nowhere"), ("--steps", "many"),
        ("--output", ""), ("--output=",), ("--data", ""), ("--output", "f"), ("--output", "f/inside"),
        ("--output", 300 * "x"), ("--output", "/".join(40 * ["x" * 120])),
    )],
    *[(*FIT, *more) for more in (
        ("--architecture", "liner"), ("--words", "0"), ("--hidden", "0"), ("--rank", "0"), ("--lr", "nan"),
        ("--noise", "nan"), ("--null", "1"), ("--contrast", "nan"), ("--mix", "2"), ("--steps", "0"),
        ("--activation", "elu"), ("--distance", "l3"), ("--start", "zero"), ("--method", "magic"),
        ("--architecture", "mlp", "--start", "vocabulary"), ("--target-length", "0"), ("--output", "f"),
        ("--unseen", "microworld-imdb"), ("--seeds", "-1"),
    )],
    ("correlate", "--transfer", "f", "--indicator", "f", "--seed", "-1"),
    ("correlate", "--transfer", "f", "--indicator", "f", "--draws", "0"),
    ("correlate", "--transfer", "f", "--indicator", "f", "--output", "f"),
    ("compare", "f", "--rows", "0"),
    ("compare", "f", "--output", ""),
    ("neurons", "mask", "f", "--shares", "nan"),
    ("neurons", "mask", "f", "--by", "smallest"),
    ("neurons", "f", "--share", "-1"),
    ("neurons", "f", "--output", "."),
    ("neurons", "overlap", "f", "--window", "0"),
    ("plot", "heatmap", "f", "--output", "f.docx"),
    ("plot", "map", "f", "--method", "lda"),
    ("plot", "projectors", "f", "--decimals", "400"),
    ("recommend", "--task", "microworld-imdb", "--rows", "0"),
    ("recommend", "--task", "microworld-imdb", "--probe-steps", "-1"),
    ("export", "f", "--output", "x.pdf"),
    ("export", "f", "--output", "."),
    ("study", "status", "f", "--every", "nan"),
    ("evaluate", ""),
]  # fmt: skip


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_a_wrong_value_is_one_line_before_anything_is_made(tmp_path, monkeypatch, capsys, arguments) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").write_text("a file")
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1, said
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"lr": float("nan")}, "--lr nan: give a number above 0"),
        ({"seeds": [2**40]}, "--seeds 1099511627776: give a whole number from 0 to 4294967295"),
        ({"length": 0}, "--length 0: give a whole number from 1"),
        ({"output": ""}, "--output '': that is no path"),
        ({"task": []}, "--task: give at least one"),
    ],
)
def test_python_callers_get_the_same_line(values, line) -> None:
    with pytest.raises(UserError, match=line):
        prompttransfer.train(**{"task": ["microworld-imdb"], **values})


@pytest.mark.parametrize(
    "values", [{"weight_decay": float("nan")}, {"lr": float("inf")}, {"steps": 10**12}, {"batch": 0}]
)
def test_a_recipe_cannot_be_built_wrong(values) -> None:
    with pytest.raises(UserError):
        Recipe(**{"optimizer": "adamw", "lr": 0.1, "source": "here", **values})


@pytest.mark.parametrize("device", ["tpu", "meta", "cpu:x", "", "cpu:7"])
def test_a_device_that_is_none_is_named(device) -> None:
    with pytest.raises(UserError, match="device"):
        choose_device(device)


@pytest.mark.parametrize(
    ("error", "says_so"),
    [
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:113] DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("unable to mmap 9 bytes from file <x>: Cannot allocate memory (12)"), True),
        (MemoryError("std::bad_alloc"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("shapes do not fit"), False),
        (OSError(28, "No space left on device"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_memory_that_ran_out_is_known_by_what_was_said(error, says_so) -> None:
    assert out_of_memory(error) is says_so


@pytest.mark.parametrize("error", [RuntimeError("can't allocate memory: you tried 9 bytes"), MemoryError()])
def test_memory_that_ran_out_is_one_line_and_exit_3(monkeypatch, capsys, error) -> None:
    def fail(path: Path) -> None:
        raise error

    monkeypatch.setattr("prompttransfer.cli.tables.read_matrix", fail)
    with pytest.raises(SystemExit) as ended:
        main(["plot", "heatmap", "f.csv"])
    assert ended.value.code == 3 and capsys.readouterr().err.startswith("error: out of memory")
