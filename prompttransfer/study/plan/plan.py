"""Plans: a study file, what was looked up for it (lookup.py), its graph of cells (graph.py), and where things are here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from prompttransfer.study.cell import Graph, Json
from prompttransfer.study.plan.graph import build_graph
from prompttransfer.study.plan.lookup import Facts, data_folder, gather_facts
from prompttransfer.study.plan.reading import StudyFile
from prompttransfer.study.plan.spec import Spec


@dataclass(frozen=True)
class Plan:
    """A study that is ready to run."""

    file: StudyFile
    facts: Facts
    graph: Graph
    local: Mapping[str, Json]
    """What this machine knows and no result depends on: where the data, the backbones and the tasks' files are."""

    @property
    def spec(self) -> Spec:
        """The study."""
        return self.file.spec

    @property
    def name(self) -> str:
        """The study's name; its folder is `runs/<name>` unless told."""
        return self.spec.study


def plan_study(file: str | Path, *, data: Path | None = None) -> Plan:
    """The plan of a study file, or of a shipped study by name, ready to run; `data` goes before the file's own folder.

    Raises UserError with all mistakes of the file, MachineError where a backbone or rows are out of reach.
    """
    from prompttransfer.study.plan.shipped import find_study

    study = find_study(str(file))
    if data is not None:
        study = replace(study, spec=study.spec.model_copy(update={"data": str(data.resolve())}))
    return make_plan(study)


def make_plan(study: StudyFile, *, guess: bool = False) -> Plan:
    """Look up what the study names and build its graph; `guess` lets widely known sizes stand in, for a cost only."""
    facts = gather_facts(study, guess=guess)
    return Plan(study, facts, build_graph(study.spec, facts), local_settings(study, facts))


def local_settings(study: StudyFile, facts: Facts) -> dict[str, Json]:
    """Where this machine finds what the cells name."""
    data = data_folder(study.spec, study.folder)
    files: dict[str, Json] = {
        task.task.name: str((study.folder / name).resolve())
        for backbone in facts.backbones.values()
        for name, task in backbone.all_tasks.items()
        if name.endswith((".yaml", ".yml"))
    }
    places: dict[str, Json] = {b.label: _absolute(b.place) for b in facts.backbones.values()}
    return {
        "data": str(data.resolve()) if data else None,
        "device": "auto",
        "backbones": places,
        "tasks": files,
    }


def _absolute(place: str) -> str:
    return str(Path(place).resolve()) if Path(place).is_dir() else place
