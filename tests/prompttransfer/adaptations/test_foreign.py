"""Prompts of other systems: read as they are, or refused in one line; nothing in a file is ever run."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import noise, prompt_on

from prompttransfer.adaptations.artifacts import save_adaptation
from prompttransfer.adaptations.exchange import export_prompts, read_foreign
from prompttransfer.adaptations.prompts import soft_prompt
from tasks.errors import UserError

REFERENCE = Path(__file__).resolve().parents[4] / "shared" / "reference" / "foreign_prompts"
VECTORS = noise(5, 16)


def saved(kind, folder, vectors=VECTORS):
    """A file of every format, with the same vectors."""
    path = folder / kind
    if kind.endswith(".npy"):
        np.save(path, vectors.numpy())
    elif kind.endswith(".safetensors"):
        save_file({"prompt": vectors}, path)
    elif kind.endswith("checkpoint.pkl"):
        torch.save(
            {"model": vectors, "optimizer": {"state": {}}, "trained_epoch": 18, "global_step": 77}, path
        )
    else:
        torch.save(vectors, path)
    return path


FILES = ("a.task_prompt", "checkpoint.pkl", "a.pt", "a.npy", "a.safetensors")


@pytest.mark.parametrize("kind", FILES)
def test_every_format_gives_the_vectors_bit_for_bit(tmp_path, kind):
    vectors, facts = read_foreign(saved(kind, tmp_path))
    assert torch.equal(vectors, VECTORS)
    assert facts["file"] == kind and facts["stored_as"] == "float32"


def test_a_checkpoint_keeps_how_long_it_was_trained(tmp_path):
    _, facts = read_foreign(saved("checkpoint.pkl", tmp_path))
    assert (facts["trained_epoch"], facts["global_step"], facts["key"]) == (18, 77, "model")


def test_the_layout_is_told_by_the_authors_files_only(tmp_path):
    told = {kind: read_foreign(saved(kind, tmp_path)).facts.get("layout") for kind in FILES}
    assert told == {
        "a.task_prompt": "su2022",
        "checkpoint.pkl": "su2022",
        "a.pt": None,
        "a.npy": None,
        "a.safetensors": None,
    }


def test_a_format_is_known_by_its_content_not_by_its_name(tmp_path):
    path = saved("a.npy", tmp_path).rename(tmp_path / "a.task_prompt")
    assert read_foreign(path).facts["format"] == "npy"


def test_old_torch_files_are_read(tmp_path):
    torch.save(VECTORS, tmp_path / "old.task_prompt", _use_new_zipfile_serialization=False)
    assert torch.equal(read_foreign(tmp_path / "old.task_prompt").vectors, VECTORS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_converted_and_it_is_said(tmp_path, dtype):
    torch.save(VECTORS.to(dtype), tmp_path / "a.pt")
    vectors, facts = read_foreign(tmp_path / "a.pt")
    assert vectors.dtype == torch.float32 and torch.equal(vectors, VECTORS.to(dtype).float())
    assert facts["stored_as"] == str(dtype).removeprefix("torch.")


def test_big_endian_numpy_files_are_read(tmp_path):
    np.save(tmp_path / "a.npy", VECTORS.numpy().astype(">f4"))
    assert torch.equal(read_foreign(tmp_path / "a.npy").vectors, VECTORS)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_file_that_was_cut_short_is_one_line(tmp_path, kind, share):
    path = saved(kind, tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match="cut short") as caught:
        read_foreign(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY", b"PK\x03\x04", b"\x80\x02"])
def test_what_is_no_prompt_is_one_line(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(UserError, match="cut short"):
        read_foreign(tmp_path / "a.pt")


class Bomb:
    """A pickle that would write a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path):
    marker = tmp_path / "ran"
    torch.save({"model": Bomb(marker)}, tmp_path / "zip.pkl")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Bomb(marker)))
    np.save(tmp_path / "objects.npy", np.array([Bomb(marker)], dtype=object), allow_pickle=True)
    torch.save({"prompt_embeddings": Bomb(marker)}, tmp_path / "adapter_model.bin")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 5}')
    for path in (tmp_path / "zip.pkl", tmp_path / "objects.npy", tmp_path):
        with pytest.raises(UserError, match="could run code"):
            read_foreign(path)
    with pytest.raises(UserError):
        read_foreign(tmp_path / "plain.pkl")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(5), r"shape \[5\]: a soft prompt is \[length, width\]"),
        (torch.zeros(1, 5, 16), r"shape \[1, 5, 16\]"),
        (torch.zeros(0, 16), r"shape \[0, 16\]"),
        (torch.zeros(5, 16, dtype=torch.int64), "holds int64"),
        (torch.full((5, 16), float("nan")), "not finite"),
        (torch.full((5, 16), 1e300, dtype=torch.float64), "not finite in float32"),
        ([1.0, 2.0], "holds a list"),
        ({"epoch": 3}, "holds no array"),
    ],
)
def test_what_cannot_be_a_prompt_says_why(tmp_path, value, message):
    torch.save(value, tmp_path / "a.pt")
    with pytest.raises(UserError, match=message):
        read_foreign(tmp_path / "a.pt")


def test_integers_and_text_in_numpy_files_are_refused(tmp_path):
    for array in (np.zeros((5, 16), dtype=np.int32), np.array([["a"]])):
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(UserError, match="made of floats"):
            read_foreign(tmp_path / "a.npy")


def test_one_of_several_arrays_is_chosen_by_key(tmp_path):
    save_file({"sst2": VECTORS, "imdb": VECTORS + 1}, tmp_path / "many.safetensors")
    vectors, facts = read_foreign(tmp_path / "many.safetensors", "imdb")
    assert torch.equal(vectors, VECTORS + 1) and facts["key"] == "imdb"
    with pytest.raises(UserError, match=r"2 arrays: choose one with --key; available: imdb, sst2"):
        read_foreign(tmp_path / "many.safetensors")
    with pytest.raises(UserError, match="did you mean 'sst2'"):
        read_foreign(tmp_path / "many.safetensors", "sst3")
    with pytest.raises(UserError, match="drop --key imdb"):
        read_foreign(saved("a.npy", tmp_path), "imdb")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no such prompt"):
        read_foreign(tmp_path / "nothing.pt")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, r"has no adapter_config\.json"),
        ("{", "not JSON that can be read"),
        ("[]", "must be a JSON object"),
        ('{"peft_type": "LORA"}', "type LORA, not a soft prompt"),
        ('{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4}', "does not fit num_virtual_tokens 4"),
        ('{"peft_type": "PROMPT_TUNING"}', "does not fit num_virtual_tokens None"),
    ],
)
def test_a_peft_folder_that_is_none_says_why(tmp_path, config, message):
    save_file({"prompt_embeddings": VECTORS}, tmp_path / "adapter_model.safetensors")
    if config is not None:
        (tmp_path / "adapter_config.json").write_text(config)
    with pytest.raises(UserError, match=message):
        read_foreign(tmp_path)


def test_a_peft_folder_without_weights_is_incomplete(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 5}')
    with pytest.raises(UserError, match="the adapter is incomplete"):
        read_foreign(tmp_path)


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the reference prompts of the authors are not here")
@pytest.mark.parametrize(
    ("file", "shape", "layout"),
    [
        ("su2022_SST2PromptRoberta.task_prompt", (100, 768), "su2022"),
        ("su2022_squadPromptT5.task_prompt", (100, 768), "su2022"),
        ("su2022_snliPromptRobertaLarge.18.pkl", (100, 1024), "su2022"),
        ("google_t5_1_1_lm100k_base_sst2.npy", (100, 768), None),
    ],
)
def test_the_published_prompts_are_read(file, shape, layout):
    vectors, facts = read_foreign(REFERENCE / file)
    assert tuple(vectors.shape) == shape
    assert facts.get("layout") == layout
    assert vectors.std() > 1e-3


# Writing ------------------------------------------------------------------------------------------------------


def prompt(name="toy", seed=0, **fields):
    return soft_prompt(vectors=noise(5, 16, seed=seed), task="toy", backbone="a-roberta", name=name, **fields)


@pytest.mark.parametrize(
    ("format_", "name"), [("safetensors", "a.safetensors"), ("npy", "a.npy"), ("peft", "folder")]
)
def test_what_is_exported_is_read_again_bit_for_bit(tmp_path, format_, name):
    path = export_prompts([prompt()], tmp_path / name, format_)
    assert torch.equal(read_foreign(path).vectors, prompt().vectors)
    # And once more over itself.
    export_prompts([prompt()], tmp_path / name, format_)
    assert [item.name for item in tmp_path.iterdir()] == [name]


def test_several_prompts_make_one_file_with_a_key_each(tmp_path):
    path = export_prompts([prompt("a"), prompt("b", 1)], tmp_path / "many.safetensors", "safetensors")
    assert sorted(load_file(path)) == ["a", "b"]
    assert torch.equal(read_foreign(path, "b").vectors, noise(5, 16, seed=1))
    with pytest.raises(UserError, match="two prompts are called 'a'"):
        export_prompts([prompt("a"), prompt("a", 1)], path, "safetensors")
    with pytest.raises(UserError, match="npy holds one prompt, 2 given"):
        export_prompts([prompt("a"), prompt("b")], tmp_path / "b.npy", "npy")


def test_an_export_never_replaces_something_else(tmp_path, tiny):
    save_file({"weights": VECTORS}, tmp_path / "model.safetensors")
    np.save(tmp_path / "data.npy", VECTORS.numpy() + 1)
    (tmp_path / "notes").write_text("mine")
    lora = tmp_path / "lora"
    lora.mkdir()
    (lora / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    ours = save_adaptation(prompt_on(tiny("roberta")), tmp_path / "ours")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for format_, name in (
        ("safetensors", "model.safetensors"),
        ("safetensors", "notes"),
        ("safetensors", "lora"),
        ("npy", "data.npy"),
        ("peft", "lora"),
        ("peft", "notes"),
        ("peft", ours.name),
        ("peft", "."),
    ):
        with pytest.raises(UserError, match="--output"):
            export_prompts([prompt()], tmp_path / name, format_)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("layout", ["after-bos", "su2022"])
def test_a_layout_that_peft_cannot_run_is_not_exported_for_it(tmp_path, layout):
    with pytest.raises(UserError, match="PEFT puts prompts first"):
        export_prompts([prompt(layout=layout)], tmp_path / "p", "peft")
    assert list(tmp_path.iterdir()) == []
    t5 = soft_prompt(vectors=VECTORS, task="toy", backbone="a-t5", family="t5", layout="su2022")
    export_prompts([t5], tmp_path / "p", "peft")
    config = json.loads((tmp_path / "p" / "adapter_config.json").read_text())
    assert (config["task_type"], config["num_transformer_submodules"]) == ("SEQ_2_SEQ_LM", 1)


def test_an_unknown_format_is_named(tmp_path):
    with pytest.raises(UserError, match="did you mean 'safetensors'"):
        export_prompts([prompt()], tmp_path / "a", "safetensor")
