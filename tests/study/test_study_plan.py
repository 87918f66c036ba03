"""Plans: which cells a study has, and that a changed setting changes exactly the ids of the cells that depend on it."""

from dataclasses import replace

import pytest
from small_study import TEXT, write_rows, write_study

from prompttransfer.study.plan.estimate import estimate, in_words
from prompttransfer.study.plan.graph import build_graph
from prompttransfer.study.plan.lookup import gather_facts, load_rows
from prompttransfer.study.plan.plan import make_plan, plan_study
from prompttransfer.study.plan.reading import read_study
from tasks.errors import MachineError


@pytest.fixture
def planned(tmp_path, backbone_folder):
    """`planned(old=new, ...)`: the plan of the small study with pieces of its text replaced."""

    def plan(*changes):
        text = TEXT
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        return make_plan(read_study(write_study(tmp_path, backbone_folder, text)))

    return plan


def changed(before, after):
    """Kinds of cells whose ids are new, with how many, and how many are gone."""
    old, new = before.graph.cells, after.graph.cells
    kinds = {}
    for name in new.keys() - old.keys():
        kinds[new[name].kind] = kinds.get(new[name].kind, 0) + 1
    return kinds, len(old.keys() - new.keys())


def test_a_plan_has_every_kind_of_cell(planned):
    plan = planned()
    kinds = {}
    for cell in plan.graph.cells.values():
        kinds[cell.kind] = kinds.get(cell.kind, 0) + 1
    tasks, seeds, backbones = 3, 2, 2
    sources, scratch, projected = tasks * (tasks - 1), tasks, tasks
    assert kinds == {
        # own; from every other task and from scratch beside; on `far` also from the projected prompts, same scratch
        "prompt": seeds * (backbones * (tasks + sources + scratch) + projected),
        # every source on every target and the references; each tuned run and scratch on its own task
        "score": seeds * (backbones * (tasks * (tasks + 1) + sources + scratch) + projected),
        "tuned": seeds * (backbones * sources + projected),
        "projector": seeds,
        "carried": seeds * tasks,
        "states": seeds * backbones * tasks,
        "indicator": seeds * backbones * 2,
        "figure": backbones,
    }


def test_planning_twice_gives_the_same_units(planned):
    assert [unit.id for unit in planned().graph] == [unit.id for unit in planned().graph]


def test_the_recipe_of_one_task_changes_its_prompts_alone_and_parts_its_bank(planned):
    own = "[{name: near, recipe: {per-task: {songs.yaml: {lr: 0.01}}}}, far]"
    before, after = planned(), planned(("[near, far]", own))
    gone = [cell for name, cell in before.graph.cells.items() if name not in after.graph.cells]
    prompts = [c for c in gone if c.kind == "prompt" and "source" not in c.inputs]
    assert {(c.settings["task"], c.settings["backbone"]["name"]) for c in prompts} == {("songs", "near")}
    rates = [
        {cell.settings["recipe"]["lr"] for cell in unit.cells}
        for unit in after.graph
        if unit.kind == "prompt"
    ]
    assert all(len(found) == 1 for found in rates) and {0.01} in rates


def test_a_schedule_is_part_of_a_recipe(planned):
    own = "[{name: near, recipe: {schedule: linear, warm-up: 1}}, far]"
    after = planned(("[near, far]", own))
    prompts = [cell for cell in after.graph.cells.values() if cell.kind == "prompt"]
    kinds = {
        (
            cell.settings["backbone"]["name"],
            cell.settings["recipe"].get("schedule"),
            cell.settings["recipe"].get("warm_up"),
        )
        for cell in prompts
    }
    assert kinds == {("near", "linear", 1), ("far", None, None)}


def test_a_run_from_scratch_with_the_studys_own_recipe_is_the_studys_own_prompt(planned):
    plan = planned(("{sources: all, steps: 2, evaluate-every: 1}", "{sources: all}"))
    scratch = {cell.inputs["scratch"] for cell in plan.graph.cells.values() if cell.kind == "tuned"}
    references = [cell for cell in plan.graph.cells.values() if "references" in cell.settings]
    own = {name for cell in references for name in cell.inputs.values()}
    by_recipe = {plan.graph.cells[name].settings["recipe"]["steps"] for name in scratch & own}
    assert by_recipe == {4}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("title: A small study", "title: Another", set()),
        ("study: small", "study: other", set()),
        ("limit-test: 12", "limit-test: 11", {"score", "tuned", "figure", "projector", "carried", "prompt"}),
        ("[C_average]", "[C_average, E_concat]", {"indicator"}),
        ("[ON]", "[ON, jaccard]", {"indicator"}),
        ("sources: all, steps: 2", "sources: all, steps: 3", {"prompt", "score", "tuned"}),
        ("steps: 3\n", "steps: 2\n", {"projector", "carried", "prompt", "score", "tuned"}),
        ("report: {title", "report: {heatmaps: false, title", set()),
        ("transfers:\n", "transfers:\n  random-draws: 3\n", {"score", "figure"}),
    ],
)
def test_a_changed_setting_changes_only_what_depends_on_it(planned, old, new, expected):
    before, after = planned(), planned((old, new))
    assert set(changed(before, after)[0]) == expected


def test_test_rows_change_no_prompt_that_was_trained_without_a_projector(planned):
    before, after = planned(), planned(("limit-test: 12", "limit-test: 11"))
    new = [
        cell
        for cell in after.graph.cells.values()
        if cell.id not in before.graph.cells and cell.kind == "prompt"
    ]
    assert new and all(after.graph.cells[cell.inputs["source"]].kind == "carried" for cell in new)


def test_other_banks_are_the_same_cells(planned):
    before, after = planned(), planned(("seeds: [0, 1]", "seeds: [0, 1]\nbank: 2"))
    assert changed(before, after) == ({}, 0)
    assert len(after.graph.units) > len(before.graph.units)


def test_one_more_seed_leaves_every_cell_but_the_figures(planned):
    before, after = planned(), planned(("seeds: [0, 1]", "seeds: [0, 1, 2]"))
    gone = set(before.graph.cells) - set(after.graph.cells)
    assert {before.graph.cells[name].kind for name in gone} == {"figure"}


def test_one_more_task_leaves_all_prompts_and_their_scores(planned):
    before = planned(
        ("films.yaml, songs.yaml, pairs.yaml", "films.yaml, songs.yaml"),
        ("pairs.yaml]\n    unseen: [songs.yaml]", "songs.yaml]"),
    )
    after = planned(("pairs.yaml]\n    unseen: [songs.yaml]", "songs.yaml]"))
    gone = [before.graph.cells[name] for name in set(before.graph.cells) - set(after.graph.cells)]
    assert {cell.kind for cell in gone} == {
        "score",
        "indicator",
        "figure",
    }  # what looks at all prompts at once
    assert all("references" in cell.settings for cell in gone if cell.kind == "score")


def test_other_rows_of_one_task_change_what_uses_them(planned, tmp_path, backbone_folder):
    before = planned()
    write_rows(tmp_path, "songs", seed=1)
    load_rows.cache_clear()
    after = make_plan(read_study(tmp_path / "study.yaml"))
    kept = before.graph.cells.keys() & after.graph.cells.keys()
    touched = {cell.label for name, cell in after.graph.cells.items() if name not in kept}
    assert touched and not any(
        "songs" in cell.label and cell.kind in ("prompt", "score")
        for cell in map(after.graph.cells.get, kept)
    )
    assert "prompt films seed 0 on near" not in touched
    assert "score on films of prompt pairs seed 0 on near" not in touched


def test_other_weights_change_every_cell_of_their_backbone(planned):
    plan = planned()
    near = plan.facts.backbones["near"]
    facts = replace(
        plan.facts, backbones={**plan.facts.backbones, "near": replace(near, revision="sha256:other")}
    )
    after = build_graph(plan.spec, facts)
    kept = plan.graph.cells.keys() & after.cells.keys()
    assert kept and not any(" on near" in after.cells[name].label for name in kept)


def test_a_name_of_a_folder_is_no_part_of_any_id(planned, tmp_path, backbone_folder):
    here = planned()
    there = make_plan(read_study(write_study(tmp_path / "elsewhere", backbone_folder)))
    assert list(here.graph.cells) == list(there.graph.cells)
    assert here.local["data"] != there.local["data"]


def test_rows_may_come_from_another_folder(planned, tmp_path):
    before = planned()
    (tmp_path / "data").rename(tmp_path / "moved")
    (tmp_path / "data").mkdir()
    plan = plan_study(tmp_path / "study.yaml", data=tmp_path / "moved")
    assert list(plan.graph.cells) == list(before.graph.cells)
    assert plan.local["data"] == str(tmp_path / "moved")


def test_same_type_sources_are_of_the_targets_type(planned):
    plan = planned(("sources: all", "sources: same-type"))
    tuned = [
        cell.label
        for cell in plan.graph.cells.values()
        if cell.kind == "tuned" and " on far" not in cell.label
    ]
    assert len(tuned) == 4 and not any("pairs" in label for label in tuned)


def test_chosen_sources_are_those_that_were_named(planned):
    plan = planned(("sources: all", "sources: {films.yaml: songs.yaml}"))
    tuned = [
        cell.label
        for cell in plan.graph.cells.values()
        if cell.kind == "tuned" and " on far" not in cell.label
    ]
    assert tuned == [f"speed-up of prompt films seed {s} on near from songs seed {s} on near" for s in (0, 1)]


def test_the_estimate_counts_steps_and_tokens(planned):
    plan = planned()
    costs = estimate(plan)
    prompts = [cell for cell in plan.graph.cells.values() if cell.kind == "prompt"]
    assert costs.kinds["prompt"].steps == sum(cell.settings["recipe"]["steps"] for cell in prompts)
    assert costs.kinds["projector"].steps == 2 * 3
    assert costs.total.cells == len(plan.graph.cells)
    assert costs.total.disk > 0 and costs.total.memory >= costs.kinds["score"].memory > 0


def test_the_longest_chain_is_no_longer_than_the_whole(planned):
    costs = estimate(planned())
    assert 0 < costs.chain < costs.total.operations
    assert costs.workers == pytest.approx(costs.total.operations / costs.chain)


def test_tokens_of_a_prompt_are_worked_by_hand(planned):
    plan = planned(
        ("backbones: [near, far]", "backbones: [near]"),
        (TEXT[TEXT.index("projectors:") : TEXT.index("indicators:")], ""),
        ("sources: all, steps: 2, evaluate-every: 1", "sources: {}"),
        ("seeds: [0, 1]", "seeds: [0]"),
    )
    side = plan.facts.backbones["near"]
    expected = 0.0
    for task in side.tasks.values():
        row = 3 + task.tokens + side.special  # prompt, text, special tokens
        expected += (
            4 * 4 * row + 3 * task.rows.validation * row
        )  # 4 steps of 4 rows; looks at step 0, 2 and 4
    assert estimate(plan).kinds["prompt"].tokens == pytest.approx(expected)


def test_numbers_are_said_for_people():
    assert [in_words(n) for n in (12, 4_800, 1.3e18)] == ["12", "4.8 k", "1.3 E"]


def test_what_is_out_of_reach_is_guessed_only_when_asked(tmp_path, monkeypatch):
    from prompttransfer.backbones import loading

    def away(name):
        raise MachineError(f"cannot reach the hub for {name}: connect, or whatever")

    monkeypatch.setattr(loading, "outline_backbone", away)
    (tmp_path / "study.yaml").write_text("study: far\nbackbones: [roberta-base]\ntasks: [microworld-imdb]\n")
    study = read_study(tmp_path / "study.yaml")
    with pytest.raises(MachineError, match="cannot reach the hub"):
        gather_facts(study)
    facts = gather_facts(study, guess=True)
    assert not facts.certain and facts.backbones["roberta-base"].width == 768
    assert "roberta-base is out of reach" in facts.notes[0]
