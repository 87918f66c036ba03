"""Which backbone exactly: one revision of all that decides a number, compared wherever prompts and models meet."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import peft
import pytest
from toys import changed, label_task, prompt_on, splits

from prompttransfer.adaptations.artifacts import load_adaptation, peft_config, save_adaptation
from prompttransfer.adaptations.running import check_runs_on
from prompttransfer.backbones.layouts import LAYOUTS
from prompttransfer.backbones.loading import load_backbone
from prompttransfer.backbones.locating import locate
from prompttransfer.backbones.revisions import differing, weights_alone
from prompttransfer.cli.evaluate import backbone_of
from prompttransfer.transfers.zero_shot import Target, zero_shot
from tasks.errors import MachineError, UserError

COMMIT, OTHER = "a" * 40, "b" * 40
FIRST = LAYOUTS["prompt-first"]


@pytest.fixture
def copy(backbone_folder, tmp_path):
    """`copy(kind)`: a copy of a tiny backbone's folder, to be changed."""
    return lambda kind="roberta": Path(shutil.copytree(backbone_folder(kind), tmp_path / kind))


def target():
    return Target(label_task("other"), splits())


def change(path, **values):
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **values}))


@pytest.mark.parametrize(
    ("file", "values", "part"),
    [
        ("config.json", {"hidden_act": "relu"}, "configuration"),
        ("config.json", {"layer_norm_eps": 0.1}, "configuration"),
        ("config.json", {"num_attention_heads": 4}, "configuration"),
        ("tokenizer.json", {"normalizer": {"type": "Lowercase"}}, "tokenizer"),
        ("tokenizer_config.json", {"mask_token": "great"}, "tokenizer"),
        ("special_tokens_map.json", {"bos_token": "great"}, None),  # tokenizer_config.json says otherwise
        ("config.json", {"transformers_version": "9", "architectures": ["X"]}, None),
        ("generation_config.json", {"min_length": 6}, None),  # a masked LM writes nothing
    ],
)
def test_whatever_decides_a_number_changes_the_revision(copy, file, values, part):
    place = copy()
    before = locate(str(place))[1]
    change(place / file, **values)
    assert differing(before, locate(str(place))[1]) == ((part,) if part else ())


def test_generation_settings_count_where_text_is_written_but_not_for_a_prompt(copy, tiny):
    place = copy("t5")
    prompt = prompt_on(tiny("t5"))
    change(place / "generation_config.json", min_length=6, decoder_start_token_id=0)
    before = locate(str(place))[1]
    change(place / "generation_config.json", min_length=7)
    backbone = load_backbone(str(place), precision="fp32", device="cpu")
    assert differing(before, backbone.revision) == ("generation settings",)
    zero_shot(backbone, [prompt], [target()])


def test_changed_weights_are_another_revision(copy):
    place = copy()
    before = locate(str(place))[1]
    data = bytearray((place / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (place / "model.safetensors").write_bytes(data)
    after = locate(str(place))[1]
    assert differing(before, after) == ("weights",) and differing(weights_alone(before), after) == (
        "weights",
    )


def test_a_revision_of_the_weights_alone_is_the_same_backbone(tiny):
    backbone = tiny("roberta")
    old = prompt_on(backbone, revision=weights_alone(backbone.revision))
    assert old.revision == "sha256:" + backbone.revision[7:23]
    zero_shot(backbone, [old], [target()])


@pytest.mark.parametrize(
    ("own", "here", "message"),
    [
        (
            "sha256:1-2-3",
            "sha256:1-2-4",
            "another tokenizer: bring that one, or ask .* with --other-backbone",
        ),
        ("sha256:1-2-3", "sha256:1-5-4", "another configuration and tokenizer"),
        ("sha256:1-2-3", "sha256:9-2-3", "another weights"),
        ("sha256:1", "sha256:9-2-3", "another weights"),
        (COMMIT, OTHER, f"give --revision {COMMIT}"),
        (COMMIT, "sha256:1-2-3", "another revision"),
    ],
)
def test_a_prompt_of_another_revision_is_refused(tiny, own, here, message):
    prompt = prompt_on(tiny("roberta"), revision=own)
    given = {"backbone": prompt.backbone, "width": 16, "family": "masked-lm", "layout": prompt.layout}
    with pytest.raises(UserError, match=message):
        check_runs_on(prompt, revision=here, **given)
    check_runs_on(prompt, revision=own, **given)
    check_runs_on(prompt, revision=here, other_backbone=True, **given)


def test_another_model_of_the_same_width_is_refused_unless_asked_for(tiny, copy):
    place = copy("roberta")
    data = bytearray((place / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (place / "model.safetensors").write_bytes(data)
    other = load_backbone(str(place), precision="fp32", device="cpu")
    with pytest.raises(UserError, match="carry it across with `prompttransfer project`"):
        zero_shot(other, [prompt_on(tiny("roberta"))], [target()])
    other.takes_any = True
    zero_shot(other, [prompt_on(tiny("roberta"))], [target()])


def test_without_revisions_the_names_decide(tiny):
    prompt = prompt_on(tiny("roberta"), revision="")
    given = {"width": 16, "family": "masked-lm", "layout": prompt.layout, "revision": "sha256:1-2-3"}
    check_runs_on(prompt, backbone=prompt.backbone, **given)
    with pytest.raises(UserError, match=r"was trained on .*, not on elsewhere"):
        check_runs_on(prompt, backbone="elsewhere", **given)


# Hub models ------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(backbone_folder, tmp_path, monkeypatch):
    """A hub whose model `some/model` lies in the cache at two commits; the revisions that were asked for."""
    asked = []
    for commit in (COMMIT, OTHER):
        shutil.copytree(backbone_folder("roberta"), tmp_path / "snapshots" / commit)

    def snapshot(name, *, revision=None, **_):
        asked.append(revision)
        found = tmp_path / "snapshots" / (revision or OTHER)
        if not found.exists():
            raise huggingface_hub.errors.LocalEntryNotFoundError("not here")
        return str(found)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return asked


def test_a_revision_pins_a_model_of_the_hub(hub):
    assert load_backbone("some/model", device="cpu").revision == OTHER
    assert load_backbone("some/model", revision=COMMIT, device="cpu").revision == COMMIT


def test_prompts_are_run_at_the_commit_that_they_were_trained_at(hub, tiny):
    prompts = [prompt_on(tiny("roberta"), revision=COMMIT, seed=s) for s in (0, 1)]
    prompts = [changed(p, backbone="some/model") for p in prompts]
    assert backbone_of(prompts, None, "fp32", "cpu").revision == COMMIT
    later = changed(prompts[0], revision=OTHER, name="later")
    with pytest.raises(UserError, match="at different commits"):
        backbone_of([*prompts, later], None, "fp32", "cpu")


def test_a_revision_that_is_out_of_reach_is_named(hub, monkeypatch):
    def away(*_, **__):
        raise ConnectionError

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", away)
    with pytest.raises(MachineError, match="at revision 'v9'"):
        locate("some/model", "v9")


def test_a_folder_has_the_revision_that_lies_in_it(backbone_folder):
    place = str(backbone_folder("roberta"))
    here = locate(place)[1]
    assert locate(place, here)[1] == here
    with pytest.raises(UserError, match="a folder has the one that lies in it"):
        locate(place, COMMIT)


def test_peft_is_told_the_commit_and_nothing_else(tiny, tmp_path):
    for revision, told in ((COMMIT, COMMIT), ("sha256:1-2-3", None), ("", None)):
        prompt = prompt_on(tiny("roberta"), revision=revision)
        assert peft_config(prompt)["revision"] == told
        folder = save_adaptation(prompt, tmp_path / "prompt")
        assert peft.PeftConfig.from_pretrained(folder).revision == told
        assert load_adaptation(folder).revision == revision
