"""The commands import and export: what they write, what they say, and what they refuse."""

import json

import pytest
import torch
from toys import noise

from prompttransfer.adaptations.artifacts import load_adaptation
from prompttransfer.cli import main
from prompttransfer.cli.exchange import choose_family, local_config
from tasks.errors import UserError

VECTORS = noise(5, 16)


@pytest.fixture
def file(tmp_path):
    torch.save(VECTORS, tmp_path / "SST2.task_prompt")
    return tmp_path / "SST2.task_prompt"


def run(capsys, *arguments):
    """Exit code, standard output and standard error of a command."""
    try:
        main([str(argument) for argument in arguments])
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, " ".join(captured.out.split()), " ".join(captured.err.split())


def test_a_pickle_of_the_authors_becomes_a_prompt_folder(file, tmp_path, capsys):
    code, out, _ = run(capsys, "import", file, "-b", "roberta-base", "-t", "sst2", "-o", tmp_path / "p")
    assert code == 0
    prompt = load_adaptation(tmp_path / "p")
    assert torch.equal(prompt.vectors, VECTORS)
    assert (prompt.task, prompt.backbone, prompt.family, prompt.layout) == (
        "sst2",
        "roberta-base",
        "masked-lm",
        "su2022",
    )
    assert prompt.settings["imported"]["file"] == "SST2.task_prompt"
    assert "guessed from the name 'roberta-base'" in out and "width was not checked" in out
    assert "layout su2022: the file is of the code of Su et al. 2022" in out


def test_the_file_may_stand_behind_the_options(file, tmp_path, capsys):
    # `--task` takes several values in other commands, but one here.
    code, _, _ = run(capsys, "import", "-o", tmp_path / "p", "-b", "roberta-base", "--task", "sst2", file)
    assert code == 0 and load_adaptation(tmp_path / "p").task == "sst2"


def test_layout_family_and_name_are_taken_as_given(file, tmp_path, capsys):
    options = (
        "--layout",
        "after-bos",
        "--family",
        "masked-lm",
        "--name",
        "mine",
        "--json",
        "-o",
        tmp_path / "p",
    )
    code, out, _ = run(capsys, "import", file, "-b", "some-model", "-t", "sst2", *options)
    assert code == 0 and json.loads(out)["layout"] == "after-bos"
    assert load_adaptation(tmp_path / "p").name == "mine"


def test_an_imported_prompt_runs_on_its_backbone(file, tmp_path, capsys, tiny):
    from toys import label_task, splits

    from prompttransfer.transfers.zero_shot import Target, zero_shot

    backbone = tiny("roberta")
    code, out, _ = run(capsys, "import", file, "-b", backbone.name, "-t", "sst2", "-o", tmp_path / "p")
    assert code == 0 and "is at hand and has width 16 too" in out
    matrix = zero_shot(backbone, [load_adaptation(tmp_path / "p")], [Target(label_task(), splits())])
    assert not matrix.values.isnan().any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-b", "roberta-base", "-t", "sst3"), "did you mean 'sst2'"),
        (("-b", "mystery-7b", "-t", "sst2"), "give --family masked-lm or t5"),
        (("-b", "roberta-base", "-t", "sst2", "--family", "t6"), "did you mean 't5'"),
        (("-b", "roberta-base", "-t", "sst2", "--layout", "su2020"), "did you mean 'su2022'"),
        (("-b", "t5-base", "-t", "sst2", "--layout", "after-bos"), "not for a t5 backbone"),
        (("-b", "roberta-base", "-t", "sst2", "--name", "../up"), "cannot be a file name"),
        (("-b", "./nowhere", "-t", "sst2"), "has no config.json"),
    ],
)
def test_a_users_mistake_is_one_line_with_exit_code_2_and_writes_nothing(
    file, tmp_path, capsys, options, message
):
    code, _, error = run(capsys, "import", file, *options, "-o", tmp_path / "p")
    assert code == 2
    assert message in error and "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_backbone_at_hand_is_asked_for_its_width_and_family(backbone_folder):
    folder = str(backbone_folder("t5"))
    assert local_config(folder) == ("t5", 16)
    assert choose_family(folder, None, {}, width=16)[0] == "t5"
    with pytest.raises(UserError, match=r"the prompt has width 32, but .* has width 16"):
        choose_family(folder, None, {}, width=32)
    with pytest.raises(UserError, match="is a t5 backbone, not masked-lm"):
        choose_family(folder, "masked-lm", {}, width=16)


def test_the_family_of_a_backbone_elsewhere_is_what_the_file_says_before_what_the_name_says():
    assert choose_family("google/t5-xl", None, {}, width=16)[0] == "t5"
    assert choose_family("owner/camembert", None, {"family": "t5"}, width=16)[0] == "t5"
    assert choose_family("owner/camembert", None, {}, width=16)[0] == "masked-lm"


def test_export_writes_what_import_reads(file, tmp_path, capsys):
    run(capsys, "import", file, "-b", "t5-base", "-t", "sst2", "-o", tmp_path / "p")
    code, out, _ = run(capsys, "export", tmp_path / "p", "-o", tmp_path / "all.safetensors")
    assert code == 0 and "sst2: written to" in out
    code, _, _ = run(
        capsys, "import", tmp_path / "all.safetensors", "-b", "t5-base", "-t", "sst2", "-o", tmp_path / "q"
    )
    assert code == 0
    assert torch.equal(load_adaptation(tmp_path / "q").vectors, VECTORS)


def test_export_needs_to_know_the_format(file, tmp_path, capsys):
    run(capsys, "import", file, "-b", "t5-base", "-t", "sst2", "-o", tmp_path / "p")
    code, _, error = run(capsys, "export", tmp_path / "p", "-o", tmp_path / "folder")
    assert code == 2 and "--format peft" in error
    code, _, error = run(capsys, "export", tmp_path / "p", "-o", tmp_path / "a.csv")
    assert code == 2 and "unknown export format 'csv'" in error
