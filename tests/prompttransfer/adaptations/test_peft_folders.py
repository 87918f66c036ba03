"""PEFT's folders of every method that is written for PEFT are read again, and what they hold beside it is refused."""

import json

import pytest
import torch
from conftest import KINDS
from method_texts import LACKS, TEXTS
from toys import adapted, label_task, sentences

from prompttransfer.adaptations.artifacts import peft_config, save_adaptation
from prompttransfer.adaptations.exchange import export_prompts
from prompttransfer.adaptations.methods import METHODS
from prompttransfer.adaptations.peft_folders import read_peft_folder
from prompttransfer.backbones.layouts import LAYOUTS
from tasks.errors import UserError

CASES = [
    (kind, text) for kind in KINDS for name in METHODS for text in TEXTS[name] if (kind, name) not in LACKS
]


def scores(backbone, method, tensors):
    rows = backbone.encode(label_task(), sentences()[:3], reserved=method.reserved)
    batch = backbone.batch(rows, layout=LAYOUTS["prompt-first"])
    with torch.no_grad():
        own = method.bank(backbone, [method.restored(tensors)]).rows(torch.zeros(3, dtype=torch.long))
        return backbone.label_scores(own, batch)


@pytest.mark.parametrize(("kind", "text"), CASES)
def test_what_is_exported_for_peft_is_read_again_and_answers_alike(tiny, tmp_path, kind, text):
    backbone = tiny(kind)
    one = adapted(backbone, text)
    config = peft_config(one)
    if config is None:
        with pytest.raises(UserError, match="PEFT has nothing that"):
            export_prompts([one], tmp_path / "out", "peft")
        return
    export_prompts([one], tmp_path / "out", "peft")
    export_prompts([one], tmp_path / "out", "peft")  # the same again is no conflict
    if config["peft_type"] == "PROMPT_TUNING":
        return  # test_peft.py
    method, tensors, facts = read_peft_folder(tmp_path / "out")
    assert facts["type"] == config["peft_type"] and facts["stored_as"] == "float32"
    expected = scores(backbone, one.method, one.tensors)
    torch.testing.assert_close(scores(backbone, method, tensors), expected, atol=1e-6, rtol=1e-6)


def test_the_usual_targets_of_a_folder_are_said_as_none(tiny, tmp_path):
    one = adapted(tiny("roberta"), "lora:rank=2,alpha=8")
    assert str(read_peft_folder(save_adaptation(one, tmp_path / "a")).method) == "lora:rank=2,alpha=8.0"
    other = adapted(tiny("roberta"), "lora:rank=2,targets=key")
    assert str(read_peft_folder(save_adaptation(other, tmp_path / "b")).method) == "lora:rank=2,targets=key"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bias": "all"}, "with bias all, which is not read"),
        ({"modules_to_save": ["classifier"]}, "with modules_to_save"),
        ({"rank_pattern": {"query": 4}}, "with rank_pattern"),
        ({"r": 4}, "a rank of 2, the settings say 4"),
        ({"peft_type": "BONE"}, "PEFT type that can be read: 'BONE'"),
    ],
)
def test_what_a_folder_holds_beside_its_method_is_one_clear_line(tiny, tmp_path, changes, words):
    folder = save_adaptation(adapted(tiny("roberta"), "lora:rank=2"), tmp_path / "a")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | changes))
    with pytest.raises(UserError, match=words):
        read_peft_folder(folder)
