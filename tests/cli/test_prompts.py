"""`prompts list | show | read`."""

import json

import pytest
import torch
from toys import adapted, changed, prompt_on

from prompttransfer.adaptations.artifacts import load_adaptation, save_adaptation
from prompttransfer.adaptations.nearest_words import by_chance, nearest_words
from prompttransfer.cli import main


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(list(map(str, arguments)))
    return stopped.value.code, *capsys.readouterr()


def scored(adaptation, value):
    scores = {"validation": {"accuracy": value, "step": 2}, "test": {"accuracy": value, "rows": 9}}
    return changed(adaptation, scores=scores)


@pytest.fixture
def folder(tiny, tmp_path):
    backbone = tiny("roberta")
    for seed, value in enumerate((0.5, 0.75, 0.25)):
        save_adaptation(scored(prompt_on(backbone, seed=seed), value), tmp_path / f"p{seed}")
    save_adaptation(adapted(backbone, "lora:rank=2", name="low"), tmp_path / "low")
    return tmp_path


def test_a_list_says_what_each_is_and_sorts_scores_from_the_best_down(folder, capsys):
    code, out, _ = call(capsys, "prompts", "list", folder, "--sort", "test", "--json")
    found = json.loads(out)
    assert code == 0
    assert [line["name"] for line in found] == ["toy-s1", "toy-s0", "toy-s2", "low"]
    assert [line["test"] for line in found] == [0.75, 0.5, 0.25, None]
    assert found[0]["method"] == "prompt:length=3" and found[0]["size"] == 3 * 16
    assert found[3]["method"] == "lora:rank=2"
    assert found[0]["bytes"] == sum(path.stat().st_size for path in (folder / "p1").iterdir())


def test_a_list_for_people_holds_the_same(folder, capsys):
    code, out, _ = call(capsys, "prompts", "list", folder)
    assert code == 0
    wanted = ["low", "toy-s0", "toy-s1", "toy-s2"]
    first = [
        line.split()[0] for line in out.splitlines() if line.strip()
    ]  # long places go on in lines of their own
    assert [word for word in first if word in wanted] == wanted
    assert "0.750" in out


def test_a_column_that_is_none_is_one_line(folder, capsys):
    code, out, err = call(capsys, "prompts", "list", folder, "--sort", "taks")
    assert code == 2 and out == ""
    assert err == f"error: unknown column 'taks': did you mean 'task'? available: {', '.join(AVAILABLE)}\n"


AVAILABLE = sorted(
    ("name", "method", "backbone", "task", "seed", "validation", "test", "size", "bytes", "start")
)


def test_show_says_all_of_one(folder, capsys):
    code, out, _ = call(capsys, "prompts", "show", folder / "p1")
    assert code == 0
    assert "prompt toy-s1" in out and "prompt-first" in out and "accuracy: 0.75" in out
    code, out, _ = call(capsys, "prompts", "show", folder / "p1", "--json")
    assert json.loads(out)["origin"]["seed"] == 1


def test_the_nearest_word_of_a_word_is_itself_and_cosines_are_those_of_the_table(tiny):
    backbone = tiny("roberta")
    ids = backbone.tokenizer("film great", add_special_tokens=False)["input_ids"]
    table = backbone.embedding_table()
    first, second = nearest_words(backbone, 3.0 * table[ids], top=2)
    assert (first[0].word, second[0].word) == ("film", "great")
    assert first[0].cosine == pytest.approx(1.0, abs=1e-6)
    others = torch.nn.functional.cosine_similarity(table[ids[0]], table, dim=1)
    others[ids[0]] = -1
    assert first[1].id == int(others.argmax())
    assert first[1].cosine == pytest.approx(float(others.max()), abs=1e-6)
    assert 0 < by_chance(backbone) < 1


def test_read_names_words_for_every_position_beside_chance(folder, capsys):
    code, out, _ = call(capsys, "prompts", "read", folder / "p0", "--top", "2", "--json")
    (found,) = json.loads(out)
    assert code == 0 and found["name"] == "toy-s0" and 0 < found["by_chance"] < 1
    assert [len(near) for near in found["positions"]] == [2, 2, 2]
    code, out, _ = call(capsys, "prompts", "read", folder / "p0")
    assert found["positions"][0][0]["word"] in out and "a random direction" in out


def test_what_has_no_vectors_is_refused_in_one_line(folder, capsys):
    code, out, err = call(capsys, "prompts", "read", folder / "low")
    assert code == 2 and out == "" and err.count("\n") == 1 and "has no vectors" in err


def test_a_prompt_that_is_a_text_says_so_and_every_word_is_nearest_to_itself(tiny, tmp_path, capsys):
    save_adaptation(adapted(tiny("roberta"), "text:prompt=is it good", name="words"), tmp_path / "words")
    code, out, _ = call(capsys, "prompts", "read", tmp_path / "words", "--json")
    (found,) = json.loads(out)
    assert code == 0 and found["text"] == "is it good"
    assert [near[0]["word"] for near in found["positions"]] == ["is", "it", "good"]
    assert all(near[0]["cosine"] == pytest.approx(1, abs=1e-6) for near in found["positions"])
    code, out, _ = call(capsys, "prompts", "read", tmp_path / "words")
    assert "its text: 'is it good'" in out
    code, out, _ = call(capsys, "prompts", "show", tmp_path / "words")
    assert "text: is it good" in out


def test_attention_shows_how_much_each_source_counts(tiny, tmp_path, capsys):
    text = "attempt:length=3,hidden=4,sources=random:2,temperature=2"
    place = save_adaptation(adapted(tiny("roberta"), text, name="mix"), tmp_path / "mix")
    code, out, error = call(
        capsys, "prompts", "attention", place, "--task", "microworld-sst2", "--limit-test", "8", "--json"
    )
    assert code == 0, error
    found = json.loads(out)
    assert found["mean"].keys() == {"random 1", "random 2", "its own"} and len(found["rows"]) == 8
    assert sum(found["mean"].values()) == pytest.approx(1, abs=1e-5)
    code, out, _ = call(
        capsys, "prompts", "attention", place, "--task", "microworld-sst2", "--limit-test", "8"
    )
    assert "all alike would be 0.333" in out


def test_attention_of_several_is_drawn_as_rows_of_one_picture(tiny, tmp_path, capsys):
    text = "attempt:length=3,hidden=4,sources=random:2,temperature=2"
    for seed in (0, 1):
        own = adapted(tiny("roberta"), text, name=f"mix{seed}", seed=seed)
        save_adaptation(own, tmp_path / "mixed" / f"mix{seed}")
    given = ("--task", "microworld-sst2", "--limit-test", "8", "--figure", tmp_path / "w.png")
    code, out, error = call(capsys, "prompts", "attention", tmp_path / "mixed", *given)
    assert code == 0, error
    assert "attention of mix0 on 8 rows" in out and "attention of mix1" in out and "sd" in out
    drawn = (tmp_path / "w.svg").read_text()
    assert all(name in drawn for name in ("mix0", "mix1", "random 1", "its own"))
    code, out, _ = call(capsys, "prompts", "attention", tmp_path / "mixed", *given[:4], "--json")
    first, second = json.loads(out)
    assert first["sd"].keys() == first["mean"].keys() == second["mean"].keys()


def test_attention_of_what_attends_to_nothing_is_one_line(folder, capsys):
    code, _, error = call(capsys, "prompts", "attention", folder / "p0")
    assert code == 2 and "is of method prompt, which mixes no prompts" in error


def test_an_index_answers_for_what_is_as_it_was_and_for_nothing_else(folder, tiny, capsys):
    plain = json.loads(call(capsys, "prompts", "list", folder, "--json")[1])
    code, out, _ = call(capsys, "prompts", "index", folder)
    assert code == 0 and "4 adaptations" in out
    code, out, err = call(capsys, "prompts", "list", folder, "--json")
    assert json.loads(out) == plain and err == ""
    save_adaptation(scored(prompt_on(tiny("roberta"), seed=1), 0.9), folder / "p1")
    save_adaptation(scored(prompt_on(tiny("roberta"), seed=3), 0.8), folder / "p3")
    (folder / "p0" / "adaptation.json").unlink()
    code, out, err = call(capsys, "prompts", "list", folder, "--sort", "test", "--json")
    assert [(line["name"], line["test"]) for line in json.loads(out)][:2] == [
        ("toy-s1", 0.9),
        ("toy-s3", 0.8),
    ]
    assert "is behind: 3 adaptations are new, changed or gone" in err
    assert call(capsys, "prompts", "index", folder)[0] == 0
    assert call(capsys, "prompts", "list", folder, "--json")[2] == ""


def test_a_damaged_index_is_one_line(folder, capsys):
    (folder / ".index.json").write_text("{")
    code, _, err = call(capsys, "prompts", "list", folder)
    assert code == 2 and "prompts index" in err and err.count("\n") == 1


def test_a_copy_is_the_same_under_its_own_name(folder, capsys):
    place = folder / "more" / "twin"
    assert call(capsys, "prompts", "copy", folder / "p1", "--output", place)[0] == 0
    first, second = load_adaptation(folder / "p1"), load_adaptation(place)
    assert (second.name, second.digest, second.scores) == ("twin", first.digest, first.scores)
    versions = [json.loads((at / "adaptation.json").read_text())["versions"] for at in (folder / "p1", place)]
    assert versions[0] == versions[1] and "`twin`" in (place / "README.md").read_text()
    code, _, err = call(capsys, "prompts", "copy", folder / "p0", "--output", place)
    assert code == 2 and "--overwrite" in err
    assert call(capsys, "prompts", "copy", folder / "p0", "--output", place, "--overwrite")[0] == 0


def test_renaming_moves_the_folder_and_renews_the_index(folder, capsys):
    call(capsys, "prompts", "index", folder)
    before = load_adaptation(folder / "p1").digest
    assert call(capsys, "prompts", "rename", folder / "p1", "best")[0] == 0
    assert not (folder / "p1").exists()
    assert (load_adaptation(folder / "best").name, load_adaptation(folder / "best").digest) == (
        "best",
        before,
    )
    assert call(capsys, "prompts", "list", folder, "--json")[2] == ""
    code, _, err = call(capsys, "prompts", "rename", folder / "p0", "p2")
    assert code == 2 and "is there already" in err
    code, _, err = call(capsys, "prompts", "rename", folder / "p0", "../out")
    assert code == 2 and "cannot be a file name" in err


def test_removing_needs_a_yes_and_spares_what_is_not_ours(folder, capsys):
    code, _, err = call(capsys, "prompts", "remove", folder / "p0")
    assert code == 2 and "--yes" in err and (folder / "p0").exists()
    (folder / "p1" / "notes.txt").write_text("mine")
    code, _, err = call(capsys, "prompts", "remove", folder / "p0", folder / "p1", "--yes")
    assert code == 2 and "notes.txt" in err and (folder / "p0").exists()
    assert call(capsys, "prompts", "remove", folder / "p0", folder / "p2", "--yes")[0] == 0
    assert sorted(path.name for path in folder.iterdir()) == ["low", "p1"]
    code, _, err = call(capsys, "prompts", "remove", folder, "--yes")
    assert code == 2 and "is not a prompt folder" in err
