"""Every shipped study, really run: a reduced copy of each on tiny models, from plan to report, with no cell failing."""

from dataclasses import replace

import pytest
from reduced_study import reduced

from prompttransfer.study.engine.engine import run_study
from prompttransfer.study.engine.stores import open_store
from prompttransfer.study.plan.plan import make_plan
from prompttransfer.study.plan.shipped import find_study, shipped_studies
from prompttransfer.study.results.report import write_study_report

OF_THE_WORLD = {
    "movie_rationales": "rotten-tomatoes",
    "tweeteval_sentiment": "tweet",
    "ethics_deontology": "deontology",
    "ethics_justice": "justice",
}
KEPT = {
    "su2022": ("imdb", "movie_rationales", "laptop", "mnli", "squad"),
    "real-smollm2": ("sst2", "tweeteval_sentiment", "snli", "ethics_justice"),
    "demo": tuple(f"microworld-{name}" for name in ("imdb", "restaurant", "mnli")),
    "methods": ("microworld-imdb", "microworld-mnli"),
    "later-systems": tuple(f"microworld-{name}" for name in ("sst2", "mnli", "imdb", "snli", "mrpc")),
}
"""Tasks of the copies; those that are not here keep all of theirs."""
MANY_PAGES = ("methods",)
"""Studies of so many pages, one a method and backbone, that those of the first backbone are written."""


def in_the_world(task):
    """The embedded task that mirrors one of the paper's."""
    if task.startswith("microworld-"):
        return task
    return f"microworld-{OF_THE_WORLD.get(task, task.replace('_', '-'))}"


@pytest.fixture
def stand_ins(backbone_folder):
    """Backbone of a shipped study -> a tiny one."""
    roberta, wide, t5 = (
        str(backbone_folder(*given)) for given in (("roberta", 16), ("roberta", 24), ("t5", 16))
    )
    return {
        "microworld-roberta": roberta,
        "microworld-roberta-wide": wide,
        "roberta-base": roberta,
        "t5-base": t5,
        "smollm2-135m": str(backbone_folder("llama")),
    }


def test_all_shipped_studies_are_tested():
    assert set(shipped_studies()) == {
        "demo",
        "later-systems",
        "methods",
        "real-smollm2",
        "su2022",
        "su2022-small",
    }


@pytest.mark.parametrize("name", sorted(shipped_studies()))
def test_a_reduced_copy_runs_from_plan_to_report(name, stand_ins, tmp_path):
    study = reduced(name, backbones=stand_ins, rename_task=in_the_world, keep=KEPT.get(name))
    plan = make_plan(study)
    store = open_store(tmp_path, new=True)
    summary = run_study(plan.graph, store, local={**plan.local, "device": "cpu"}, say=lambda line: None)
    assert [failure.line for failure in summary.failed] == []
    assert summary.complete
    if name in MANY_PAGES:
        plan = make_plan(
            replace(study, spec=study.spec.model_copy(update={"backbones": study.spec.backbones[:1]}))
        )
    written = write_study_report(plan.graph, store, tmp_path)
    assert written.missing == 0 and written.page.exists()
    assert len(written.tables["results"]["cell"].unique()) > len(plan.graph.cells) / 2


@pytest.mark.parametrize("name", sorted(shipped_studies()))
def test_a_reduced_copy_has_the_parts_of_the_study(name, stand_ins):
    whole = find_study(name).spec
    copy = reduced(name, backbones=stand_ins, rename_task=in_the_world, keep=KEPT.get(name)).spec
    assert len(copy.backbones) == len(whole.backbones)
    assert [p.method for p in copy.projectors] == [p.method for p in whole.projectors]
    assert (copy.transfers.initialisation is None) == (whole.transfers.initialisation is None)
    assert copy.indicators.similarity == whole.indicators.similarity
    assert [m.name for m in copy.methods] == [m.name for m in whole.methods]
    assert copy.transfers.random_draws == whole.transfers.random_draws
    assert (copy.layout, copy.precision) == (whole.layout, whole.precision)


def test_su2022_small_and_later_systems_have_every_kind_of_cell():
    from prompttransfer.study.kinds import KINDS

    plans = [make_plan(find_study(name)) for name in ("su2022-small", "later-systems")]
    assert {cell.kind for plan in plans for cell in plan.graph.cells.values()} == set(KINDS)
