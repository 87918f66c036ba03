"""Nothing finished is replaced unasked: the same command again returns what is there, another one is refused at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from calls import exit_code as run
from toys import write_toy

from prompttransfer.adaptations.artifacts import load_adaptation
from tasks.errors import UserError

SHORT = ("--steps", "4", "--batch", "4", "--evaluate-every", "2", "--precision", "fp32", "--data", "data")


@pytest.fixture
def world(tmp_path: Path, backbone_folder, monkeypatch):
    """Two tasks with rows, a third called `logs`, and a backbone; the current folder is empty otherwise."""
    for name in ("film", "room", "logs"):
        words = (("bad", "negative"), ("good", "positive"), ("dull", "negative"))
        write_toy(
            tmp_path, name, [(f"the {name} was {word}", label) for word, label in words for _ in range(4)]
        )
    (tmp_path / "model").symlink_to(backbone_folder("roberta"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(*more: object, task: str = "film.yaml") -> int:
    return run("train", "--task", task, "--backbone", "model", "--length", "3", *SHORT, "-o", "p", *more)


def transfer(*more: object) -> int:
    return run(
        "transfer", "p", "--to", "room.yaml", "--data", "data", "--precision", "fp32", "-o", "t", *more
    )


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with its bytes and its time, so that one that was written again shows."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


def texts(folder: Path) -> dict[str, bytes]:
    """The bytes of every text file; a safetensors file has its entries in any order."""
    return {name: data for name, (data, _) in content(folder).items() if not name.endswith(".safetensors")}


def test_the_same_training_again_returns_what_is_there(world, capsys) -> None:
    assert train() == 0
    before = content(world / "p")
    assert train() == 0
    assert "trained before with the same settings" in capsys.readouterr().out
    assert content(world / "p") == before


@pytest.mark.parametrize(
    "other", [("--lr", "0.2"), ("--seeds", "1"), ("--label-words", "negative=bad"), ("--init", "vocabulary")]
)
def test_a_finished_prompt_is_replaced_only_if_asked(world, capsys, other) -> None:
    assert train() == 0
    before = content(world / "p")
    assert train(*other) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert content(world / "p") == before
    assert train(*other, "--overwrite") == 0
    assert content(world / "p") != before


def test_a_file_of_the_user_stays_in_a_prompt_that_is_trained_again(world) -> None:
    assert train() == 0
    (world / "p" / "film" / "notes.txt").write_text("mine")
    (world / "p" / "film" / "more").mkdir()
    (world / "p" / "film" / "more" / "a").write_text("mine too")
    assert train("--lr", "0.2", "--overwrite") == 0
    assert (world / "p" / "film" / "notes.txt").read_text() == "mine"
    assert (world / "p" / "film" / "more" / "a").read_text() == "mine too"
    assert load_adaptation(world / "p" / "film").settings["lr"] == 0.2


def test_a_lost_prompt_of_a_run_is_made_again_and_the_others_stay(world) -> None:
    assert train("--seeds", "0", "1") == 0
    first = load_adaptation(world / "p" / "film-s1").digest
    before = content(world / "p" / "film-s0")
    for file in (world / "p" / "film-s1").iterdir():
        file.unlink()
    assert train("--seeds", "0", "1") == 0
    assert load_adaptation(world / "p" / "film-s1").digest == first
    assert content(world / "p" / "film-s0") == before


def test_a_transfer_without_tune_leaves_tuned_prompts_alone(world, capsys) -> None:
    assert train() == 0
    assert transfer("--tune", "--steps", "2", "--evaluate-every", "1", "--batch", "4") == 0
    before = content(world / "t")
    assert any(name.startswith("prompts/film-to-room") for name in before)
    assert transfer() == 2
    assert "--overwrite" in capsys.readouterr().err and content(world / "t") == before
    assert transfer("--tune", "--steps", "2", "--evaluate-every", "1", "--batch", "4") == 0
    assert content(world / "t") == before


def test_what_other_verbs_put_beside_a_matrix_stays(world) -> None:
    assert train() == 0 and transfer() == 0
    assert run("plot", "heatmap", "t/transfer.csv") == 0
    assert transfer("--limit-test", "3") == 2
    assert transfer("--limit-test", "3", "--overwrite") == 0
    assert (world / "t" / "transfer.png").is_file()


def test_single_files_are_made_again_from_the_same_and_refused_from_other_settings(world, capsys) -> None:
    assert train("--seeds", "0", "1") == 0
    for verb in (
        ("compare", "p", "-o", "c"),
        ("evaluate", "p", "--task", "film.yaml", "--data", "data", "--precision", "fp32", "-o", "e.json"),
        ("neurons", "p", "--precision", "fp32", "-o", "n/states.safetensors"),
    ):
        assert run(*verb) == 0
        before = texts(world)
        assert run(*verb) == 0
        assert texts(world) == before
    assert run("plot", "heatmap", "c/similarity_E_concat.csv") == 0
    assert run("plot", "heatmap", "c/similarity_E_concat.csv") == 0
    capsys.readouterr()
    for verb in (
        ("compare", "p/film-s0", "p/film-s1", "--types", "film=other", "-o", "c"),
        ("evaluate", "p/film-s0", "--task", "film.yaml", "--data", "data", "-o", "e.json"),
        ("neurons", "p", "--rule", "top", "-o", "n/states.safetensors"),
        ("plot", "heatmap", "c/similarity_E_concat.csv", "--title", "another"),
    ):
        assert run(*verb) == 2
        assert "--overwrite" in capsys.readouterr().err
        assert run(*verb, "--overwrite") == 0


def test_a_file_that_nobody_made_is_not_written_over(world, capsys) -> None:
    assert train("--seeds", "0", "1") == 0
    (world / "c").mkdir()
    (world / "c" / "similarity_E_concat.csv").write_text("mine")
    assert run("compare", "p", "-o", "c") == 2
    assert (world / "c" / "similarity_E_concat.csv").read_text() == "mine"


def test_exports_and_imports_keep_what_is_there(world, capsys) -> None:
    assert train("--seeds", "0", "1") == 0
    for target in ("x.safetensors", "x.npy"):
        assert run("export", "p/film-s0", "-o", target) == 0 == run("export", "p/film-s0", "-o", target)
        assert run("export", "p/film-s1", "-o", target) == 2
        assert run("export", "p/film-s1", "-o", target, "--overwrite") == 0
    back = ("import", "x.npy", "--backbone", "model", "--task", "film.yaml", "-o", "back")
    assert run(*back) == 0 == run(*back)
    assert run(*back, "--layout", "after-bos") == 2
    assert "--overwrite" in capsys.readouterr().err and load_adaptation(Path("back")).layout == "prompt-first"


def test_from_python_nothing_is_written_that_was_not_asked_for(world) -> None:
    import prompttransfer

    assert train() == 0
    before = content(world)
    settings = {"data": Path("data"), "precision": "fp32"}
    prompts = prompttransfer.train(
        task=["film.yaml"], backbone="model", steps=1, length=2, batch=4, **settings
    )
    matrix = prompttransfer.transfer(sources=[Path("p")], to=["room.yaml"], **settings)
    prompttransfer.evaluate([Path("p")], task=["room.yaml"], **settings)
    assert prompts[0].name == "film" and matrix.targets == ("room",)
    assert content(world) == before
    with pytest.raises(UserError, match="give output for the tuned prompts"):
        prompttransfer.transfer(sources=[Path("p")], to=["room.yaml"], tune=True, **settings)
    with pytest.raises(UserError, match="say where with output"):
        prompttransfer.demo()


def test_a_task_called_logs_has_its_prompt_and_its_log(world) -> None:
    assert train(task="logs.yaml") == 0
    assert load_adaptation(world / "p" / "logs").task == "logs"
    assert train(task="film.yaml") == 0
    assert {path.name for path in (world / "p").iterdir() if path.is_dir()} == {"logs", "film", "_logs"}


def test_two_tasks_of_one_name_are_refused_before_anything_is_made(world, capsys) -> None:
    (world / "other").mkdir()
    (world / "other" / "film.yaml").write_text((world / "film.yaml").read_text())
    assert (
        run("train", "--task", "film.yaml", "other/film.yaml", "--backbone", "model", *SHORT, "-o", "p") == 2
    )
    assert "task 'film' is given twice" in capsys.readouterr().err
    assert not (world / "p").exists()


def test_names_of_tuned_prompts_are_looked_at_before_training(world, capsys) -> None:
    assert train() == 0 == run("export", "p/film", "-o", "x.npy")
    given = ("--backbone", "model", "--task", "film.yaml", "--name", "x" * 115)
    assert run("import", "x.npy", *given, "-o", "p/long") == 0
    assert transfer("--tune", "--steps", "1") == 2
    assert "name of a tuned prompt" in capsys.readouterr().err
    assert not (world / "t").exists() and not list(world.glob(".training-*"))


def test_a_prompt_whose_name_leads_elsewhere_is_refused_when_it_is_read(world, capsys) -> None:
    assert train() == 0
    path = world / "p" / "film" / "adaptation.json"
    path.write_text(path.read_text().replace('"name": "film"', '"name": "../../esc"'))
    for verb in (("evaluate", "p", "--task", "film.yaml"), ("compare", "p"), ("export", "p", "-o", "x.npy")):
        assert run(*verb) == 2
    assert transfer("--tune", "--steps", "1") == 2
    assert not (world / "t").exists() and not list(world.glob(".training-*"))
