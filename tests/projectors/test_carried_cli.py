"""`project apply --method` and `project compare` from end to end on two tiny backbones saved to folders."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import examples, task, tiny_backbone
from toys import adapted

from prompttransfer.adaptations.artifacts import load_adaptation, save_adaptation
from prompttransfer.backbones.loading import load_backbone
from prompttransfer.cli import main
from tasks.records import task_record


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two backbones of other widths and one of the same, a LoRA of two tasks on each, and the tasks' rows."""
    root = tmp_path_factory.mktemp("world")
    for name, width, seed in (("small", 16, 0), ("wide", 24, 1), ("sister", 16, 2)):
        made = tiny_backbone(width, seed, name)
        made.model.save_pretrained(root / name)
        made.tokenizer.save_pretrained(root / name)
        backbone = load_backbone(str(root / name), precision="fp32")
        for noun in ("film", "food"):
            own = adapted(backbone, "lora:rank=2", task=task(noun), name=noun)
            kept = replace(own.origin, data={"task": task_record(task(noun))})
            save_adaptation(replace(own, origin=kept), root / f"{name}-loras" / noun)
    for noun in ("film", "food"):
        (root / "data" / noun).mkdir(parents=True)
        rows = [
            json.dumps({"text": e.first, "label": ["negative", "positive"][e.label or 0]})
            for e in examples(noun)
        ]
        for split in ("train", "validation"):
            (root / "data" / noun / f"{split}.jsonl").write_text(
                "\n".join(rows * (3 if split == "train" else 1))
            )
    return root


def call(capsys: Any, *arguments: Any) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main(["project", *map(str, arguments)])
    return stopped.value.code, *capsys.readouterr()  # type: ignore[return-value]


def test_apply_writes_plain_loras_of_the_target(world: Path, tmp_path: Path, capsys: Any) -> None:
    arguments = [
        "apply",
        "--method",
        "cross-lora",
        "--target-backbone",
        world / "wide",
        world / "small-loras",
    ]
    assert call(capsys, *arguments, "--output", tmp_path / "carried")[0] == 0
    made = load_adaptation(tmp_path / "carried" / "film")
    assert (made.backbone, made.method.name, made.origin.start) == (
        str(world / "wide"),
        "lora",
        "carried:cross-lora",
    )
    assert made.origin.recipe["carried_from"] == str(world / "small")
    assert (tmp_path / "carried" / "film" / "adapter_config.json").exists()


def test_compare_has_every_control_and_says_what_cannot_be(world: Path, tmp_path: Path, capsys: Any) -> None:
    given = [world / "small-loras", "--data", world / "data", "--own", world / "wide-loras"]
    code, out, _ = call(
        capsys, "compare", *given, "--target-backbone", world / "wide", "-o", tmp_path / "t", "--json"
    )
    found = json.loads(out)
    assert code == 0
    assert list(found["conditions"]) == [
        *("own", "copy", "cross-lora", "cross-lora, random", "lora-x", "no adaptation", "majority")
    ]
    assert set(found["impossible"]) == {"copy", "lora-x"}
    assert (
        found["conditions"]["copy"]["mean"] is None and found["conditions"]["cross-lora"]["mean"] is not None
    )
    with (tmp_path / "t" / "carried.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["task"] for row in rows} == {"film", "food"}
    assert sum(row["condition"] == "cross-lora, random" for row in rows) == 2 * 3
    again, out, _ = call(
        capsys, "compare", *given, "--target-backbone", world / "wide", "-o", tmp_path / "t", "--json"
    )
    assert again == 0 and json.loads(out)["conditions"] == found["conditions"]


def test_between_models_of_one_width_every_way_has_a_score_and_the_own_is_trained(
    world: Path, tmp_path: Path, capsys: Any
) -> None:
    given = [
        "compare",
        world / "small-loras" / "film",
        "--data",
        world / "data",
        "--method",
        "lora-x",
        "--rank",
        4,
    ]
    given += ["--steps", 2, "--target-backbone", world / "sister", "-o", tmp_path / "t"]
    code, out, _ = call(capsys, *given)
    assert code == 0 and "lora-x, random" in out and "copy, random" in out and "cross-lora" not in out
    assert load_adaptation(tmp_path / "t" / "own" / "film").backbone == str(world / "sister")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["apply", "small-loras", "--method", "copy"],
            "name the backbone to carry to with --target-backbone",
        ),
        (["apply", "small-loras", "--method", "copi"], "did you mean 'copy'"),
        (
            ["apply", "small-loras", "--method", "copy", "--target-backbone", "wide"],
            "copy needs models of the same widths",
        ),
        (
            ["apply", "small-loras", "--method", "cross-lora", "--target-backbone", "microworld-t5"],
            "their layers do not stand for each other",
        ),
        (
            [
                "apply",
                "small-loras",
                "--method",
                "copy",
                "--source-backbone",
                "wide",
                "--target-backbone",
                "wide",
            ],
            "was trained on",
        ),
        (
            ["compare", "small-loras", "--target-backbone", "microworld-t5", "--own", "wide-loras"],
            "was trained on",
        ),
    ],
)
def test_a_mistake_is_one_line(
    world: Path, capsys: Any, monkeypatch: Any, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(world)
    data = ["--data", "data"] if arguments[0] == "compare" else []
    code, _, error = call(capsys, *arguments, *data, "-o", "made")
    assert code == 2 and message in error and error.count("\n") == 1


def test_own_adaptations_that_read_rows_otherwise_are_one_line(
    world: Path, tmp_path: Path, capsys: Any
) -> None:
    for noun in ("film", "food"):
        own = load_adaptation(world / "wide-loras" / noun)
        behind = replace(own, encoding=replace(own.encoding, layout="after-bos"))
        save_adaptation(behind, tmp_path / "own" / noun)
    given = ["compare", world / "small-loras", "--target-backbone", world / "wide", "--own", tmp_path / "own"]
    code, _, err = call(capsys, *given, "--data", world / "data", "--output", tmp_path / "out")
    assert code == 2 and not (tmp_path / "out" / "carried.csv").exists()
    assert err.startswith(
        "error: the target's own are of layout 'after-bos' and those to carry of 'prompt-first'"
    )
    assert err.count("\n") == 1
