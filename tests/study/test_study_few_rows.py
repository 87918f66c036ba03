"""Studies of few rows: what the file says, which cells there are, what systems take of a library, and the table of them."""

import json

import pandas as pd
import pytest
import torch
from small_study import write_rows, write_study

from prompttransfer.adaptations.artifacts import load_adaptation
from prompttransfer.study.engine.engine import run_study
from prompttransfer.study.engine.store import read_graph, write_graph
from prompttransfer.study.engine.stores import open_store
from prompttransfer.study.library_starts import NAMES, parse_library_start
from prompttransfer.study.plan.document import MistakesError
from prompttransfer.study.plan.estimate import estimate
from prompttransfer.study.plan.lookup import load_rows
from prompttransfer.study.plan.plan import make_plan
from prompttransfer.study.plan.reading import parse_study, read_study
from prompttransfer.study.plan.shipped import find_study
from prompttransfer.study.results.long_table import open_results
from prompttransfer.study.results.report import make_tables, write_study_report
from prompttransfer.study.results.systems import CONTROLS, run_table, system_lines, system_table, target_table
from tasks.custom import read_task_file
from tasks.errors import UserError

TEXT = """
study: few
backbones: [near]
tasks: [films.yaml, pairs.yaml]
library: {tasks: [songs.yaml, tunes.yaml, couples.yaml], recipe: {steps: 4}}
shots: [4, 8]
seeds: [0, 1, 2]
data: data
limit-test: 12
recipe: {steps: 5, batch: 4, length: 3, evaluate-every: 5}
methods:
  - {name: prompt, label: tuned, tune: {lr: [0.001, 0.3]}}
  - {name: prompt, label: usual}
  - {name: prompt, label: nearest, start: "retrieve:top=1,by=C_average"}
  - {name: prompt, label: mixed, start: mixture}
  - {name: prompt, label: mean, start: average}
  - {name: prompt, label: sum, start: "vectors:top=2"}
  - {name: prompt, label: tried, start: "best-of:top=2"}
  - {name: residual, hidden: 4, label: best, start: from-best}
  - {name: attempt, hidden: 4, sources: library, label: ATTEMPT}
  - {name: dtvg, sources: library, label: DTVG}
  - {name: bmtpt, sources: library, label: BMTPT}
  - {name: mpt, label: MPT, start: shared}
  - {name: mpt, label: taught MPT, start: shared, teachers: true}
  - {name: prompt, label: PANDA, distil: {start: "retrieve:top=1"}}
  - {name: prompt, label: taught, distil: {start: from-best, weight: 0.5}}
bank: 6
transfers: {random-draws: 2}
"""
MORE = {"tunes": "sentiment", "couples": "nli"}
SYSTEMS = (
    "tuned",
    "usual",
    "nearest",
    "mixed",
    "mean",
    "sum",
    "tried",
    "best",
    "ATTEMPT",
    "DTVG",
    "BMTPT",
    "MPT",
    "taught MPT",
    "PANDA",
    "taught",
)


def write_few(folder, backbone_folder, text=TEXT):
    """The study's file with two more tasks beside those of the small one."""
    path = write_study(folder, backbone_folder, text)
    for task, kind in MORE.items():
        like = "songs" if kind == "sentiment" else "pairs"
        (folder / f"{task}.yaml").write_text((folder / f"{like}.yaml").read_text().replace(like, task))
        write_rows(folder, like, seed=7)
        (folder / "data" / like).rename(folder / "data" / task)
        write_rows(folder, like)
    return path


def run(plan, folder, **given):
    store = open_store(folder, new=True)
    summary = run_study(
        plan.graph, store, local={**plan.local, "device": "cpu"}, say=lambda line: None, **given
    )
    assert [failure.line for failure in summary.failed] == []
    return store, summary


@pytest.fixture(scope="module")
def few(tmp_path_factory, backbone_folder):
    """The study, run once."""
    folder = tmp_path_factory.mktemp("few")
    plan = make_plan(read_study(write_few(folder, backbone_folder)))
    store, _ = run(plan, folder / "run")
    return plan, store, folder / "run"


def member(few, system, target="films", shots=4, seed=0):
    """What a system learned, and its cell."""
    plan, store, _ = few
    (one,) = (
        one
        for one in plan.graph.runs
        if (one.system, one.target, one.shots, one.seed) == (system, target, shots, seed)
    )
    cell = plan.graph.cells[plan.graph.cells[one.score].inputs["prompt"]]
    return load_adaptation(store.folder(cell.id) / "prompt"), cell, one


def library(few, cell):
    """Task -> prompt of the library that a cell takes."""
    _, store, _ = few
    return {
        role.removeprefix("library "): load_adaptation(store.folder(name) / "prompt")
        for role, name in cell.inputs.items()
        if role.startswith("library ")
    }


# The file --------------------------------------------------------------------------------------------------------

MINIMAL = """study: one
backbones: [microworld-roberta]
tasks: [microworld-imdb, microworld-mnli]
"""
SHOTS = MINIMAL + "shots: [16]\n"
LIBRARY = SHOTS + "library: {tasks: [microworld-sst2, microworld-snli]}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MINIMAL + "library: {tasks: [microworld-sst2]}\n", "my.yaml:4: a library is for targets of few rows"),
        (MINIMAL + "methods: [{name: prompt, distil: true}]\n", "my.yaml:4: 'distil' is for systems on few rows"),
        (MINIMAL + "methods: [{name: prompt, start: average}]\n", "'start' is for systems on few rows: add `shots: [16, 64]`, or write `initialiser`"),
        (MINIMAL + "shots: [0]\n", "my.yaml:4: shots: 0 rows: at least 1 is needed"),
        (MINIMAL + "shots: [16, 16]\n", "a number of rows is given twice"),
        (MINIMAL + "shots: many\n", "my.yaml:4: shots is 'many'"),
        (SHOTS + "limit-train: 64\n", "my.yaml:5: `shots` says how many rows targets have"),
        (SHOTS + "transfers: {zero-shot: true}\n", "my.yaml:5: a study with `shots` compares systems on few rows: leave 'zero-shot'"),
        (SHOTS + "indicators: {neurons: [ON]}\n", "leave 'neurons' to another study"),
        (SHOTS + "library: {tasks: [microworld-sst2, microworld-imdb]}\n", "my.yaml:5: task 'microworld-imdb' is a target of this study"),
        (SHOTS + "library: {tasks: [microworld-sst2, microworld-sst2]}\n", "my.yaml:5: task 'microworld-sst2' is given twice"),
        (SHOTS + "library: {tasks: [microworld-sst]}\n", "unknown task 'microworld-sst': did you mean"),
        (SHOTS + "library: {tasks: [microworld-sst2], recip: {}}\n", "unknown key 'recip': did you mean 'recipe'?"),
        (SHOTS + "methods: [{name: prompt, start: average}]\n", "my.yaml:5: there is no library in this study"),
        (SHOTS + "methods: [{name: attempt, sources: library}]\n", "my.yaml:5: there is no library in this study"),
        (LIBRARY + "methods: [{name: prompt, start: 'retrieve:top=3'}]\n", "the library has 2 tasks, fewer than top=3"),
        (LIBRARY + "methods: [{name: prompt, start: 'retrieve:top=0'}]\n", "top is '0': it must be how many sources, at least 1"),
        (LIBRARY + "methods: [{name: prompt, start: 'retreive'}]\n", "unknown start from the library 'retreive': did you mean 'retrieve'?"),
        (LIBRARY + "methods: [{name: prompt, start: 'retrieve:top=1,by=C_avarage'}]\n", "unknown similarity of prompts 'C_avarage'"),
        (LIBRARY + "methods: [{name: prompt, start: 'average:top=1'}]\n", "unknown setting of start average 'top'"),
        (LIBRARY + "methods: [{name: prompt, start: average, initialiser: vocabulary}]\n", "a system has one start"),
        (LIBRARY + "methods: [{name: prompt, start: shared}]\n", "method prompt shares nothing among tasks"),
        (LIBRARY + "methods: [mpt]\n", "or give it `start: shared`"),
        (LIBRARY + "methods: [prompt,\n  prompt]\n", "my.yaml:7: two systems are called 'prompt:': give each a `label`"),
        (SHOTS + "methods: [{name: prompt, tune: {lr: [0.1]}}]\n", "my.yaml:5: methods.0.tune.lr is"),
        (SHOTS + "methods: [{name: prompt, tune: {lr: [0.1, -1]}}]\n", "-1 is no rate: a number above 0"),
        (SHOTS + "methods: [{name: prompt, tune: {lr: [0.1, 1]}, recipe: {lr: 1}}]\n", "lr is tuned: leave it out of `recipe`, or of `tune`"),
        (LIBRARY + "methods: [{name: prompt, distil: {start: from-best}}]\n", "measures no similarity to weigh its teacher by: give a `weight`"),
        (LIBRARY + "methods: [{name: prompt, start: average, distil: true}]\n", "my.yaml:6: a student starts from scratch"),
        (LIBRARY + "methods: [{name: prompt, distil: {start: 'retrieve:top=3'}}]\n", "the library has 2 tasks, fewer than top=3"),
        (LIBRARY.replace("mnli", "squad") + "methods: [{name: prompt, distil: true}]\n", "answers of microworld-squad are written"),
        (LIBRARY + "methods: [{name: prompt, start: average, teachers: true}]\n", "my.yaml:6: `teachers` teach a library's tasks that are trained together"),
        (LIBRARY.replace("snli", "squad") + "methods: [{name: mpt, start: shared, teachers: true}]\n", "answers of microworld-squad are written"),
        (LIBRARY + "methods: [{name: particles, start: shared}]\n", "method particles shares nothing among tasks"),
        (LIBRARY + "methods: [{name: mpt, start: shared, teachers: {on: words}}]\n", "my.yaml:6: "),
        (SHOTS + "methods: [{name: prompt, distil: true}]\n", "there is no library in this study"),
        (SHOTS + "methods: [{name: prompt, teachers: true}]\n", "my.yaml:5: `teachers` teach a library's tasks"),
        (SHOTS + "methods: [{name: text, prompt: good, tune: {lr: [0.1, 1]}}]\n", "method text has no rate to tune"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_by_its_line(text, said):
    with pytest.raises(MistakesError) as caught:
        parse_study(text, "my.yaml")
    assert any(said in line for line in caught.value.lines), caught.value.lines


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("shots: [4, 8]", "shots: [4, 100]", r"study.yaml:6: 100 rows of films.yaml: it has 36 beside its validation rows"),
        ("{name: prompt, label: mean, start: average}", "{name: ulpt, rank: 2, start: average}", r"study.yaml:16: method ulpt has no start 'average'"),
        ("{name: prompt, label: mean, start: average}", "{name: dept, length: 2, start: average}", r"study.yaml:16: method dept has no start 'average'"),
    ],
)  # fmt: skip
def test_a_mistake_that_rows_or_backbones_tell(tmp_path, backbone_folder, old, new, said):
    with pytest.raises(UserError, match=said):
        make_plan(read_study(write_few(tmp_path, backbone_folder, TEXT.replace(old, new))))


@pytest.mark.parametrize("name", NAMES)
def test_a_start_is_read_as_it_is_written(name):
    start = parse_library_start(name)
    assert parse_library_start(str(start)) == start


# The plan --------------------------------------------------------------------------------------------------------


def test_every_system_has_a_run_a_target_number_of_rows_and_seed(few):
    plan, _, _ = few
    places = [(run.target, run.shots, run.seed) for run in plan.graph.runs if run.system == "usual"]
    assert len(plan.graph.runs) == len(SYSTEMS) * len(places) == 15 * 2 * 2 * 3
    assert len(set(places)) == 12


def test_library_and_probes_are_trained_once_for_all_systems(few):
    plan, _, _ = few
    labels = [cell.label for cell in plan.graph.cells.values() if cell.kind == "prompt"]
    probes = {member(few, system)[1].inputs["probe"] for system in ("nearest", "mixed", "sum", "tried")}
    assert len(probes) == 1
    assert sum(label.startswith("prompt songs") for label in labels) == 3
    assert sum(cell.kind == "shared" for cell in plan.graph.cells.values()) == 2 * 3


def test_steps_are_those_of_all_that_was_tried_and_the_share_of_the_library(few):
    steps = {system: member(few, system)[2] for system in SYSTEMS}
    found = {system: (one.target_steps, one.all_steps) for system, one in steps.items()}
    of_library = 3 * 4 / 2  # three sources of 4 steps, shared by two targets
    assert found == {
        "tuned": (10, 10),
        "usual": (5, 5),
        "nearest": (10, 10 + of_library),
        "mixed": (10, 10 + of_library),
        "mean": (5, 5 + of_library),
        "sum": (10, 10 + of_library),
        "tried": (15, 15 + of_library),
        "best": (5, 5 + of_library),
        "ATTEMPT": (5, 5 + of_library),
        "DTVG": (5, 5 + of_library),
        "BMTPT": (5, 5 + of_library),
        "MPT": (5, 5 + of_library),
        "taught MPT": (5, 5 + 2 * of_library),  # its teachers and the tasks together
        "PANDA": (15, 15 + of_library),  # student, teacher and probe
        "taught": (10, 10 + of_library),
    }
    assert steps["usual"].related == 2  # songs and tunes are of the type of films


def test_the_library_is_that_of_a_study_of_its_own(tmp_path, few, backbone_folder):
    plan, _, _ = few
    text = """
study: sources
backbones: [near]
tasks: [songs.yaml, tunes.yaml, couples.yaml]
seeds: [0, 1, 2]
data: data
limit-test: 12
recipe: {steps: 4, batch: 4, length: 3, evaluate-every: 5}
"""
    alone = make_plan(read_study(write_few(tmp_path, backbone_folder, text))).graph.cells
    prompts = {name for name, cell in alone.items() if cell.kind == "prompt"}
    assert len(prompts) == 9 and prompts <= set(plan.graph.cells)


def test_another_number_of_rows_leaves_the_others_alone(tmp_path, few, backbone_folder):
    plan, _, _ = few
    more = make_plan(read_study(write_few(tmp_path, backbone_folder, TEXT.replace("[4, 8]", "[4, 8, 12]"))))
    assert set(plan.graph.cells) <= set(more.graph.cells)


def test_a_label_and_another_system_leave_finished_cells_alone(tmp_path, few, backbone_folder):
    plan, _, _ = few
    text = TEXT.replace("label: usual", "label: plain").replace(
        "bank: 6", "  - {name: dept, length: 2, rank: 2, positions: 40, label: DePT}\nbank: 6"
    )
    more = make_plan(read_study(write_few(tmp_path, backbone_folder, text)))
    assert set(plan.graph.cells) < set(more.graph.cells)
    assert {run.system for run in more.graph.runs} >= {"plain", "DePT"}


def test_the_runs_are_kept_with_the_plan(tmp_path, few):
    plan, _, _ = few
    store = open_store(tmp_path, new=True)
    write_graph(store, plan.graph)
    assert read_graph(store).runs == plan.graph.runs
    assert json.loads((tmp_path / "plan.json").read_text())["runs"][0]["system"] == "tuned"


def test_the_cost_counts_every_rate_and_the_library(few):
    plan, _, _ = few
    costs = estimate(plan).kinds
    runs = 2 * 2 * 3
    assert costs["shared"].steps == 2 * 3 * 3 * 4
    tried = {"tuned": 2, "tried": 2}
    probes = runs * 5  # all of their steps, as there are so few
    teachers = runs * 5  # of `taught`; that of PANDA is a run of `nearest`
    assert costs["prompt"].steps == 3 * 3 * 4 + teachers + probes + runs * sum(
        5 * tried.get(s, 1) for s in SYSTEMS
    )


def test_rows_are_drawn_by_the_seed_and_those_of_fewer_are_among_those_of_more(few):
    _, _, folder = few
    task = read_task_file(folder.parent / "films.yaml")
    data = folder.parent / "data"
    one, other = (load_rows(task, data, 4, 1, seed)[0].train for seed in (0, 1))
    more = load_rows(task, data, 8, 1, 0)[0].train
    assert one != other and set(one) < set(more) and len(one) == 4 and len(more) == 8
    assert load_rows(task, data, 4, 1) == load_rows(task, data, 4, 1, 0)


# What systems take -----------------------------------------------------------------------------------------------


def test_the_rate_that_is_best_on_validation_rows_is_kept(few):
    for seed in range(3):
        found, cell, _ = member(few, "tuned", seed=seed)
        tried = found.notes["tried"]
        assert [one["rate"] for one in tried] == [0.001, 0.3] == cell.settings["tune"]["lr"]
        best = max(one["validation"] for one in tried)
        kept = next(one for one in tried if one["rate"] == found.origin.recipe["lr"])
        assert kept["validation"] == best == max(point.score for point in found.curve)


def test_all_steps_are_in_the_record_of_the_cell(few):
    _, store, _ = few
    _, cell, _ = member(few, "tuned")
    record = json.loads((store.folder(cell.id) / "cell.json").read_text())
    assert record["cost"]["steps"] == 10


def test_the_nearest_source_is_where_training_begins(few):
    found, cell, _ = member(few, "nearest")
    sources = library(few, cell)
    equal = [task for task, source in sources.items() if torch.equal(source.vectors, found.first_vectors)]
    assert len(equal) == 1 and found.origin.start == f"mixture:{sources[equal[0]].name}=1"


def test_a_probe_is_kept_as_it_is_at_its_step_be_it_better_there_or_not(few):
    _, store, _ = few
    _, cell, _ = member(few, "nearest")
    probe = load_adaptation(store.folder(cell.inputs["probe"]) / "prompt")
    usual, _, _ = member(few, "usual")  # the very same run, of which the best is kept
    assert probe.embedded_at == 5 and torch.equal(probe.first_vectors, usual.first_vectors)
    assert not torch.equal(probe.embedding["prompt_embeddings"], probe.first_vectors)


def test_a_probe_starts_where_the_library_did(few):
    _, store, _ = few
    _, cell, _ = member(few, "nearest")
    probe = load_adaptation(store.folder(cell.inputs["probe"]) / "prompt")
    assert all(torch.equal(probe.first_vectors, each.first_vectors) for each in library(few, cell).values())


def test_the_average_is_the_mean_of_all_sources(few):
    found, cell, _ = member(few, "mean")
    vectors = torch.stack([source.vectors for source in library(few, cell).values()])
    assert torch.allclose(found.first_vectors, vectors.mean(0), atol=1e-6)


def test_a_mixture_has_weights_by_similarity_that_add_up_to_one(few):
    found, _, _ = member(few, "mixed")
    parts = [part.rpartition("=") for part in found.origin.start.removeprefix("mixture:").split(",")]
    weights = [float(weight) for _, _, weight in parts]
    assert (
        len(parts) == 3
        and sum(weights) == pytest.approx(1, abs=1e-4)
        and weights == sorted(weights, reverse=True)
    )


def test_a_sum_of_task_vectors_stands_on_the_common_start(few):
    found, cell, _ = member(few, "sum")
    sources = {source.name: source for source in library(few, cell).values()}
    chosen = [sources[name] for name in found.origin.start.removeprefix("from:").split("+")]
    start = chosen[0].first_vectors
    wanted = start + sum(source.vectors - start for source in chosen)
    assert len(chosen) == 2 and torch.allclose(found.first_vectors, wanted, atol=1e-6)


def test_of_several_sources_the_one_is_kept_that_was_best_after_training(few):
    found, cell, _ = member(few, "tried")
    names = {f"from:{source.name}" for source in library(few, cell).values()}
    tried = found.notes["tried"]
    assert len(tried) == 2 and {one["start"] for one in tried} < names
    assert max(one["validation"] for one in tried) == max(point.score for point in found.curve)


def test_the_best_source_is_the_one_that_scores_best_before_training(few):
    _, _, folder = few
    found, cell, _ = member(few, "best", target="films", shots=8)
    from prompttransfer.adaptations.running import bank_of
    from prompttransfer.backbones.loading import load_backbone
    from prompttransfer.evaluation.encoding import encode_task
    from prompttransfer.evaluation.evaluate import evaluate_bank

    backbone = load_backbone(str(folder.parent / "near"), precision="fp32", device="cpu")
    sources = list(library(few, cell).values())
    task = read_task_file(folder.parent / "films.yaml")
    rows = load_rows(task, folder.parent / "data", 8, 1, 0)[0].validation
    bank = bank_of(backbone, sources)
    scores = evaluate_bank(
        backbone, bank, encode_task(backbone, task, rows, found.encoding, reserved=bank.reserved)
    )
    best = max(zip(scores, sources, strict=True), key=lambda pair: (pair[0].value, -pair[0].loss))[1]
    assert found.origin.start == f"from:{best.name}"


def test_attempt_has_the_library_as_its_frozen_sources(few):
    found, cell, _ = member(few, "ATTEMPT")
    vectors = torch.stack([source.vectors for source in library(few, cell).values()])
    assert torch.equal(found.tensors["sources"], vectors)
    assert str(found.method) == "attempt:length=3,sources=library:3,hidden=4"
    assert not torch.equal(found.tensors["target"], found.initial["target"])


def test_dtvg_regroups_what_training_added_to_the_library(few):
    found, cell, _ = member(few, "DTVG")
    added = [source.vectors - source.first_vectors for source in library(few, cell).values()]
    assert torch.allclose(found.encoder["sources"], torch.stack(added), atol=1e-6)
    assert not torch.equal(found.vectors, found.first_vectors)


def test_bmtpt_begins_at_the_mean_of_the_library_and_is_held_near_it(few):
    found, cell, _ = member(few, "BMTPT")
    vectors = torch.stack([source.vectors for source in library(few, cell).values()])
    assert torch.allclose(found.first_vectors, vectors.mean(0), atol=1e-6)
    assert torch.allclose(found.encoder["mean"], vectors.mean(0), atol=1e-6)
    assert float(found.encoder["variance"]) == pytest.approx(float(vectors.var(0).mean()), rel=1e-4)


def test_mpt_begins_at_what_the_library_shares(few):
    _, store, _ = few
    found, cell, _ = member(few, "MPT")
    shared = load_adaptation(store.folder(cell.inputs["shared"]) / "prompt")
    assert shared.task == "songs+tunes+couples"
    assert torch.allclose(found.first_vectors, shared.vectors, atol=1e-7)


def test_mpt_with_teachers_learns_from_the_library_s_prompts_while_its_tasks_train_together(few):
    plan, store, _ = few
    found, cell, _ = member(few, "taught MPT")
    plain, other, _ = member(few, "MPT")
    together = plan.graph.cells[cell.inputs["shared"]]
    assert together.settings["teachers"] == {"weight": 0.9, "on": "both"}
    assert together.inputs == library_inputs(member(few, "ATTEMPT")[1])
    assert plan.graph.cells[other.inputs["shared"]].inputs == {}
    shared = load_adaptation(store.folder(together.id) / "prompt")
    assert torch.allclose(found.first_vectors, shared.vectors, atol=1e-7)
    assert not torch.equal(found.first_vectors, plain.first_vectors)


def library_inputs(cell):
    """The library's prompts that a cell takes, by role."""
    return {role: name for role, name in cell.inputs.items() if role.startswith("library ")}


def test_a_student_starts_from_scratch_and_its_teacher_is_the_run_from_the_source(few):
    _, store, _ = few
    found, cell, _ = member(few, "PANDA")
    scratch, teacher = member(few, "usual")[0], member(few, "nearest")
    assert cell.inputs["teacher"] == teacher[1].id
    assert torch.equal(found.first_vectors, scratch.first_vectors)
    told = found.origin.recipe["distil"]
    probe = load_adaptation(store.folder(cell.inputs["probe"]) / "prompt")
    near = [cosine_of(probe.vectors, source.vectors) for source in library(few, cell).values()]
    assert told["digest"] == teacher[0].digest and told["distance"] == "squared"
    assert told["weight"] == pytest.approx(0.1 * max(0.0, *near), abs=1e-6)


def test_a_weight_that_is_given_is_that_of_the_teacher_and_needs_no_probe(few):
    found, cell, _ = member(few, "taught")
    assert found.origin.recipe["distil"]["weight"] == 0.5 and list(cell.inputs) == ["teacher"]


def cosine_of(one, other):
    """SPoT's similarity per token: the mean cosine of each vector with each."""
    rows = [torch.nn.functional.normalize(each, dim=1) for each in (one, other)]
    return float((rows[0] @ rows[1].T).mean())


def test_a_run_that_is_begun_again_makes_what_is_left_and_the_same(tmp_path, few, backbone_folder):
    plan, store, folder = few
    whole = open_results(plan.graph, store)
    lost = [
        cell
        for cell in plan.graph.cells.values()
        if cell.label.startswith(("tried", "MPT", "sum", "score on films"))
    ]
    before = {cell.id: (store.folder(cell.id)) for cell in lost}
    kept = {
        name: (place / "prompt" / "adapter_model.safetensors").read_bytes()
        for name, place in before.items()
        if (place / "prompt").is_dir()
    }
    for cell in lost:
        store.discard(cell.id)
    again, summary = run(plan, folder)
    assert summary.complete and len(kept) == 36
    for name, content in kept.items():
        assert (again.folder(name) / "prompt" / "adapter_model.safetensors").read_bytes() == content
    assert whole.finished == open_results(plan.graph, again).finished


# The tables ------------------------------------------------------------------------------------------------------


def made_up(values, *, controls=0.5):
    """`values`: system -> target -> one score a seed."""
    rows = [
        {
            "first": next(iter(values)), "backbone": "near", "metric": "accuracy", "shots": 16, "system": system, "target": target, "seed": seed,
            "value": value, "related": int(target == "a"), "target_steps": 20, "all_steps": 30.0, "cell": "c",
        }
        for system, targets in values.items()
        for target, scores in targets.items()
        for seed, value in enumerate(scores)
    ]  # fmt: skip
    rows += [
        {**row, "shots": None, "system": "no prompt", "value": controls, "related": None}
        for row in rows
        if row["system"] == next(iter(values))
    ]
    table = pd.DataFrame(rows)
    table["shots"] = table["shots"].astype("Int64")
    return table


def test_the_table_by_hand():
    table = system_table(
        made_up(
            {
                "first": {"a": [0.5, 0.6, 0.7], "b": [0.4, 0.5, 0.6]},
                "more": {"a": [0.7, 0.81, 0.9], "b": [0.4, 0.5, 0.61]},
                "less": {"a": [0.4, 0.51, 0.6], "b": [0.3, 0.4, 0.51]},
            }
        )
    ).set_index("system")
    assert table.loc["first", "mean"] == pytest.approx(0.55) and table.loc[
        "first", "spread"
    ] == pytest.approx(0.1)
    assert pd.isna(table.loc["first", "difference"]) and table.loc["no prompt", "mean"] == 0.5
    assert table.loc["more", "difference"] == pytest.approx(0.62 / 6)
    assert table.loc["more", "with_source"] == pytest.approx(0.61 / 3)
    assert table.loc["more", "without_source"] == pytest.approx(0.01 / 3)
    assert table.loc["more", "low"] < 0.62 / 6 < table.loc["more", "high"]
    assert (table.loc["more", "target_steps"], table.loc["more", "all_steps"]) == (20, 30)
    pair = sorted(table.loc[["more", "less"], "p"])
    assert sorted(table.loc[["more", "less"], "p_holm"]) == pytest.approx(
        [2 * pair[0], max(2 * pair[0], pair[1])]
    )
    (line,) = system_lines(table.reset_index())
    assert "better than it: more with 16 rows (+0.103)" in line and "worse than it: less with 16 rows" in line


def test_from_two_seeds_there_is_no_p_and_none_is_corrected():
    table = system_table(made_up({"first": {"a": [0.5, 0.6]}, "more": {"a": [0.8, 0.9]}})).set_index("system")
    assert table.loc["more", "difference"] == pytest.approx(0.3)
    assert pd.isna(table.loc["more", "p"]) and pd.isna(table.loc["more", "low"])
    assert "at least 3 are needed" in table.loc["more", "note"]


def test_targets_are_told_one_by_one():
    found = target_table(made_up({"first": {"a": [0.5, 0.7]}, "more": {"a": [0.8, 0.9]}})).set_index("system")
    assert (
        found.loc["more", "difference"] == pytest.approx(0.25) and found.loc["more", "related_sources"] == 1
    )
    assert pd.isna(found.loc["first", "difference"])


def test_the_report_has_the_table_the_figure_and_the_controls(few, tmp_path):
    plan, store, _ = few
    written = write_study_report(plan.graph, store, tmp_path, title="Few")
    table = pd.read_csv(tmp_path / "report" / "systems.csv")
    assert list(dict.fromkeys(table["system"]))[: len(SYSTEMS)] == list(SYSTEMS)
    assert {"no prompt", "random prompt", "majority"} <= set(table["system"]) <= {*SYSTEMS, *CONTROLS}
    assert set(table.loc[table["shots"].notna(), "seeds"]) == {3}
    assert (tmp_path / "report" / "systems" / "near.svg").stat().st_size > 1000
    page = written.page.read_text()
    assert "Systems on few rows" in page
    assert page.count("data:image/svg+xml") == 3  # two of them of what was tried
    assert written.missing == 0 and any("draws the labelled" in note for note in written.notes)


def test_the_long_table_calls_runs_by_their_systems(few):
    plan, store, _ = few
    results = make_tables(open_results(plan.graph, store))["results"]
    scores = results[(results["kind"] == "score") & (results["condition"] == "4 rows")]
    assert set(scores["method"]) == set(SYSTEMS) and len(scores) == len(SYSTEMS) * 2 * 3
    assert set(results.loc[results["condition"] == "own prompt", "target"]) == {"songs", "tunes", "couples"}


def test_a_part_of_a_study_has_the_table_of_that_part(few, tmp_path):
    plan, store, _ = few
    part = run_table(open_results(plan.graph, store))
    part = part[~((part["system"] == "mixed") & (part["seed"] == 2) & (part["target"] == "films"))]
    table = system_table(part).set_index(["system", "shots"])
    assert table.loc[("mixed", 4), "seeds"] == 2 and table.loc[("mean", 4), "seeds"] == 3


def test_without_the_first_system_nothing_is_held_against_another(few):
    plan, store, _ = few
    part = run_table(open_results(plan.graph, store))
    table = system_table(part[part["system"] != "tuned"]).set_index(["system", "shots"])
    assert pd.isna(table.loc[("mean", 4), "difference"]) and table.loc[("mean", 4), "mean"] > 0
    assert system_lines(table.reset_index()) == []
    assert target_table(part[part["system"] != "tuned"])["difference"].isna().all()


def test_the_shipped_study_has_equal_budgets_and_sources_for_some_targets_only():
    plan = make_plan(find_study("later-systems"))
    steps = {run.system: run.all_steps for run in plan.graph.runs}
    first = next(iter(steps))
    assert steps.pop("PANDA") == 120  # with the run that teaches it
    assert max(steps.values()) == steps[first] == 100
    related = {run.target: run.related for run in plan.graph.runs}
    assert related["microworld-sst2"] == 3 and related["microworld-justice"] == 0
    assert len({run.seed for run in plan.graph.runs}) == 5 and {run.shots for run in plan.graph.runs} == {
        16,
        64,
        256,
    }
