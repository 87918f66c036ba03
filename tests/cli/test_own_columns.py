"""`--columns`, `--labels`, `--splits`, `--skip-empty` and `--shots` in every verb that reads the rows of a task."""

from __future__ import annotations

import json

import pytest

from prompttransfer.cli import main

READ = ("--data", "rows", "--columns", "text=body", "label=stars", "--labels", "1=negative", "5=positive")
OTHER = (*READ, "--splits", "train=learn", "test=check", "--skip-empty")
ROWS = [("dull", 1), ("cold", 1), ("grim", 1), ("fresh", 5), ("warm", 5), ("kind", 5)]


@pytest.fixture(scope="module")
def world(tmp_path_factory, backbone_folder):
    """CSV files with columns and names of their own, one empty text, and prompts that were trained on them."""
    root = tmp_path_factory.mktemp("columns")
    for name in ("film", "room"):
        (root / f"{name}.yaml").write_text(
            f"name: {name}\ntype: sentiment\nkind: sentence\nwords:\n  negative: terrible\n  positive: great\n"
        )
        (root / "rows" / name).mkdir(parents=True)
        lines = [f"the {name} was {word},{stars}" for word, stars in ROWS for _ in range(4)]
        for split in ("learn", "check"):
            (root / "rows" / name / f"{split}.csv").write_text("\n".join(["body,stars", *lines, ",1", ""]))
    (root / "near").symlink_to(backbone_folder("roberta"))
    (root / "far").symlink_to(backbone_folder("roberta", 24))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for model in ("near", "far"):
            run("train", "--task", "film.yaml", "room.yaml", "--backbone", model, *OTHER, "--length", 3, "--steps", 2,
                "--evaluate-every", 1, "--batch", 4, "--precision", "fp32", "-o", f"{model}-prompts")  # fmt: skip
        yield root


def run(*arguments: object) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert not ended.value.code


PRECISE = ("--precision", "fp32")
VERBS = {
    "recommend": ("recommend", "--task", "film.yaml", "--prompts", "near-prompts", "--rows", 6, "--probe-steps", 1),
    "compare": ("compare", "near-prompts", "--metric", "few-shot", "--rows", 6, "-o", "compared"),
    "neurons": ("neurons", "capture", "near-prompts", "--task", "film.yaml", "--rows", 6, "-o", "states.safetensors"),
    "mask": ("neurons", "mask", "near-prompts/film", "--rows", 6, "--by", "largest", "--shares", 0.5, "--draws", 1, "-o", "masked.csv"),
    "project fit": ("project", "fit", "--tasks", "film.yaml", "room.yaml", "--source-backbone", "near", "--target-backbone",
                    "far", "--source-prompts", "near-prompts", "--target-prompts", "far-prompts", "--steps", 1, "--seeds", 0),
    "project distil": ("project", "distil", "near-prompts", "--target-backbone", "far", "--text", "public.txt", "--steps", 1),
    "landscape": ("prompts", "landscape", "near-prompts", "--task", "film.yaml", "--points", 3, "-o", "landscape.png"),
}  # fmt: skip
SHOTS = [name for name in VERBS if name != "landscape"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_reads_columns_labels_and_files_of_other_names(world, verb, capsys) -> None:
    (world / "public.txt").write_text("the film was good\nit is cold\nthe room is warm\na kind word\n" * 4)
    run(*VERBS[verb], *OTHER, *PRECISE, "--overwrite")
    assert "2 rows with an empty text left out" in capsys.readouterr().err or verb.startswith("project")


@pytest.mark.parametrize("verb", SHOTS)
def test_a_verb_draws_so_many_rows_of_each_label(world, verb, capsys) -> None:
    (world / "public.txt").write_text("the film was good\nit is cold\nthe room is warm\na kind word\n" * 4)
    run(*VERBS[verb], *OTHER, *PRECISE, "--shots", 2, "--overwrite")
    printed = capsys.readouterr().out
    if verb in ("recommend", "compare"):
        assert "rows of each label" in printed


def test_the_command_that_is_recommended_reads_the_same_rows(world, capsys) -> None:
    run(*VERBS["recommend"], *OTHER, *PRECISE, "--json")
    (found,) = json.loads(capsys.readouterr().out)["recommendations"]
    for part in ("--columns text=body label=stars", "--splits train=learn test=check", "--skip-empty"):
        assert part in found["command"]


def test_rows_that_are_answered_may_have_columns_of_their_own(world, capsys) -> None:
    (world / "asked.jsonl").write_text(json.dumps({"task": "film", "body": "the film was dull"}) + "\n")
    run("predict", "--from", "near-prompts", "--input", "asked.jsonl", "--columns", "text=body", *PRECISE)
    assert json.loads(capsys.readouterr().out.splitlines()[0])["prediction"]["adaptation"] == "film"
