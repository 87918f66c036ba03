"""`Run it again` on the page and the command of `recommend`: run as they are printed, they give the same tables."""

import html
import json
import re
import shlex

import pytest

from prompttransfer.cli import main
from prompttransfer.reports.calls import Call, note_call, read_calls, remember
from prompttransfer.reports.page import collect, write_report

WORDS = {"negative": ("dull", "cold", "rude", "grim"), "positive": ("fresh", "warm", "kind", "bright")}
SMALL = ("--batch", "4", "--precision", "fp32")


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    assert not ended.value.code


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two tasks of the user's own, their YAML files, and rows in a folder whose name has a blank."""
    root = tmp_path_factory.mktemp("again")
    for name, nouns in (
        ("mine", ("film", "food", "plot", "room")),
        ("yours", ("song", "book", "phone", "story")),
    ):
        (root / f"{name}.yaml").write_text(
            f"name: {name}\ntype: sentiment\nkind: sentence\nwords:\n  negative: [terrible, bad]\n  positive: great\n"
        )
        rows = [{"text": f"the {noun} was {word}", "label": label}
                for noun in nouns for label, words in WORDS.items() for word in words]  # fmt: skip
        (root / "own rows" / name).mkdir(parents=True)
        for split in ("train", "validation"):
            (root / "own rows" / name / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def page_commands(page):
    """The lines of the page that can be copied."""
    (block,) = re.findall(
        r"<pre[^>]*>((?:<code>.*?</code>)+)</pre>", page.read_text(encoding="utf-8"), re.DOTALL
    )
    return [html.unescape(line) for line in re.findall(r"<code>(.*?)</code>", block, re.DOTALL)]


def tables(folder):
    return {
        p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*.csv")) if "logs" not in p.parts
    }


def test_the_commands_of_a_page_give_its_tables_byte_for_byte(place, backbone_folder):
    made, again = place / "made", place / "again"
    own, rows = [place / "mine.yaml", place / "yours.yaml"], ["--data", place / "own rows"]
    small, wide = backbone_folder("roberta"), backbone_folder("roberta", 24)
    limits = ["--limit-train", 20, "--limit-test", 9, "--max-length", 12]
    train = ["--task", *own, *rows, *limits, *SMALL, "--length", 3, "--label-words", "negative=wrong"]
    short = ["--steps", 4, "--evaluate-every", 2]
    run(
        "train",
        "--backbone",
        small,
        *train,
        *short,
        "--seeds",
        1,
        2,
        "--layout",
        "after-bos",
        "--lr",
        0.1,
        "--output",
        made / "prompts",
    )
    run("train", "--backbone", wide, *train, "--steps", 2, "--output", made / "other")
    run(
        "transfer",
        made / "prompts",
        "--to",
        *own,
        *rows,
        *limits,
        *SMALL,
        "--tune",
        *short,
        "--seeds",
        3,
        "--label-words",
        "positive=fine",
        "--output",
        made / "transfer",
    )
    run("compare", made / "prompts", "--metric", "C_concat", "--output", made / "compare")
    run(
        "neurons",
        made / "prompts",
        "--rule",
        "top",
        "--share",
        0.25,
        "--precision",
        "fp32",
        "--output",
        made / "neurons" / "states.safetensors",
    )
    run(
        "neurons",
        "overlap",
        made / "neurons" / "states.safetensors",
        "--window",
        1,
        "--output",
        made / "neurons",
    )
    page = write_report(made)
    commands = page_commands(page)
    assert [shlex.split(line)[1] for line in commands] == [
        "train",
        "train",
        "transfer",
        "compare",
        "neurons",
        "neurons",
        "report",
    ]
    for line in commands:
        run(*[word.replace(str(made), str(again)) for word in shlex.split(line)[1:]])
    assert tables(again) == tables(made) and len(tables(made)) >= 5
    before, after = (json.loads((side / "transfer" / "transfer.json").read_text()) for side in (made, again))
    assert before == after
    assert [line.replace(str(again), str(made)) for line in page_commands(again / "report.html")] == commands


def test_a_page_of_a_matrix_alone_says_how_its_sources_were_trained(place, backbone_folder):
    sources, matrix = place / "elsewhere", place / "matrix"
    own, rows = place / "mine.yaml", ["--data", place / "own rows", "--limit-test", 5]
    run(
        "train",
        "--backbone",
        backbone_folder("roberta"),
        "--task",
        own,
        *rows,
        *SMALL,
        "--steps",
        1,
        "--length",
        2,
        "--output",
        sources,
    )
    run("transfer", sources, "--to", own, *rows, "--precision", "fp32", "--output", matrix)
    commands = collect(matrix).commands
    assert [shlex.split(line)[1] for line in commands] == ["train", "transfer", "report"]
    assert f"transfer {sources} --to {own}" in commands[1] and f"--output {sources}" in commands[0]


def test_recommend_prints_a_command_on_one_line_with_all_its_options(place, backbone_folder, capsys):
    own, sources = place / "mine.yaml", place / "sources of mine"
    rows = ["--data", place / "own rows"]
    run("train", "--backbone", backbone_folder("roberta"), "--task", place / "yours.yaml", *rows, *SMALL, "--steps", 1,
        "--length", 2, "--layout", "after-bos", "--output", sources)  # fmt: skip
    capsys.readouterr()
    run("recommend", "--task", own, "--prompts", sources, "--rows", 4, "--probe-steps", 0, *rows, "--label-words", "negative=wrong",
        "--max-length", 12, "--precision", "fp32")  # fmt: skip
    line = next(
        line for line in capsys.readouterr().out.splitlines() if line.startswith("prompttransfer train")
    )
    words = shlex.split(line)
    assert words[words.index("--init") + 1] == f"from:{sources / 'yours'}"
    for option, value in (("--task", own), ("--layout", "after-bos"), ("--data", place / "own rows"), ("--max-length", "12"),
                          ("--label-words", "negative=wrong"), ("--precision", "fp32")):  # fmt: skip
        assert words[words.index(option) + 1] == str(value)
    run(*words[1:], "--steps", 1, "--batch", 4, "--output", place / "started")
    assert (place / "started" / "mine" / "adaptation.json").exists()


def example(task, output=None, *, rate=0.1, split=None, flag=False, off=None, as_json=False):
    """A command."""


def test_a_call_is_one_line_that_a_shell_reads_as_it_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {
        "task": ["a.yaml", "it's"],
        "output": None,
        "rate": -1.5,
        "split": None,
        "flag": True,
        "off": False,
        "as_json": True,
    }
    call = Call(**remember("train", example, given, split=3, unknown=4))
    assert shlex.split(call.line()) == [
        "prompttransfer", "train", "--task", str(tmp_path / "a.yaml"), "it's", "--rate=-1.5", "--split", "3", "--flag", "--no-off",
    ]  # fmt: skip


def test_calls_are_kept_by_the_name_of_what_they_wrote_as_long_as_it_is_there(tmp_path):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("")
    note_call([tmp_path / "a.csv"], {"verb": "compare", "options": {"metric": ["x"]}})
    (tmp_path / "a.csv").unlink()
    note_call([tmp_path / "b.csv"], {"verb": "compare", "options": {"metric": ["y"]}})
    assert {name: call.line() for name, call in read_calls(tmp_path).items()} == {
        "b.csv": "prompttransfer compare --metric y"
    }
