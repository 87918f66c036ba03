"""A real local Ray cluster of two CPUs: the same bits as here, also when a worker is killed in the middle."""

import os
from pathlib import Path

import pytest
from toy_kinds import NAME, cell, layers

from prompttransfer.study.cell import Graph, Unit
from prompttransfer.study.engine import run_study
from prompttransfer.study.store import LocalStore, open_store

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
HERE, HOME = Path(__file__).parent, Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Workers of the cluster find the toy kinds as they would find an installed package."""
    environment = {
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HOME)]),
        "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache of the workers")),
    }
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=80 * 2**20,
        runtime_env={"env_vars": environment},
    )
    yield
    ray.shutdown()


def run(graph, place, **options):
    said = []
    found = run_study(graph, open_store(place, new=True), kinds=NAME, say=said.append, **options)
    return found, said


def contents(place):
    store = open_store(place)
    return {name: store.record(name).digest for name in store.ids()}


def test_a_ray_cluster_makes_the_same_bits_with_a_worker_killed_in_the_middle(cluster, tmp_path):
    (tmp_path / "marks").mkdir()
    local = {"marks": str(tmp_path / "marks")}
    kills = cell("kills", fault="kill", once=True)
    graph = Graph((*layers([2, 2]), Unit((kills,)), Unit((cell("below", [kills]),))))
    found, said = run(graph, tmp_path / "ray", local=local, executor="ray")
    assert found.complete and found.made == 6
    assert any(line.startswith("killed: kills: its Ray worker was lost") for line in said)
    (tmp_path / "marks" / kills.id).touch()  # the fault was ordered once
    run(graph, tmp_path / "here", local=local)
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


def test_what_no_machine_of_the_cluster_has_is_said():
    from prompttransfer.study.ray_executor import resources, unmet

    nodes = [
        {"Alive": True, "Resources": {"CPU": 2.0}},
        {"Alive": False, "Resources": {"CPU": 8.0, "GPU": 8.0}},
    ]
    assert unmet(resources({}), nodes) is None
    assert unmet(resources({"gpu": 1}), nodes) == "1 CPU, 1 GPU"
    assert resources({"gpu": 0.5, "tpu": 1}) == {"num_cpus": 1, "num_gpus": 0.5, "resources": {"tpu": 1}}


def test_the_place_of_a_study_means_the_same_on_every_machine(tmp_path, monkeypatch):
    from prompttransfer.study.ray_executor import shared
    from prompttransfer.study.work import Workplace

    monkeypatch.chdir(tmp_path)
    assert shared(Workplace("study", NAME)).place == str(LocalStore(tmp_path / "study").root)
    assert shared(Workplace("s3://bucket/study", NAME)).place == "s3://bucket/study"
