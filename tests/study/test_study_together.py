"""A study in several processes: the first orders and keeps, the others do the same and keep nothing."""

import pytest
from toy_kinds import NAME, cell, layers

from prompttransfer.cli.study_run import which_executor
from prompttransfer.distributed.placement import Placement
from prompttransfer.study.cell import Graph, Unit
from prompttransfer.study.engine.distributed_executor import Order, follow
from prompttransfer.study.engine.engine import run_study
from prompttransfer.study.engine.store import LocalStore, read_failures
from prompttransfer.study.engine.work import workplace_for
from tasks.errors import MachineError, UserError


class Group:
    """Processes of which the others answer what they are told to."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.said = []

    def gather(self, value):
        self.said.append(value)
        return [self.answers.pop(0) if self.answers else value]


def lead(graph, folder, group):
    store = LocalStore(folder)
    found = run_study(graph, store, kinds=NAME, say=lambda line: None, options={"processes": group})
    return found, store


def test_the_first_orders_every_unit_once_and_waits_for_the_others(tmp_path):
    graph, group = layers([2, 2]), Group()
    found, _ = lead(graph, tmp_path, group)
    assert found.complete
    orders, waits = group.said[::2], group.said[1::2]
    assert [order.unit.id for order in orders] == [unit.id for unit in graph]
    assert waits == [None] * len(orders)
    again = Group()
    assert lead(graph, tmp_path, again)[0].there == 4 and again.said == []


def test_a_fault_that_the_others_may_not_share_is_kept_and_ends_the_run(tmp_path):
    broken, fine = cell("broken", fault="error"), cell("fine")
    graph = Graph((Unit((broken,)), Unit((fine,))))
    with pytest.raises(MachineError, match=r"division by zero; .* the same command goes on with the other"):
        lead(graph, tmp_path, Group())
    assert "division by zero" in read_failures(LocalStore(tmp_path))[broken.id].line
    found, store = lead(graph, tmp_path, Group())
    assert store.has(fine.id) and [report.id for report in found.failed] == [broken.id]


def test_cells_that_fail_by_their_numbers_fail_everywhere_and_the_run_goes_on(tmp_path):
    parted, fine = cell("parted", part=True), cell("fine")
    found, store = lead(Graph((Unit((parted,)), Unit((fine,)))), tmp_path, Group())
    assert store.has(fine.id) and [report.id for report in found.failed] == [parted.id]


def test_the_others_make_the_unit_in_folders_of_their_own(tmp_path):
    log, kept = tmp_path / "log", tmp_path / "kept"
    kept.mkdir()
    (kept / "state").write_text("half done")
    store = LocalStore(tmp_path / "s")
    place = workplace_for(store, NAME, {"log": str(log)})
    units = [Unit((cell("one"),)), Unit((cell("two", part=True),)), Unit((cell("three"),))]
    group = Group(*(value for unit in units for value in (Order(unit, place, kept), None)), None)
    follow(group)
    assert log.read_text().split() == ["one", "two", "three"]
    assert not store.ids() and (kept / "state").read_text() == "half done"


def test_what_goes_wrong_in_another_process_ends_it(tmp_path, monkeypatch):
    monkeypatch.setattr("prompttransfer.study.engine.distributed_executor.PAUSE", 0)
    place = workplace_for(LocalStore(tmp_path), NAME, {})
    with pytest.raises(ZeroDivisionError):
        follow(Group(Order(Unit((cell("one", fault="error"),)), place, tmp_path / "none")))


@pytest.mark.parametrize("given", [("workers", 2, None), (None, 2, None), ("ray", None, None)])
def test_several_devices_a_unit_and_several_units_at_once_exclude_each_other(given):
    with pytest.raises(UserError, match="--devices 2 gives each unit several devices"):
        which_executor(*given, Placement(2))
    assert which_executor(None, None, None, Placement(2)) == "embedded"
