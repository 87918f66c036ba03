"""Sharing: what goes to the hub (a stand-in on this machine) comes back bit for bit, with a card; mistakes are one line."""

import json
from dataclasses import replace

import pytest
from hub_stand_in import TOKEN, Hub
from toys import adapted, changed, prompt_on

from prompttransfer.adaptations import hub as sharing
from prompttransfer.adaptations.adaptation import same_tensors
from prompttransfer.adaptations.artifacts import load_adaptation, save_adaptation
from tasks.errors import MachineError, UserError

SCORES = {
    "validation": {"accuracy": 0.75, "step": 4},
    "test": {"accuracy": 0.625, "rows": 8, "chance": 0.5, "no_prompt": 0.375},
}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The stand-in, and the hub's library as one who is online and logged in there."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    found = Hub()
    yield found
    found.close()


@pytest.fixture
def folder(tiny, tmp_path):
    """A folder of two prompts and a LoRA, and something of the user's."""
    backbone = tiny("roberta")
    data = {"source": "hub somebody/films (plain)"}
    for seed in (0, 1):
        own = prompt_on(backbone, seed=seed, data=data, words={"negative": "terrible", "positive": "great"})
        save_adaptation(
            changed(own, scores=SCORES, backbone="somebody/model"), tmp_path / "own" / f"toy-s{seed}"
        )
    lora = changed(adapted(backbone, "lora:rank=2", name="low"), backbone="somebody/model")
    lora = replace(lora, initial=lora.tensors)
    save_adaptation(lora, tmp_path / "own" / "low")
    (tmp_path / "own" / "toy-s0" / "notes.txt").write_text("mine")
    return tmp_path / "own"


def push(hub, folders, repo="me/prompts", **more):
    return sharing.push(folders, repo, endpoint=hub.url, **more)


def pull(hub, output, repo="me/prompts", **more):
    return sharing.pull(repo, output, endpoint=hub.url, **more)


def test_one_adaptation_comes_back_bit_for_bit_and_nothing_else_is_sent(hub, folder, tmp_path):
    shared = push(hub, [folder / "toy-s0"])
    assert {*hub.files("me/prompts")} == {
        ".gitattributes", "README.md", "adaptation.json", "adapter_config.json", "adapter_model.safetensors"
    }  # fmt: skip
    pulled = pull(hub, tmp_path / "back")
    assert pulled.commit == shared.commit and pulled.folders == (tmp_path / "back" / "toy-s0",)
    before, after = load_adaptation(folder / "toy-s0"), load_adaptation(pulled.folders[0])
    assert same_tensors(before.tensors, after.tensors)
    assert (before.origin, before.scores, before.name) == (after.origin, after.scores, after.name)


def test_a_library_has_a_folder_each_and_a_card_with_tables_controls_licence_and_use(hub, folder, tmp_path):
    hub.licences["somebody/films"] = ["cc-by-4.0"]
    push(hub, [folder], message="First ones")
    files = hub.files("me/prompts")
    assert {path.split("/")[0] for path in files if "/" in path} == {"toy-s0", "toy-s1", "low"}
    card = files["README.md"].decode()
    for part in (
        "# prompts: 3 adaptations", "| `toy-s1` | toy |", "| accuracy 0.6250 | 0.5000 | 0.3750 | 8 |",
        "licence: cc-by-4.0", 'datasets: ["somebody/films"]', "prompttransfer pull me/prompts", "no prompt",
    ):  # fmt: skip
        assert part in card, part
    assert "prompttransfer evaluate library/toy-s0 --task toy" in files["toy-s0/README.md"].decode()
    assert hub.messages == ["First ones"]
    pulled = pull(hub, tmp_path / "back")
    assert sorted(path.name for path in pulled.folders) == ["low", "toy-s0", "toy-s1"]
    assert json.loads(files["toy-s0/adaptation.json"]) == json.loads(
        (tmp_path / "back" / "toy-s0" / "adaptation.json").read_text()
    )


def test_a_data_set_without_a_stated_licence_leads_to_its_page(hub, folder):
    push(hub, [folder / "toy-s0"])
    assert (
        "see https://huggingface.co/datasets/somebody/films" in hub.files("me/prompts")["README.md"].decode()
    )


def test_a_commit_that_is_named_is_what_is_pulled(hub, folder, tiny, tmp_path):
    first = push(hub, [folder / "toy-s0"])
    other = changed(load_adaptation(folder / "toy-s1"), name="toy-s0")
    save_adaptation(other, tmp_path / "other" / "toy-s0")
    push(hub, [tmp_path / "other" / "toy-s0"])
    pull(hub, tmp_path / "old", revision=first.commit)
    pull(hub, tmp_path / "new")
    assert load_adaptation(tmp_path / "old" / "toy-s0").seed == 0
    assert load_adaptation(tmp_path / "new" / "toy-s0").seed == 1


def test_a_branch_is_made_and_files_of_before_go(hub, folder, tmp_path):
    push(hub, [folder / "low"])
    assert "initial.safetensors" in hub.files("me/prompts")
    push(hub, [folder / "toy-s0"], revision="next")
    assert "initial.safetensors" not in hub.files("me/prompts", "next")
    assert "initial.safetensors" in hub.files("me/prompts", "main")
    assert pull(hub, tmp_path / "back", revision="next").folders[0].name == "toy-s0"


def test_what_is_there_stays_and_another_is_refused(hub, folder, tmp_path):
    push(hub, [folder / "toy-s0"])
    pull(hub, tmp_path / "back")
    assert pull(hub, tmp_path / "back").there == (tmp_path / "back" / "toy-s0",)
    save_adaptation(changed(load_adaptation(folder / "toy-s1"), name="toy-s0"), tmp_path / "back" / "toy-s0")
    with pytest.raises(UserError, match="--overwrite"):
        pull(hub, tmp_path / "back")
    assert load_adaptation(tmp_path / "back" / "toy-s0").seed == 1
    pull(hub, tmp_path / "back", overwrite=True)
    assert load_adaptation(tmp_path / "back" / "toy-s0").seed == 0


def test_what_arrives_damaged_is_not_kept(hub, folder, tmp_path):
    push(hub, [folder])
    hub.damage.add("toy-s1/adapter_model.safetensors")
    with pytest.raises(UserError):
        pull(hub, tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("repo", ["prompts", "a/b/c", "me/../x", "me/"])
def test_what_is_no_repository_is_one_line(repo, folder):
    with pytest.raises(UserError, match="repository"):
        sharing.push([folder], repo)


def test_mistakes_are_one_line(hub, folder, tiny, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="is not on the hub"):
        pull(hub, tmp_path / "back", repo="me/nothing")
    hub.create("me/empty")
    with pytest.raises(UserError, match="holds no adaptation"):
        pull(hub, tmp_path / "back", repo="me/empty")
    with pytest.raises(UserError, match="has no revision v9"):
        pull(hub, tmp_path / "back", repo="me/empty", revision="v9")
    save_adaptation(prompt_on(tiny("roberta")), tmp_path / "own-model")
    with pytest.raises(UserError, match="which nobody else has"):
        push(hub, [tmp_path / "own-model"])
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    with pytest.raises(UserError, match="does not let you"):
        push(hub, [folder])


def test_a_hub_that_is_not_there_is_the_machines_fault(hub, folder, tmp_path, monkeypatch):
    from huggingface_hub import constants

    hub.close()
    with pytest.raises(MachineError, match="cannot be reached"):
        pull(hub, tmp_path / "back")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MachineError, match=r"HF_HUB_OFFLINE|cannot be reached"):
        push(hub, [folder])
