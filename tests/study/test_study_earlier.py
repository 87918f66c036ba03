"""What was finished under earlier revisions of a backbone is recognised, or it is said what changed."""

import json
import shutil
from dataclasses import replace

import pytest
from small_study import write_study

from prompttransfer.backbones.revisions import weights_alone
from prompttransfer.study.engine.earlier import over_finished
from prompttransfer.study.engine.store import write_graph
from prompttransfer.study.plan.graph import build_graph
from prompttransfer.study.plan.lookup import Facts
from prompttransfer.study.plan.plan import plan_study


class Finished:
    """A store in which all cells of a graph are finished."""

    place = "a store"

    def __init__(self, graph):
        self.texts, self.cells = {}, set(graph.cells)
        write_graph(self, graph)

    def write_text(self, name, text):
        self.texts[name] = text

    def read_text(self, name):
        return self.texts.get(name)

    def ids(self):
        return self.cells


@pytest.fixture
def study(tmp_path, backbone_folder):
    """A study's file, whose backbones are folders of its own."""
    path = write_study(tmp_path / "study", backbone_folder)
    for name in ("near", "far"):
        original = (path.parent / name).resolve()
        (path.parent / name).unlink()
        shutil.copytree(original, path.parent / name)
    return path


def as_of_old(plan):
    """The plan as versions up to 0.1 made it: backbones named by their weights alone."""
    old = {n: replace(b, revision=weights_alone(b.revision)) for n, b in plan.facts.backbones.items()}
    return build_graph(plan.spec, Facts(old))


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_cells_named_by_the_weights_alone_are_taken_and_it_is_said(study):
    plan = plan_study(study)
    finished = Finished(as_of_old(plan))
    found, notes = over_finished(plan, finished)
    assert found.graph.cells.keys() == finished.cells and not plan.graph.cells.keys() & finished.cells
    assert len(notes) == 2 and "name it by its weights alone" in notes[0]
    assert over_finished(plan, Finished(plan.graph)) == (plan, [])


def test_cells_whose_texts_were_read_in_other_tokens_are_made_again(study):
    change(study.parent / "near" / "tokenizer_config.json", tokenizer_class="RobertaTokenizer")
    plan = plan_study(study)
    finished = Finished(as_of_old(plan))
    found, notes = over_finished(plan, finished)
    assert any(
        n.startswith("backbone near: versions up to 0.1 read its texts in other tokens") for n in notes
    )
    near = {name for name, cell in found.graph.cells.items() if "on near" in cell.label}
    assert near and not near & finished.cells


def test_a_changed_configuration_or_tokenizer_is_said(study):
    before = plan_study(study)
    change(study.parent / "near" / "config.json", hidden_act="relu")
    change(study.parent / "near" / "tokenizer.json", normalizer={"type": "Lowercase"})
    after = plan_study(study)
    found, notes = over_finished(after, Finished(before.graph))
    assert found == after
    assert [note.split(" (")[0] for note in notes] == [
        "backbone near: its configuration and tokenizer changed"
    ]
