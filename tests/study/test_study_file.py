"""The study file: short forms, and every mistake told by line, all of them together."""

import pytest
from small_study import TEXT, write_study

from prompttransfer.study.plan.document import MistakesError
from prompttransfer.study.plan.lookup import gather_facts
from prompttransfer.study.plan.reading import parse_study, read_study
from prompttransfer.study.plan.shipped import SHIPPED, find_study, shipped_studies
from tasks.errors import UserError

MINIMAL = "study: one\nbackbones: [microworld-roberta]\ntasks: [microworld-imdb, microworld-mnli]\n"


def mistakes(text):
    with pytest.raises(MistakesError) as caught:
        parse_study(text, "my.yaml")
    return caught.value.lines


TWELVE = """\
study: my/study
backbones:
  - microworld-robertta
  - name: microworld-t5
    layuot: su2022
    recipe: {optimizer: adamm, steps: many}
tasks: [microworld-imbd, microworld-mnli, microworld-mnli]
seeds: [0, 0]
precision: auto
layout: prompt-frist
transfers:
  initialisation: {sources: {microworld-mnli: microworld-mnli}}
indicators:
  similarity: [C_averge]
colour: blue
"""


def test_twelve_mistakes_are_reported_together_with_line_and_hint():
    expected = [
        (1, "cannot be a folder name"),
        (3, "did you mean 'microworld-roberta'?"),
        (5, "unknown key 'layuot': did you mean 'layout'?"),
        (6, "unknown optimizer 'adamm': did you mean 'adamw'?"),
        (6, "backbones.1.recipe.steps is 'many'"),
        (7, "did you mean 'microworld-imdb'?"),
        (7, "task 'microworld-mnli' is given twice"),
        (8, "seed 0 is given twice"),
        (9, "fp32 or bf16"),
        (10, "unknown layout 'prompt-frist': did you mean 'prompt-first'?"),
        (12, "task 'microworld-mnli' is its own source"),
        (14, "unknown similarity metric 'C_averge': did you mean 'C_average'?"),
        (15, "unknown key 'colour'"),
    ]
    lines = mistakes(TWELVE)
    for line, text in expected:
        assert any(found.startswith(f"my.yaml:{line}: ") and text in found for found in lines), (
            line,
            text,
            lines,
        )
    assert len(lines) == len(expected)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("seeds: three\n", "my.yaml:4: seeds is 'three'"),
        ("study: two\n", "my.yaml:4: key 'study' stands here a second time (first in line 1)"),
        ("recipe: {evaluate_every: 5}\n", "my.yaml:4: unknown key 'evaluate_every': did you mean 'evaluate-every'?"),
        ("transfers: {initialisation: {length: 5}}\n", "my.yaml:4: length cannot be given here"),
        ("initialiser: prompt:runs/x\n", "my.yaml:4: a study starts prompts from its own by"),
        ("initialiser: mixture:a=-1\n", "with a weight of 0 or more"),
        ("initialiser: retrieve:nowhere,top=2\n", "nowhere is no folder"),
        ("data: nowhere\n", "my.yaml:4: data folder"),
        ("projectors: [{source: microworld-roberta, target: t5, fitting: [microworld-imdb]}]\n", "unknown backbone of this study 't5'"),
        ("projectors: [{source: microworld-roberta, target: microworld-roberta}]\n", "no 'fitting' here: it is needed"),
        ("indicators: {neurons: [OM]}\n", "unknown overlap of neurons 'OM': did you mean 'ON'?"),
        ("seeds: []\n", "my.yaml:4: seeds is []"),
        ("transfers: {calibrate: mean}\n", "my.yaml:4: transfers.calibrate is 'mean'"),
    ],
)  # fmt: skip
def test_one_mistake_is_told_by_its_line(more, said):
    assert any(said in line for line in mistakes(MINIMAL + more)), mistakes(MINIMAL + more)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ("microworld-imbd: {lr: 1e-2}", "my.yaml:2: unknown task of this backbone 'microworld-imbd'"),
        ("microworld-imdb: {rate: 1e-2}", "my.yaml:2: unknown key 'rate'"),
        ("microworld-imdb: {length: 5}", "my.yaml:2: length cannot be given here: all prompts of a backbone"),
        ("microworld-imdb: {optimizer: adam}", "my.yaml:2: unknown optimizer 'adam': did you mean 'adamw'"),
    ],
)
def test_the_recipe_of_one_task_is_checked(own, said):
    entry = f"[{{name: microworld-roberta, recipe: {{per-task: {{{own}}}}}}}]"
    text = MINIMAL.replace("[microworld-roberta]", entry)
    assert entry in text and any(said in line for line in mistakes(text)), mistakes(text)


def test_a_file_without_its_parts_names_each():
    lines = mistakes("about: nothing\n")
    assert sorted(line.split()[2] for line in lines) == ["'backbones'", "'study'", "'tasks'"]


@pytest.mark.parametrize("text", ["- a list", "study: [", "", "\tstudy: x"])
def test_what_is_no_study_file_is_said_in_one_line(text):
    with pytest.raises(UserError, match=r"^my\.yaml"):
        parse_study(text, "my.yaml")


def test_short_forms_are_written_out():
    spec = parse_study(MINIMAL + "transfers: {initialisation: true}\nindicators: {neurons: [ON]}\n").spec
    assert [entry.name for entry in spec.backbones] == ["microworld-roberta"]
    assert spec.transfers.initialisation is not None and spec.transfers.initialisation.sources == "all"
    assert spec.indicators.neurons is not None and spec.indicators.neurons.measures == ["ON"]


def test_a_rate_may_be_written_as_people_write_it():
    assert parse_study(MINIMAL + "recipe: {lr: 1e-3}\n").spec.recipe.lr == 1e-3


def test_label_words_and_lengths_of_every_task_and_backbone_are_checked(tmp_path, backbone_folder):
    path = write_study(tmp_path, backbone_folder, TEXT.replace("length: 3", "length: 70"))
    (tmp_path / "films.yaml").write_text(
        "name: films\ntype: sentiment\nkind: sentence\nwords: {bad: zzz, good: great}\n"
    )
    with pytest.raises(MistakesError) as caught:
        gather_facts(read_study(path))
    text = str(caught.value)
    assert f"{path}:4: label 'bad' of task 'films' has no word of one token on" in text
    assert "a prompt or prefix of 70 vectors leaves 0 of the 64 positions" in text
    assert all(f"on {name} (" in text and f"positions of {name} " in text for name in ("near", "far"))


def test_a_study_that_is_nothing_names_those_that_are_there():
    with pytest.raises(UserError, match=r"did you mean 'su2022-small'"):
        find_study("su2022-smal")
    with pytest.raises(UserError, match=r"no study file mine\.yaml"):
        find_study("mine.yaml")


@pytest.mark.parametrize("name", shipped_studies())
def test_shipped_studies_are_found_by_name_and_have_no_mistakes(name):
    assert find_study(name).spec.study == name


def test_reading_a_study_converts_no_packaged_model(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert [entry.name for entry in find_study("real-smollm2").spec.backbones] == ["smollm2-135m"]
    assert list(tmp_path.iterdir()) == []


def test_the_demo_fits_on_a_screen():
    assert len((SHIPPED / "demo.yaml").read_text().splitlines()) <= 24


def test_su2022_is_the_papers_protocol():
    spec = find_study("su2022").spec
    roberta, t5 = spec.backbones
    assert (len(spec.tasks_of(roberta)), len(spec.tasks_of(t5))) == (13, 17)
    assert (spec.recipe_of(roberta)["lr"], spec.recipe_of(t5)["lr"]) == (1e-3, 5e-3)
    rates = {task: spec.recipe_of(t5, task)["lr"] for task in spec.tasks_of(t5)}
    assert {task for task, rate in rates.items() if rate == 1e-2} == {"laptop", "qnli", "snli"}
    batches = {task: spec.recipe_of(roberta, task)["batch"] for task in spec.tasks_of(roberta)}
    assert {task for task, batch in batches.items() if batch == 8} == {"mrpc"} and batches["qqp"] == 16
    assert {entry.method for entry in spec.projectors} == {"distance", "task"}
    assert spec.transfers.zero_shot and set(spec.transfers.initialisation.sources) == set(spec.tasks)
