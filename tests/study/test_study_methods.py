"""Studies of several tuning methods: what the file says, which cells there are, and what comes out."""

import json
import shutil

import pandas as pd
import pytest
from small_study import write_study

from prompttransfer.adaptations.artifacts import load_adaptation
from prompttransfer.adaptations.methods import METHODS, parse_method
from prompttransfer.study.engine.engine import run_study
from prompttransfer.study.engine.records import make_record
from prompttransfer.study.engine.store import read_graph
from prompttransfer.study.engine.stores import open_store
from prompttransfer.study.kinds.figure import picture_name
from prompttransfer.study.methods import Use, labels_of, slug, text_of, use_of, with_length
from prompttransfer.study.plan.document import MistakesError
from prompttransfer.study.plan.estimate import estimate
from prompttransfer.study.plan.plan import make_plan
from prompttransfer.study.plan.reading import parse_study, read_study
from prompttransfer.study.plan.shipped import find_study
from prompttransfer.study.results.explain import explain_cell
from prompttransfer.study.results.long_table import COLUMNS, open_results
from prompttransfer.study.results.report import make_tables, write_study_report
from prompttransfer.study.results.statistics import comparisons, summary
from prompttransfer.study.results.status import read_status
from tasks.errors import UserError

PROMPTS = """
study: small
backbones: [near]
tasks: [films.yaml, songs.yaml, pairs.yaml]
data: data
limit-test: 12
recipe: {steps: 4, batch: 4, length: 3, evaluate-every: 2}
transfers:
  initialisation: {sources: same-type, steps: 2, evaluate-every: 1}
indicators: {similarity: [C_average], neurons: [ON]}
report: {title: A small study}
"""
METHOD_LINE = "methods: [prompt, {name: lora, rank: 2, recipe: {lr: 0.02}}, 'p-tuning:encoder=mlp']\n"
LORA, P_TUNING = "lora:rank=2", "p-tuning:encoder=mlp"


@pytest.fixture
def planned(tmp_path, backbone_folder):
    """`planned(line)`: the plan of the study of prompts with more lines."""
    return lambda more="": make_plan(read_study(write_study(tmp_path, backbone_folder, PROMPTS + more)))


def run(plan, folder):
    store = open_store(folder, new=True)
    summary = run_study(plan.graph, store, local={**plan.local, "device": "cpu"}, say=lambda line: None)
    assert [failure.line for failure in summary.failed] == []
    return store, summary


@pytest.fixture(scope="module")
def three(tmp_path_factory, backbone_folder):
    """The study of three methods, run once."""
    folder = tmp_path_factory.mktemp("methods")
    plan = make_plan(read_study(write_study(folder, backbone_folder, PROMPTS + METHOD_LINE)))
    store, _ = run(plan, folder / "run")
    return plan, store, folder / "run"


@pytest.fixture(scope="module")
def tables(three):
    plan, store, _ = three
    return make_tables(open_results(plan.graph, store))


# The file --------------------------------------------------------------------------------------------------------

MINIMAL = "study: one\nbackbones: [microworld-roberta]\ntasks: [microworld-imdb, microworld-mnli]\n"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("methods: [lorra]\n", "my.yaml:4: unknown method 'lorra': did you mean 'lora'?"),
        ("methods: [prompt,\n  {name: lora, rnak: 8}]\n", "my.yaml:5: unknown setting of method lora 'rnak': did you mean 'rank'?"),
        ("methods: [{name: lora, recipee: {lr: 1}}]\n", "my.yaml:4: unknown setting of method lora 'recipee': did you mean 'recipe'?"),
        ("methods: [{name: lora, rank: many}]\n", "my.yaml:4: lora: rank is 'many': it must be a whole number"),
        ("methods: [{name: lora, rank: 2.5}]\n", "my.yaml:4: lora: rank is 2.5: it must be a whole number"),
        ("methods: [{name: lora, rank: 0}]\n", "my.yaml:4: lora: rank 0: it must be at least 1"),
        ("methods: [{name: p-tuning, encoder: mlpp}]\n", "unknown encoder of p-tuning 'mlpp'"),
        ("methods: [prompt, {name: lora, rank: 8}, 'lora:rank=8']\n", "my.yaml:4: method 'lora' is given twice"),
        ("methods: ['p-tuning:shared=true']\n", "shares what it learns among those who train together"),
        ("methods: [{rank: 8}]\n", "my.yaml:4: no 'name' here: it is needed (as in {name: lora, rank: 8})"),
        ("methods: []\n", "my.yaml:4: methods is []"),
        ("methods: [text]\n", "my.yaml:4: text needs its words"),
        ("methods: ['text:prompt=\"good, bad']\n", "are not closed"),
        ("methods: ['text:prompt=good, bad']\n", "a prompt with a comma stands in quotes"),
        ("methods: [{name: lora, recipe: {optimizer: adam}}]\n", "unknown optimizer 'adam': did you mean 'adamw'"),
        ("methods: [{name: prompt, recipe: {length: 5}}]\n", "my.yaml:4: length is a setting of the method"),
        ("methods: [{name: lora, recipe: {stepps: 5}}]\n", "my.yaml:4: unknown key 'stepps': did you mean 'steps'?"),
        ("methods: [prompt, lora]\ninitialiser: vocabulary\n", "my.yaml:4: method lora has no start 'vocabulary', only 'random'"),
        ("methods: [lora]\nindicators: {similarity: [E_average]}\n", "my.yaml:5: similarity is of soft prompts"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_method_is_told_by_its_line(more, said):
    with pytest.raises(MistakesError) as caught:
        parse_study(MINIMAL + more, "my.yaml")
    assert any(said in line for line in caught.value.lines), caught.value.lines


def test_a_method_that_no_backbone_has_is_a_mistake(planned):
    with pytest.raises(UserError, match=r"study.yaml:12: .*wuery"):
        planned("methods: [prompt, {name: lora, targets: [wuery]}]\n")


@pytest.mark.parametrize("text", [*METHODS, 'text:prompt="good, or \\"bad\\"?"'])
def test_the_text_in_a_cell_is_the_method(text):
    method = parse_method(text)
    length = method.settings().get("length", 0)
    assert parse_method(with_length(text_of(method), length)) == method


def test_one_method_in_two_lengths_is_called_by_its_length():
    uses = [Use("a", "prompt", 20), Use("b", "prompt", 100), Use("a", "lora", 0)]
    assert list(labels_of(uses).values()) == ["prompt", "prompt", "lora"]
    assert labels_of([*uses, Use("a", "prompt", 50)])[uses[1]] == "prompt:length=100"


# The plan --------------------------------------------------------------------------------------------------------


def test_soft_prompts_keep_their_cells_beside_other_methods(planned):
    before, after = planned().graph.cells, planned(METHOD_LINE).graph.cells
    lost = {cell.kind for name, cell in before.items() if name not in after}
    assert lost == {"figure"}  # which now has the heatmaps of all methods
    assert not any("method" in cell.settings for cell in before.values())
    assert set(planned("methods: [prompt]\n").graph.cells) == set(before)


def test_every_method_has_the_same_cells(planned):
    graph = planned(METHOD_LINE).graph
    counts = {}
    for cell in graph.cells.values():
        if cell.kind != "figure":
            by_kind = counts.setdefault(use_of(cell, graph.cells).text, {})
            by_kind[cell.kind] = by_kind.get(cell.kind, 0) + 1
    assert counts["prompt"] == counts[P_TUNING]
    assert counts[LORA] == {**counts["prompt"], "indicator": 1}
    (unless,) = graph.impossible
    assert (
        unless.line
        == "C_average on near, lora:rank=2: it compares vectors in front of the text, and lora:rank=2 has none"
    )


def test_a_name_of_files_is_as_long_as_they_can_be_and_two_grids_have_two():
    rates = [f"lr={','.join(f'{place}e-{power}' for place in range(1, 10) for power in range(1, 9))}"]
    uses = [Use("a", "prompt", 5, (*rates, f"length={values}")) for values in ("5,20", "5,21")]
    labels = [*labels_of(uses).values()]
    assert all(len(label) > 255 for label in labels)
    names = [slug(label) for label in labels]
    assert len({*names}) == 2 and {len(name) for name in names} == {255} and names == [*map(slug, labels)]
    assert slug("a" * 255) == "a" * 255 and slug("a" * 251, 4) == "a" * 251 != slug("a" * 252, 4)
    assert {len(f"{picture_name(label, several=True)}.svg") for label in labels} == {255}
    assert picture_name("lora, tuned over rank", several=True) == "heatmap-lora-tuned-over-rank"


def test_the_recipe_of_a_method_is_its_own(planned):
    graph = planned(METHOD_LINE).graph
    rates = {
        cell.settings.get("method", "prompt"): cell.settings["recipe"]["lr"]
        for cell in graph.cells.values()
        if cell.kind == "prompt"
    }
    assert rates == {"prompt": 0.03, LORA: 0.02, P_TUNING: 0.003}
    lora = next(c for c in graph.cells.values() if c.settings.get("method") == LORA)
    assert "length" not in lora.settings["recipe"]


def test_a_method_that_one_backbone_lacks_is_impossible_there(tmp_path, backbone_folder):
    text = PROMPTS.replace("[near]", "[near, far]") + "methods: [prompt, {name: lora, rank: 20}]\n"
    plan = make_plan(read_study(write_study(tmp_path, backbone_folder, text)))
    (first,) = [one for one in plan.graph.impossible if one.backbone == "near"]
    assert first.label == "lora:rank=20 on near" and "rank 20 is above the size" in first.reason
    assert {one.label for one in plan.graph.impossible if one.backbone == "far"} == {
        "C_average on far, lora:rank=20"
    }


def test_projectors_are_for_methods_with_vectors(tmp_path, backbone_folder):
    text = PROMPTS.replace("[near]", "[near, far]") + METHOD_LINE
    text += "projectors: [{source: near, target: far, fitting: [films.yaml, pairs.yaml], steps: 3, initialisation: true}]\n"
    plan = make_plan(read_study(write_study(tmp_path, backbone_folder, text)))
    graph = plan.graph
    fitted = [use_of(c, graph.cells).text for c in graph.cells.values() if c.kind == "projector"]
    assert fitted == ["prompt", P_TUNING]
    said = [one.line for one in graph.impossible if "projector" in one.label]
    assert len(said) == 2 and "maps vectors in front of the text, and lora:rank=2 has none" in said[0]
    assert said[1].startswith("training from projector near to far") and "cannot train on" in said[1]
    assert estimate(plan).kinds["projector"].cells == 2


def test_tokens_count_what_a_method_reserves(planned):
    prompts, both = (estimate(planned(more)).kinds["prompt"] for more in ("", "methods: [prompt, lora]\n"))
    side = planned().facts.backbones["near"]
    saved = 3 / (3 + side.tasks["films.yaml"].tokens + side.special)
    assert both.tokens < 2 * prompts.tokens
    assert both.tokens > (2 - 2 * saved) * prompts.tokens


def test_a_probe_is_for_tasks_with_as_many_labels(tmp_path, backbone_folder):
    path = write_study(tmp_path, backbone_folder, PROMPTS + "methods: [prompt, probe]\n")
    lines = "name: pairs\ntype: nli\nkind: pair\nwords: {'no': 'no', 'yes': 'yes', 'maybe': 'maybe'}\n"
    (tmp_path / "pairs.yaml").write_text(lines)
    graph = make_plan(read_study(path)).graph
    said = {
        one.label: one.reason for one in graph.impossible if one.method == "probe" and "score" in one.label
    }
    assert len(said) == 4
    assert "a probe of 2 classes cannot answer" in said["score on pairs of probe films on near"]
    assert not any(cell.label in said for cell in graph.cells.values())


def test_neurons_of_what_stands_nowhere_in_front_are_impossible_on_a_decoder(tmp_path, backbone_folder):
    """A decoder that begins with no token of its own has nothing to read there but the vectors of a prompt."""
    path = write_study(tmp_path, backbone_folder, PROMPTS + "methods: [prompt, lora]\n")
    (tmp_path / "near").unlink()
    (tmp_path / "near").symlink_to(backbone_folder("gpt2"))
    graph = make_plan(read_study(path)).graph
    (said,) = [one for one in graph.impossible if "neurons" in one.label]
    assert said.label == "neurons on near, lora" and "nothing stands in front of a text" in said.reason
    assert {use_of(c, graph.cells).text for c in graph.cells.values() if c.kind == "states"} == {"prompt"}


def test_a_template_is_a_backbones_own_and_part_of_its_cells(tmp_path, backbone_folder):
    def plan(template):
        text = PROMPTS.replace(
            "[near]", f"[{{name: near, template: {template!r}}}]" if template else "[near]"
        )
        text = text.replace("films.yaml, songs.yaml, pairs.yaml", "films.yaml, songs.yaml")
        return make_plan(read_study(write_study(tmp_path, backbone_folder, text)))

    with pytest.raises(MistakesError, match="a template is what decoders read"):
        plan("{text} So it was")
    (tmp_path / "near").unlink()
    (tmp_path / "near").symlink_to(backbone_folder("gpt2"))
    with pytest.raises(MistakesError, match="available: text"):
        plan("{words} So it was")
    own, usual = plan("{text} So it was").graph, plan(None).graph
    assert {cell.settings["template"] for cell in own.cells.values() if cell.kind in ("prompt", "score")} == {
        "{text} So it was"
    }
    assert not any("template" in cell.settings for cell in usual.cells.values())
    store, _ = run(plan("{text} So it was"), tmp_path / "out")
    trained = next(cell for cell in own.cells.values() if cell.kind == "prompt")
    assert load_adaptation(store.folder(trained.id) / "prompt").encoding.template == "{text} So it was"


# The results -----------------------------------------------------------------------------------------------------


def test_members_of_a_method_are_artifacts_of_it(three):
    plan, store, _ = three
    for cell in plan.graph.cells.values():
        if cell.kind == "prompt":
            kept = load_adaptation(store.folder(cell.id) / "prompt")
            assert text_of(kept.method) == cell.settings.get("method", "prompt")
            if "source" in cell.inputs:
                source = load_adaptation(store.folder(cell.inputs["source"]) / "prompt")
                assert kept.method == source.method
                assert all(kept.initial[name].equal(source.tensors[name]) for name in source.tensors)


def test_every_row_names_its_method(tables, three):
    table = tables["results"]
    assert list(table.columns) == list(COLUMNS)
    assert set(table["method"]) == {"prompt", LORA, P_TUNING}
    counts = table[table["kind"] != "indicator"].groupby("method").size()
    assert counts.nunique() == 1
    measured = table[table["kind"] == "indicator"].groupby("method")["by"].unique().map(set).to_dict()
    assert measured == {"prompt": {"C_average", "ON"}, P_TUNING: {"C_average", "ON"}, LORA: {"ON"}}


def test_comparisons_are_within_a_method_and_of_methods(tables):
    found = tables["comparisons"]
    within = found[found["family"] == "zero-shot"].groupby("method")["comparison"].unique().map(set).to_dict()
    assert "same type minus random prompt" in within["prompt"]
    assert "same type minus random adaptation" in within[LORA]
    between = found[found["family"] == "methods"]
    scores = tables["results"]
    own = scores[(scores["condition"] == "own prompt") & (scores["kind"] == "score")]
    means = own.groupby("method")["value"].mean()
    value = between.set_index("comparison").loc[f"own score, {LORA} minus prompt", "value"]
    assert value == pytest.approx(means[LORA] - means["prompt"])
    assert set(tables["indicators"]["method"]) == {"prompt", LORA, P_TUNING}


def test_tables_of_before_are_of_prompts(tables):
    old = tables["results"]
    old = old[old["method"] == "prompt"].drop(columns="method")
    assert set(comparisons(old)["method"]) == {"prompt"}
    assert set(summary(old)["method"]) == {"prompt"}


def test_a_page_and_a_heatmap_a_method(three, tmp_path):
    plan, store, _ = three
    written = write_study_report(plan.graph, store, tmp_path, title="Three")
    names = ["near-prompt", "near-lora-rank-2", "near-p-tuning-encoder-mlp"]
    for name in names:
        assert (tmp_path / "report" / name / "report.html").exists()
        assert (tmp_path / "report" / "heatmaps" / f"{name}.png").exists()
    page = written.page.read_text()
    assert page.count("data:image/svg+xml") == 3
    assert "C_average on near, lora:rank=2: it compares vectors" in page
    assert len(pd.read_csv(tmp_path / "report" / "impossible.csv")) == 1
    record = json.loads((tmp_path / "report" / names[1] / "transfer" / "transfer.json").read_text())
    assert record["method"] == LORA


def test_what_cannot_be_is_kept_and_said(three):
    plan, store, _ = three
    assert read_graph(store).impossible == plan.graph.impossible
    assert [one.method for one in read_status(store).impossible] == [LORA]
    with pytest.raises(UserError, match="there cannot be: it compares vectors"):
        explain_cell(store, "C_average on near, lora:rank=2")
    cell = next(one for one in plan.graph.cells.values() if one.label == f"{LORA} films seed 0 on near")
    assert explain_cell(store, cell.id).settings["method"] == LORA


# A folder of before ----------------------------------------------------------------------------------------------


def as_of_format_1(store, cell):
    """Rewrite a finished prompt as versions before format 2 wrote it, with the record of its cell."""
    folder = store.folder(cell.id)
    new = json.loads((folder / "prompt" / "adaptation.json").read_text())
    origin, encoding, shape = new["origin"], new["encoding"], new["shapes"]["prompt_embeddings"]
    old = {
        **{key: origin[key] for key in ("task", "backbone", "revision", "family", "seed", "words", "data")},
        **{key: new[key] for key in ("name", "scores", "curve", "digest", "versions")},
        "format": 1,
        "layout": encoding.pop("layout"),
        "length": shape[0],
        "width": shape[1],
        "initialiser": origin["start"].replace("from:", "prompt:"),
        "settings": {**origin["recipe"], "length": shape[0], **encoding},
    }
    (folder / "prompt" / "adaptation.json").unlink()
    (folder / "prompt" / "prompt.json").write_text(json.dumps(old))
    known = store.record(cell.id)
    kept = {name: getattr(known, name) for name in ("started", "seconds", "unit_cells", "cost", "commit")}
    (folder / "cell.json").write_text(make_record(cell, folder, **kept).model_dump_json())


def test_a_folder_of_format_1_is_found_finished_and_reported(planned, tmp_path):
    plan = planned()
    store, _ = run(plan, tmp_path / "run")
    for cell in plan.graph.cells.values():
        if cell.kind == "prompt":
            as_of_format_1(store, cell)
    assert not list((tmp_path / "run" / "cells").rglob("adaptation.json"))
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    store, summary = run(plan, tmp_path / "again")
    assert (summary.made, summary.there) == (0, len(plan.graph.cells))
    write_study_report(plan.graph, store, tmp_path / "again")
    more = planned("methods: [prompt, lora]\n")
    _, summary = run(more, tmp_path / "again")
    assert summary.there == len(plan.graph.cells) - 1  # all but the figure, which has the heatmaps of both


def test_every_method_goes_through_a_study(tmp_path, backbone_folder):
    """Two steps of each, on two tasks: trained, scored, tuned from the other, compared by neurons.

    The pages are drawn of those that no shipped study has (test_study_shipped.py).
    """
    text = PROMPTS.replace(", pairs.yaml", "").replace("steps: 4", "steps: 2").replace("[C_average]", "[]")
    text = text.replace("{title: A small study}", "{title: A small study, heatmaps: false}")
    needs = {
        "text": "text:prompt=is it good",
        "attempt": "attempt:sources=random:2",
        "dtvg": "dtvg:sources=random:2",
        "bmtpt": "bmtpt:sources=random:2",
    }
    names = [name for name in METHODS if not parse_method(name).shares]  # these train with others
    methods = {name: needs.get(name, name) for name in names}

    def planned(some):
        line = f"methods: {json.dumps(list(some))}\n"
        return make_plan(read_study(write_study(tmp_path, backbone_folder, text + line)))

    plan = planned(methods.values())
    assert {unless.reason for unless in plan.graph.impossible} == {
        f"nothing of {text_of(parse_method(method))} is trained"
        for method in methods.values()
        if not parse_method(method).trains
    }
    store, summary = run(plan, tmp_path / "run")
    assert summary.complete
    table = make_tables(open_results(plan.graph, store))["results"]
    assert {label.partition(":")[0] for label in table["method"]} == set(names)
    drawn = {method.name for method in find_study("methods").spec.methods}
    others = {name: method for name, method in methods.items() if name not in drawn}
    written = write_study_report(planned(others.values()).graph, store, tmp_path / "run")
    assert {label.partition(":")[0] for label in written.tables["results"]["method"]} == set(others)


def test_a_study_starts_from_a_library_and_its_cells_change_with_it(planned, tiny, tmp_path):
    from toys import prompt_on

    from prompttransfer.adaptations.artifacts import save_adaptation

    def cells(seed):
        for name in ("one", "two"):
            save_adaptation(prompt_on(tiny("roberta"), task=name, seed=seed), tmp_path / "library" / name)
        plan = planned(f"initialiser: 'retrieve:{tmp_path / 'library'},top=2'\n")
        prompts = [cell for cell in plan.graph.cells.values() if cell.kind == "prompt"]
        return {
            cell.id for cell in prompts if cell.settings["initialiser"] != "random"
        }  # those are from scratch

    first = cells(0)
    assert cells(0) == first and not cells(1) & first


def test_a_head_is_trained_from_other_tasks_and_moves_to_none_unchanged(tmp_path, backbone_folder):
    place = write_study(tmp_path, backbone_folder, PROMPTS.replace("same-type", "all"))
    folder = place.parent
    task = "name: songs\ntype: sentiment\nkind: sentence\nhead: true\nclasses: [bad, good]\n"
    (folder / "songs.yaml").write_text(task)
    plan = make_plan(read_study(place))
    reasons = {one.label: one.reason for one in plan.graph.impossible}
    assert reasons.keys() == {f"score on songs of prompt {source} on near" for source in ("films", "pairs")}
    assert all(
        "has no head, and task 'songs' is answered by a head of 2 classes" in why for why in reasons.values()
    )
    classes = {
        cell.settings["task"]: cell.settings.get("classes")
        for cell in plan.graph.cells.values()
        if cell.kind == "prompt"
    }
    assert classes == {"films": None, "songs": ["bad", "good"], "pairs": None}
    store, _ = run(plan, tmp_path / "run")
    begun = [
        cell
        for cell in plan.graph.cells.values()
        if cell.kind == "prompt" and cell.settings["task"] == "songs" and cell.inputs
    ]
    assert len(begun) == 2
    for cell in begun:
        assert load_adaptation(store.folder(cell.id) / "prompt").head.labels == ("bad", "good")
