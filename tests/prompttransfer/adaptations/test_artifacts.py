"""Prompt folders: what is read is what was written, bit for bit, or one clear error."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import changed as other
from toys import noise, prompt_on

from prompttransfer.adaptations.adaptation import Adaptation, CurvePoint, same_tensors
from prompttransfer.adaptations.artifacts import card, find_adaptations, load_adaptation, save_adaptation
from prompttransfer.adaptations.prompts import soft_prompt
from prompttransfer.adaptations.running import bank_of, check_runs_on
from prompttransfer.adaptations.starts import source_of
from prompttransfer.backbones.layouts import Encoding
from tasks.errors import UserError


@pytest.fixture
def prompt(tiny):
    return prompt_on(
        tiny("roberta"),
        name="toy-s0",
        layout="after-bos",
        start="text:the film",
        initial=noise(3, 16, seed=9),
        words={"negative": "terrible", "positive": "great"},
        recipe={"lr": 0.1 + 0.2},
        data={"source": "toy rows", "train": 12},
        scores={"validation": {"accuracy": 2 / 3, "step": 4}},
        curve=(CurvePoint(0, None, 0.5, 0.7), CurvePoint(2, 1 / 3, 2 / 3, None)),
    )


def test_reloading_is_bit_exact_in_every_field(prompt, tmp_path):
    loaded = load_adaptation(save_adaptation(prompt, tmp_path / "p"))
    for field in Adaptation.__dataclass_fields__:
        value, again = getattr(prompt, field), getattr(loaded, field)
        if field in ("tensors", "initial"):
            assert same_tensors(value, again)
        else:
            assert value == again, field


def test_a_folder_holds_these_files_and_no_pickle(prompt, tmp_path):
    folder = save_adaptation(prompt, tmp_path / "p")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "adaptation.json",
        "adapter_config.json",
        "adapter_model.safetensors",
        "initial.safetensors",
    ]
    assert load_file(folder / "adapter_model.safetensors")["prompt_embeddings"].dtype == torch.float32


def test_changed_vectors_are_noticed(prompt, tmp_path):
    folder = save_adaptation(prompt, tmp_path / "p")
    vectors = prompt.vectors.clone()
    vectors[0, 0] += 1e-7
    save_file({"prompt_embeddings": vectors}, folder / "adapter_model.safetensors")
    with pytest.raises(UserError, match="was changed after it was written"):
        load_adaptation(folder)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_file_that_was_cut_short_is_one_line(prompt, tmp_path, keep):
    folder = save_adaptation(prompt, tmp_path / "p")
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match="cut short") as caught:
        load_adaptation(folder)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(prompt, tmp_path):
    folder = save_adaptation(prompt, tmp_path / "p")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"adapter_model\.safetensors is missing"):
        load_adaptation(folder)


def changed(text, key, value):
    """The record with another value under a key."""
    return json.dumps({**json.loads(text), key: value})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "not JSON that can be read"),
        (lambda text: "", "not JSON that can be read"),
        (lambda text: "[]", "is damaged"),
        (lambda text: text.replace('"length": 3', '"length": "three"'), "must be a whole number"),
        (lambda text: text.replace('"task"', '"tusk"'), "task"),
        (lambda text: text.replace('"max_length"', '"zz": 1, "max_length"'), "encoding.zz: Extra inputs"),
        (
            lambda text: changed(text, "shapes", {"prompt_embeddings": [4, 16]}),
            r"holds \[3, 16\], its record says \[4, 16\]",
        ),
        (lambda text: text.replace("after-bos", "after-boss"), "did you mean 'after-bos'"),
        (lambda text: changed(text, "curve", [{"step": 1}]), r"curve.0.loss: Field required"),
        (
            lambda text: changed(text, "curve", [{"step": 1, "loss": 1.0, "score": 1.0, "zz": 1}]),
            "curve.0.zz: Extra inputs",
        ),
        (lambda text: text.replace('"lr": 0.30000000000000004', '"lr": "fast"'), "recipe.lr: .*valid number"),
        (lambda text: changed(text, "scores", {"x": float("inf")}), "Infinity is no number of JSON"),
        (lambda text: "[" * 100_000, "nested more than 100 deep"),
    ],
)
def test_a_damaged_record_says_what_is_wrong(prompt, tmp_path, damage, message):
    folder = save_adaptation(prompt, tmp_path / "p")
    path = folder / "adaptation.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=message):
        load_adaptation(folder)


def test_a_format_of_the_future_is_refused(prompt, tmp_path):
    folder = save_adaptation(prompt, tmp_path / "p")
    path = folder / "adaptation.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 99'))
    with pytest.raises(UserError, match="format 99"):
        load_adaptation(folder)


def test_a_folder_that_holds_something_else_is_left_alone(prompt, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        save_adaptation(prompt, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_prompt_folder_is_replaced_as_a_whole(prompt, tmp_path):
    save_adaptation(prompt, tmp_path / "p")
    other = replace(prompt, tensors={"prompt_embeddings": noise(3, 16, seed=5)}, initial=None)
    loaded = load_adaptation(save_adaptation(other, tmp_path / "p"))
    assert torch.equal(loaded.vectors, other.vectors)
    assert not (tmp_path / "p" / "initial.safetensors").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


@pytest.mark.parametrize("name", ["../escape", "a/b", "..", "a..b", ".hidden", "x" * 200])
def test_a_name_cannot_leave_the_output_folder(prompt, tmp_path, name):
    with pytest.raises(UserError, match="cannot be a file name"):
        save_adaptation(replace(prompt, name=name), tmp_path / "runs" / "p")
    assert list(tmp_path.iterdir()) == []


def test_the_prompts_of_a_folder_are_found_by_name(prompt, tmp_path):
    for name in ("b", "a"):
        save_adaptation(prompt, tmp_path / name)
    (tmp_path / "logs").mkdir()
    assert [path.name for path in find_adaptations(tmp_path)] == ["a", "b"]
    assert find_adaptations(tmp_path / "a") == [tmp_path / "a"]
    with pytest.raises(UserError, match="no prompt in"):
        find_adaptations(tmp_path / "logs")
    with pytest.raises(UserError, match="is not a folder"):
        find_adaptations(tmp_path / "nothing")
    with pytest.raises(UserError, match="no such folder"):
        load_adaptation(tmp_path / "nothing")


def test_the_card_says_where_a_prompt_came_from_and_who_can_read_it(prompt):
    text = card(prompt)
    for part in ("`toy`", "negative = terrible", "accuracy 0.6667", prompt.digest, "PEFT puts prompts first"):
        assert part in text
    assert "gives the same logits" in card(replace(prompt, encoding=Encoding("prompt-first")))


def test_the_commit_of_a_hub_backbone_is_in_the_record_in_pefts_configuration_and_in_the_card(
    prompt, tmp_path
):
    commit = "0123456789abcdef0123456789abcdef01234567"
    pinned = other(prompt, revision=commit, backbone="somebody/model", layout="prompt-first")
    folder = save_adaptation(pinned, tmp_path / "p")
    assert json.loads((folder / "adaptation.json").read_text())["origin"]["revision"] == commit
    assert json.loads((folder / "adapter_config.json").read_text())["revision"] == commit
    assert f'revision="{commit}"' in (folder / "README.md").read_text()
    local = save_adaptation(prompt, tmp_path / "q")  # a folder has no commit that PEFT could ask for
    assert json.loads((local / "adapter_config.json").read_text())["revision"] is None


def test_the_record_holds_no_machine_path_and_is_plain_json(prompt, tmp_path):
    record = json.loads((save_adaptation(prompt, tmp_path / "p") / "adaptation.json").read_text())
    assert record["origin"]["recipe"]["lr"] == 0.1 + 0.2
    assert str(tmp_path) not in json.dumps({k: v for k, v in record.items() if k != "origin"})


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (torch.zeros(3), "has shape"),
        (torch.zeros(0, 4), "has shape"),
        (torch.zeros(3, 4, dtype=torch.bfloat16), "kept in float32"),
        (torch.tensor([[float("nan")]]), "not finite"),
    ],
)
def test_a_prompt_cannot_be_built_wrong(vectors, message):
    with pytest.raises(UserError, match=message):
        soft_prompt(vectors=vectors, task="toy", backbone="b")


def test_a_prompt_on_another_width_layout_or_family_is_refused(prompt):
    same = {"backbone": "b", "width": 16, "family": "masked-lm", "layout": "after-bos"}
    check_runs_on(prompt, **same)
    with pytest.raises(UserError, match=r"width 16 .* but b has width 32"):
        check_runs_on(prompt, **{**same, "width": 32})
    with pytest.raises(UserError, match="trained under layout 'after-bos', not 'su2022'"):
        check_runs_on(prompt, **{**same, "layout": "su2022"})
    check_runs_on(prompt, **{**same, "layout": "su2022"}, other_layout=True)
    with pytest.raises(UserError, match="trained on a masked-lm backbone"):
        check_runs_on(prompt, **{**same, "family": "t5"})


def test_prompts_of_different_shape_do_not_make_a_bank(tiny):
    short, long = prompt_on(tiny("roberta")), prompt_on(tiny("roberta"), task="other", length=4)
    with pytest.raises(UserError, match=r"'toy-s0' is prompt \[3, 16\], 'other-s0' is prompt \[4, 16\]"):
        bank_of(tiny("roberta"), [short, long])
    assert bank_of(tiny("roberta"), [short, short]).prompts.shape == (2, 3, 16)


def test_a_changed_bit_of_the_initial_vectors_is_found(prompt, tmp_path):
    file = save_adaptation(prompt, tmp_path / "p") / "initial.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-3] + bytes([whole[-3] ^ 4]) + whole[-2:])
    with pytest.raises(UserError, match=r"initial\.safetensors was changed after it was written"):
        load_adaptation(tmp_path / "p")


def test_initial_vectors_from_before_digests_are_read(prompt, tmp_path):
    from safetensors.torch import load_file, save_file

    file = save_adaptation(prompt, tmp_path / "p") / "initial.safetensors"
    save_file(load_file(file), file)
    assert torch.equal(load_adaptation(tmp_path / "p").first_vectors, prompt.first_vectors)


def test_a_prompt_that_is_being_written_is_not_found(prompt, tmp_path):
    save_adaptation(prompt, tmp_path / "p")
    save_adaptation(prompt, tmp_path / ".p.~half")
    assert find_adaptations(tmp_path) == [tmp_path / "p"]


def of_format_1(folder, prompt):
    """The folder that version 0.1 wrote for a soft prompt, its record by hand."""
    save_adaptation(prompt, folder)
    (folder / "adaptation.json").unlink()
    record = {
        "format": 1, "name": "toy-s0", "task": "toy", "backbone": prompt.backbone, "revision": prompt.revision,
        "family": "masked-lm", "layout": "after-bos", "length": 3, "width": 16, "seed": 0,
        "initialiser": "prompt:runs/a", "words": {"negative": "terrible", "positive": "great"},
        "settings": {"lr": 0.5, "length": 3, "max_length": 64, "aggregation": "mean", "precision": "float32"},
        "data": {"source": "toy rows", "train": 12}, "scores": {"validation": {"accuracy": 0.5, "step": 4}},
        "curve": [{"step": 0, "loss": None, "score": 0.5, "validation_loss": 0.7}],
        "digest": prompt.digest, "versions": {"torch": "2"},
    }  # fmt: skip
    (folder / "prompt.json").write_text(json.dumps(record))
    return folder


def test_a_prompt_of_format_1_is_read_as_what_it_is(prompt, tmp_path):
    found = load_adaptation(of_format_1(tmp_path / "p", prompt))
    assert find_adaptations(tmp_path) == [tmp_path / "p"]
    assert torch.equal(found.vectors, prompt.vectors) and torch.equal(
        found.first_vectors, prompt.first_vectors
    )
    assert str(found.method) == "prompt:length=3" and found.encoding == Encoding("after-bos", 64, "mean")
    assert found.origin.recipe == {"lr": 0.5, "precision": "float32"}
    assert source_of(found.origin.start) == "runs/a" and found.curve[0].validation_loss == 0.7
    assert found.settings["length"] == 3 and found.settings["max_length"] == 64


def test_a_prompt_of_format_1_is_replaced_by_one_of_today(prompt, tmp_path):
    folder = of_format_1(tmp_path / "p", prompt)
    (folder / "notes.txt").write_text("mine")
    save_adaptation(load_adaptation(folder), folder)
    assert not (folder / "prompt.json").exists() and (folder / "notes.txt").read_text() == "mine"
    assert load_adaptation(folder).origin.recipe["lr"] == 0.5


def test_it_shows_itself_in_a_line_without_its_tensors(prompt):
    assert repr(prompt) == f"<Adaptation 'toy-s0': prompt:length=3 for toy on {prompt.backbone}>"
