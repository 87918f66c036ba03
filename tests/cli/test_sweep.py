"""`train --sweep` from the command line: what is kept, what is written, what is not done twice."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from toys import toy_rows, write_toy

from prompttransfer.adaptations.adaptation import CurvePoint
from prompttransfer.adaptations.artifacts import load_adaptation
from prompttransfer.cli import main
from prompttransfer.cli.sweep import read_sweep, records_of, write_sweep
from prompttransfer.training.grids import candidates_of
from prompttransfer.training.sweep import Swept, Tried

SHORT = ("--steps", "4", "--batch", "4", "--evaluate-every", "1", "--precision", "fp32")


@pytest.fixture
def world(tmp_path: Path, backbone_folder, monkeypatch) -> Path:
    """A data folder, a task in a YAML file and a backbone; the current folder is empty."""
    texts = ("dull film", "cold plot", "rude actor", "fresh film", "warm plot", "kind actor")
    write_toy(tmp_path, "toy", toy_rows(texts))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(backbone_folder("roberta"))
    return tmp_path


def train(*more: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["train", "--task", "toy.yaml", "--backbone", "model", "--data", "data", *SHORT, *more])
    return int(ended.value.code or 0)


def main_json(capsys, *arguments: str) -> list:
    with pytest.raises(SystemExit):
        main([*arguments, "--backbone", "model", "--data", "data", *SHORT])
    out, err = capsys.readouterr()
    assert not err or "error" not in err, err
    return json.loads(out)


def test_the_winner_is_kept_with_its_settings_and_the_table_has_every_setting(world: Path, capsys) -> None:
    sweep = ("--sweep", "lr=0.001,0.05,0.2", "length=2,3", "--output", "kept")
    assert train(*sweep, "--seeds", "0", "1") == 0
    said = capsys.readouterr().out
    assert "6 settings in 2 banks" in said and "successive halving" in said
    table = pd.read_csv(world / "kept" / "sweep-toy.csv")
    assert len(table) == 6 and table["chosen"].sum() == 1
    assert (
        table.loc[table["chosen"], "validation"].item()
        == table.loc[table["ended"] == "steps", "validation"].max()
    )
    chosen = table[table["chosen"]].iloc[0]
    for seed in (0, 1):
        kept = load_adaptation(world / "kept" / f"toy-s{seed}")
        assert kept.origin.recipe["lr"] == chosen["lr"] and kept.length == chosen["length"]
        assert kept.notes["sweep"]["of"] == {"lr": ["0.001", "0.05", "0.2"], "length": ["2", "3"]}
        assert "test" in kept.scores
    assert {"sweep-toy.png", "sweep-toy.svg"} <= {path.name for path in (world / "kept").iterdir()}
    assert not list((world / "kept").glob(".training-*"))


def test_a_finished_sweep_is_not_run_again_and_another_is_refused(world: Path, capsys) -> None:
    sweep = ("--sweep", "lr=0.001,0.05", "--output", "kept")
    assert train(*sweep) == 0
    before = (world / "kept" / "toy" / "adaptation.json").read_bytes()
    capsys.readouterr()
    assert train(*sweep) == 0
    assert "nothing is left to do" in capsys.readouterr().out
    assert train("--sweep", "lr=0.001,0.1", "--output", "kept") == 2
    assert train(*sweep, "--no-halving") == 2
    assert train("--output", "kept") == 2
    errors = capsys.readouterr().err
    assert errors.count("error: ") == 3 and "--overwrite" in errors and "Traceback" not in errors
    assert (world / "kept" / "toy" / "adaptation.json").read_bytes() == before
    assert train("--sweep", "lr=0.001,0.1", "--output", "kept", "--overwrite") == 0


def test_steps_that_are_swept_over_stand_beside_those_taken(world: Path, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "--task", "toy.yaml", "--backbone", "model", "--data", "data", "--batch", "4", "--evaluate-every", "1",
              "--precision", "fp32", "--sweep", "steps=4,8", "--output", "kept"])  # fmt: skip
    assert not ended.value.code
    table = pd.read_csv(world / "kept" / "sweep-toy.csv")
    assert list(table["steps"]) == [4, 8] and table.columns[0] == "steps"
    chosen, stopped = table["chosen"].to_numpy(), table[~table["chosen"]].iloc[0]
    assert list(table["steps taken"][chosen]) == list(table["steps"][chosen])
    assert stopped["steps taken"] == stopped["steps"] / 4 and stopped["ended"] == "stopped early"
    assert f"toy: steps {table['steps'][chosen].item()}\n" in capsys.readouterr().out


def test_a_mixture_is_swept_over_as_one(world: Path, capsys) -> None:
    texts = ("dull film", "cold plot", "rude actor", "fresh film", "warm plot", "kind actor")
    write_toy(world, "other", toy_rows(texts))
    sweep = ("other.yaml", "--mixture", "--sweep", "lr=0.001,0.05", "--output", "kept", "--json")
    first, again = (main_json(capsys, "train", "--task", "toy.yaml", *sweep) for _ in range(2))
    assert [row["lr"] for row in first[0]["sweep"]["tried"]] == ["0.001", "0.05"]
    assert again[0]["sweep"]["tried"] == first[0]["sweep"]["tried"]
    assert (world / "kept" / "sweep-toy+other.csv").exists()


def test_the_table_is_read_as_it_was_written_each_number_in_its_fewest_digits(tmp_path: Path) -> None:
    candidates = candidates_of("masked-lm", 16, "prompt", {"lr": ("1e-3", "0.30"), "length": ("3",)}, {})
    curves = [
        {seed: (CurvePoint(0, 1.0, score),) for seed, score in enumerate(own)}
        for own in ((0.3, 0.1), (2 / 3, 0.5))
    ]
    tried = tuple(Tried("toy", one, own, 300, True) for one, own in zip(candidates, curves, strict=True))
    found = Swept(tried, {"toy": candidates[1]}, ())
    write_sweep(found, tmp_path)
    assert read_sweep(tmp_path, ["toy"]) == records_of(found)
    first, second = (tmp_path / "sweep-toy.csv").read_text().splitlines()[1:]
    assert first.startswith("1e-3,3,0.2,0.1,0.3,2,300,") and second.startswith(
        f"0.30,3,{(2 / 3 + 0.5) / 2!r},0.5,{2 / 3!r},"
    )


def test_machines_get_every_setting(world: Path, capsys) -> None:
    assert train("--sweep", "lr=0.001,0.05", "--output", "kept", "--json") == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert [row["lr"] for row in record["sweep"]["tried"]] == ["0.001", "0.05"]
    assert record["sweep"]["chosen"]["lr"] in ("0.001", "0.05")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--sweep", "lr=1"), "is one setting"),
        (("--sweep", "lr=1,2", "--lr", "3"), "given and swept over"),
        (("--sweep", "rank=1,2"), "unknown axis"),
        (("--sweep", "lr=1,2", "--dry-run"), "--dry-run"),
    ],
)
def test_a_mistake_is_one_line(world: Path, capsys, more, said) -> None:
    assert train(*more) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.strip().splitlines()) == 1
