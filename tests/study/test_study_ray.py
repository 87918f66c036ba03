"""A real Ray cluster of three nodes on this machine: the same bits as here, also when a node or a worker is killed."""

import os
import socket
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from small_study import TEXT, write_study
from toy_kinds import NAME, cell, layers

from prompttransfer.study.cell import Graph, Unit
from prompttransfer.study.engine.engine import run_study
from prompttransfer.study.engine.executors import stopping, work_here
from prompttransfer.study.engine.ray_executor import RayExecutor
from prompttransfer.study.engine.store import LocalStore
from prompttransfer.study.engine.stores import open_store
from prompttransfer.study.engine.work import Workplace
from prompttransfer.study.plan.plan import make_plan
from prompttransfer.study.plan.reading import read_study
from prompttransfer.study.results.long_table import open_results
from prompttransfer.study.results.report import make_tables
from tasks.errors import MachineError, UserError

ray = pytest.importorskip("ray", reason="Ray is not installed")
Cluster = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed").Cluster
HERE, HOME = Path(__file__).parent, Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Three nodes of one CPU each, whatever the environment says; two such clusters at once do not meet.

    They need no shared memory. Workers find the kinds of the tests as they would find an installed package.
    """
    folder = tmp_path_factory.mktemp("ray")
    (folder / "token").write_text("a token of these tests, not that of the person\n")
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray-") as short:
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            patch.delenv(name)
        patch.setenv("RAY_TMPDIR", short)  # paths of sockets have to be short
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(folder / "token"))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        path = [str(HERE), str(HOME), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(path))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache of the workers"))
        nodes = started(folder)
        ray.init(address=nodes.address, log_to_driver=False)
        yield nodes
        ray.shutdown()
        nodes.shutdown()


def started(folder, tries=3):
    """Three nodes. Ray gives up on one whose helpers need more than 15 seconds, as on a busy machine: then all over again."""
    nodes = Cluster()
    try:
        for _ in range(3):
            nodes.add_node(
                num_cpus=1,
                object_store_memory=80 * 2**20,
                include_dashboard=False,
                plasma_directory=str(folder),
            )
    except Exception:
        nodes.shutdown()
        if tries == 1:
            raise
        return started(folder, tries - 1)
    return nodes


def wait_for(path, running):
    """The text of a file that appears while something runs."""
    end = time.monotonic() + 900
    while not path.exists():
        assert not running.done() and time.monotonic() < end, "no unit came to a node that is not the head"
        time.sleep(0.02)
    return path.read_text()


def run(graph, place, **options):
    said = []
    found = run_study(graph, open_store(place, new=True), kinds=NAME, say=said.append, **options)
    return found, said


def contents(place):
    store = open_store(place)
    return {name: store.record(name).digest for name in store.ids()}


def test_a_study_on_three_nodes_of_which_one_is_killed_has_the_same_tables(
    cluster, tmp_path, backbone_folder
):
    text = TEXT[: TEXT.index("transfers:")].replace("[near, far]", "[near]")
    text = text.replace("[films.yaml, songs.yaml, pairs.yaml]", "[films.yaml]")
    plan = make_plan(read_study(write_study(tmp_path, backbone_folder, text)))
    (tmp_path / "marks").mkdir()
    local = {
        **plan.local,
        "device": "cpu",
        "marks": str(tmp_path / "marks"),
        "head": cluster.head_node.node_id,
    }
    stores = {name: open_store(tmp_path / name, new=True) for name in ("ray", "here")}
    said = []

    def make(name, **options):
        return run_study(plan.graph, stores[name], local=local, say=said.append, **options)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(make, "ray", executor="ray", kinds="killed_kinds:KINDS")
        unit, node = wait_for(tmp_path / "marks" / "waiting", running).split()
        (killed,) = (one for one in cluster.worker_nodes if one.node_id == node)
        cluster.remove_node(killed, allow_graceful=False)
        found = [running.result(), make("here")]
    assert all(one.complete and one.made == len(plan.graph.cells) for one in found)
    lost = [line for line in said if line.startswith(f"killed: {plan.graph.by_id[unit].label}: ")]
    assert len(lost) == 1 and "its Ray worker was lost" in lost[0]
    assert len(cluster.worker_nodes) == 1
    tables = {name: make_tables(open_results(plan.graph, store)) for name, store in stores.items()}
    assert len(tables["here"]["results"]) > 10
    for name, table in tables["here"].items():
        assert tables["ray"][name].to_csv() == table.to_csv(), name


def test_a_worker_that_is_killed_is_said_and_its_unit_made_again(cluster, tmp_path):
    (tmp_path / "marks").mkdir()
    graph = layers([1, 1], fault="kill", once=True)
    found, said = run(graph, tmp_path / "ray", executor="ray", local={"marks": str(tmp_path / "marks")})
    assert found.complete and sum("its Ray worker was lost" in line for line in said) == 2
    run(graph, tmp_path / "here", local={"marks": str(tmp_path / "marks")})
    assert contents(tmp_path / "ray") == contents(tmp_path / "here")


def test_results_reach_a_url_from_ray_workers(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url = f"file://{tmp_path}/remote"
    found, _ = run(layers([2, 1]), url, executor="ray")
    assert found.complete
    run(layers([2, 1]), tmp_path / "here")
    assert contents(url) == contents(tmp_path / "here")


def test_a_unit_that_fails_on_ray_fails_alone(cluster, tmp_path):
    graph = Graph((Unit((cell("bad", fault="error"),)), Unit((cell("good"),))))
    found, _ = run(graph, tmp_path, executor="ray")
    assert (found.made, found.failed[0].label) == (1, "bad")
    assert "ZeroDivisionError" in found.failed[0].traceback


def test_an_address_where_nothing_answers_is_said_at_once():
    from prompttransfer.study.engine.ray_executor import check_reachable

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        check_reachable(f"127.0.0.1:{port}")
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(MachineError, match=f"nothing answers at {address}"):
            check_reachable(address)
    for left_to_ray in (None, "auto", "local"):
        check_reachable(left_to_ray)


def test_what_no_machine_of_the_cluster_has_is_said():
    from prompttransfer.study.engine.ray_executor import resources, unmet

    nodes = [
        {"Alive": True, "Resources": {"CPU": 2.0}},
        {"Alive": False, "Resources": {"CPU": 8.0, "GPU": 8.0}},
    ]
    assert unmet(resources({}), nodes) is None
    assert unmet(resources({"gpu": 1}), nodes) == "1 CPU, 1 GPU"
    assert resources({"gpu": 0.5, "tpu": 1}) == {"num_cpus": 1, "num_gpus": 0.5, "resources": {"tpu": 1}}


def test_the_place_of_a_study_means_the_same_on_every_machine(tmp_path, monkeypatch):
    from prompttransfer.study.engine.ray_executor import shared
    from prompttransfer.study.engine.work import Workplace

    monkeypatch.chdir(tmp_path)
    assert shared(Workplace("study", NAME)).place == str(LocalStore(tmp_path / "study").root)
    assert shared(Workplace("s3://bucket/study", NAME)).place == "s3://bucket/study"


@pytest.mark.parametrize(
    ("place", "kind", "said"),
    [("file/study", MachineError, "cannot write "), ("nothing://study", UserError, "cannot be opened")],
)
def test_what_a_worker_cannot_report_is_the_line_that_it_is_without_ray(cluster, tmp_path, place, kind, said):
    (tmp_path / "file").write_text("no folder")
    where = place if "://" in place else str(tmp_path / place)
    (unit,) = layers([1])
    workplace = Workplace(where, NAME, {}, None)
    with stopping(RayExecutor(workplace, print)) as executor:
        executor.submit(unit)
        with pytest.raises(kind, match=said) as caught:
            executor.outcomes()
    assert "\n" not in str(caught.value)
    with pytest.raises(kind) as here:
        work_here(unit, workplace)
    assert str(caught.value) == str(here.value)
