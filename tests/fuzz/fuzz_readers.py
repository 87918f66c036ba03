"""Every reader of a file from outside, as a valid file, how to spoil it, and what reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mutants import (
    Mutate,
    bytes_mutants,
    header_mutants,
    json_mutants,
    npy_mutants,
    text_mutants,
    yaml_mutants,
)
from safetensors.torch import save_file

from analysis.figures import masking_curves
from analysis.neurons import overlaps, pack
from projectors.architectures import Architecture, Shape, build
from projectors.artifacts import load_projector, save_projector
from projectors.fitting import Curve, FitSettings, keep
from projectors.fitting import resume as resume_fit
from projectors.projector import Projector, Side
from prompttransfer.adaptations.adaptation import Adaptation, CurvePoint
from prompttransfer.adaptations.artifacts import load_adaptation, save_adaptation
from prompttransfer.adaptations.exchange import read_foreign
from prompttransfer.adaptations.methods.prompt import VectorMember
from prompttransfer.adaptations.prompts import soft_prompt
from prompttransfer.cli.exchange import local_config
from prompttransfer.cli.tables import parse_types, read_long_table, read_prompts
from prompttransfer.neurons.states import Captured, load_states, save_states
from prompttransfer.reports.calls import Call, note_call, read_calls
from prompttransfer.reports.commands import commands
from prompttransfer.reports.page import (
    cross_model,
    facts,
    make_views,
    merge_seeds,
    of_the_matrix,
    row_labels,
    types_of,
    without_prefix,
)
from prompttransfer.reports.pictures import curve_table
from prompttransfer.reports.run_folder import RunFolder, read_square, read_transfer
from prompttransfer.study.cell import Cell, Graph, Unit
from prompttransfer.study.engine.records import FORMAT, FailureRecord, make_record
from prompttransfer.study.engine.store import LocalStore, read_graph, write_failure, write_graph
from prompttransfer.study.plan.reading import read_study
from prompttransfer.study.results.explain import explain_cell
from prompttransfer.study.results.long_table import long_table, open_results
from prompttransfer.study.results.status import read_status
from prompttransfer.study.results.tracking import points_of
from prompttransfer.training.state import MemberState, read_state, write_state
from tasks.custom import read_task_file
from tasks.folder import read_folder
from tasks.task import Task


@dataclass(frozen=True)
class Reader:
    """`make(folder)` writes a valid file into a new folder and returns it; `read(file)` is what people run on it."""

    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    mutate: Mutate


def written(path: Path, text: str | bytes) -> Path:
    """The file, with its folders made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# Tasks and rows ---------------------------------------------------------------------------------------------------

TASK = """name: mine
type: sentiment
kind: sentence
metric: accuracy
words:
  bad: [terrible, awful]
  good: [great, fine]
folder: rows
aspect: false
columns: {text: review, label: verdict}
note: what a reader should know
"""
HUB_TASK = """name: mine
type: sentiment
kind: sentence
words: {masked-lm: {bad: terrible, good: great}, t5: {bad: bad, good: good}}
hub: {repo: a/b, config: c, train: train, test: validation, columns: {text: a.b}, labels: {0: bad, 1: good, -1: null}}
"""
ROWS_TASK = Task("mine", "sentiment", "sentence", labels=("bad", "good"),
                 words={family: {"bad": ("terrible",), "good": ("great",)} for family in ("masked-lm", "t5")})  # fmt: skip
ROW = {"text": "the film was dull", "label": "bad"}


def rows(folder: Path) -> Path:
    lines = "\n".join(json.dumps(ROW) for _ in range(3)) + "\n"
    written(folder / "validation.jsonl", lines)
    return written(folder / "train.jsonl", lines)


def row_mutants(content: bytes, draw: Any) -> bytes:
    """One line spoilt as JSON, the others whole."""
    lines = content.splitlines()
    lines[1] = json_mutants(lines[1], draw)
    return b"\n".join(lines)


# Studies ----------------------------------------------------------------------------------------------------------

STUDY = """study: small
about: what it is for
backbones: [microworld-roberta, {name: microworld-roberta-wide, recipe: {lr: 0.01}, label-words: {negative: awful}}]
tasks: [microworld-imdb, microworld-mnli]
seeds: [0, 1]
recipe: {steps: 4, batch: 4, length: 3, evaluate-every: 2}
limit-test: 12
transfers:
  zero-shot: true
  initialisation: {sources: all, steps: 2, evaluate-every: 1}
projectors:
  - {source: microworld-roberta, target: microworld-roberta-wide, fitting: [microworld-imdb], unseen: [microworld-mnli], steps: 3}
indicators: {similarity: [C_average], neurons: [ON]}
report: {title: A small study}
"""
SIDE = {"name": "tiny", "revision": "sha256:1", "precision": "fp32"}


def study_graph() -> Graph:
    """A prompt, its score, the references of its target."""
    common = {"backbone": SIDE, "task": "sst2", "metric": "accuracy"}
    prompt = Cell("prompt", "sst2, seed 0", {**common, "seed": 0}, {}, 1)
    score = Cell("score", "sst2 on sst2", common, {"prompt": prompt.id}, 1)
    references = Cell(
        "score", "references", {**common, "type": "sentiment", "references": 0}, {"0": prompt.id}, 1
    )
    return Graph((Unit((prompt,)), Unit((score, references), {"gpu": 1.0})))


def committed(store: LocalStore, cell: Cell, fill: Callable[[Path], object]) -> None:
    folder = store.root / "scratch" / cell.id
    folder.mkdir(parents=True)
    fill(folder)
    store.commit(folder, make_record(cell, folder, started="2026-01-01", seconds=1.0, unit_cells=1, cost={"steps": 2}, commit=None))  # fmt: skip


SCORE = {"task": "sst2", "metric": "accuracy", "rows": 12, "value": 0.75, "chance": 0.5, "prompt": "sst2",
         "prompt_task": "sst2", "seed": 0}  # fmt: skip
REFERENCES = {"task": "sst2", "metric": "accuracy", "rows": 12,
              "references": {"no prompt": 0.5, "random prompt": 0.5, "majority": 0.5}}  # fmt: skip


def study(folder: Path, score: bytes | None = None) -> LocalStore:
    """A finished study of three cells and a failure, whole also where `score.json` was spoilt before it was kept."""
    store, graph = LocalStore(folder), study_graph()
    prompt, one, references = graph.cells.values()
    write_graph(store, graph)
    committed(store, prompt, lambda place: save_adaptation(a_prompt(), place / "prompt"))
    committed(store, one, lambda place: written(place / "score.json", score or json.dumps(SCORE)))
    committed(store, references, lambda place: written(place / "score.json", json.dumps(REFERENCES)))
    write_failure(store, FailureRecord(format=FORMAT, id=references.id, kind="score", label="references", cause="machine",
                                       line="disk full", traceback="", when="2026-01-01"))  # fmt: skip
    return store


def look_at_study(store: LocalStore) -> None:
    """What status, explain and report do."""
    read_status(store)
    graph = read_graph(store)
    for name in graph.cells:
        explain_cell(store, name).as_json()
    long_table(open_results(graph, store))


def look_at_score(path: Path) -> None:
    """A cell whose bits are as they were written, and whose file says something else."""
    store = study(path.parent / "study", path.read_bytes())
    for name in store.ids():
        points_of(store.record(name), store.folder(name))
    look_at_study(store)


# Runs -------------------------------------------------------------------------------------------------------------

SETTINGS = {"optimizer": "adamw", "lr": 0.03, "weight_decay": 0.0, "steps": 40, "batch": 8, "length": 5,
            "evaluate_every": 20, "patience": 0, "precision": "float32", "max_length": None, "bank": 8,
            "aggregation": None, "source": "measured"}  # fmt: skip


def vectors(seed: int = 0) -> torch.Tensor:
    return torch.randn(5, 16, generator=torch.Generator().manual_seed(seed))


def a_prompt(task: str = "sst2", **fields: Any) -> Adaptation:
    points = (CurvePoint(0, None, 0.5, 0.7), CurvePoint(20, 1.0, 0.8, 0.5))
    scores = {
        "validation": {"accuracy": 0.8, "step": 20},
        "test": {"accuracy": 0.75, "chance": 0.5, "rows": 12},
    }
    return soft_prompt(vectors(), task=task, backbone="tiny", seed=0, start="random", initial=vectors(1), recipe=SETTINGS,
                  curve=points, words={"bad": "terrible"}, data={"source": "rows", "revision": "r", "train": 8}, scores=scores, **fields)  # fmt: skip


TRANSFER = {
    "backbone": "tiny", "revision": "sha256:1", "types": {"sst2": "sentiment", "imdb": "sentiment"}, "split": "test",
    "data": {"sst2": {"source": "rows", "revision": "r"}, "imdb": {"source": "rows", "revision": "r"}},
    "raw": {"meaning": "raw", "sources": ["sst2", "imdb-s1", "no prompt"], "source_tasks": ["sst2", "imdb", "no prompt"],
            "targets": ["sst2", "imdb"], "metrics": ["accuracy", "accuracy"], "rows": [12, 12], "impossible": {},
            "values": [[0.9, 0.8], [0.7, None], [0.5, 0.5]]},
    "tuned": [{"source": "sst2", "target": "imdb", "seed": 0, "step0_validation": 0.5, "test_from_source": 0.7,
               "test_from_scratch": 0.6, "convergence_speedup": 1.5, "comparable_speedup": None}],
    "versions": {"torch": "2"},
}  # fmt: skip


def prompt_file(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        save_adaptation(a_prompt(), folder / "sst2")
        written(folder / "transfer.json", json.dumps(TRANSFER))
        return folder / "sst2" / name

    return make


def look_at_run(path: Path) -> None:
    """What `report` does with a matrix and its prompts, without drawing."""
    root = path.parent if path.name.startswith("transfer") else path.parent.parent
    folder = RunFolder(
        root, next(root.glob("transfer.*")), tuple(p.parent for p in root.glob("*/adaptation.json"))
    )
    full = read_transfer(folder.matrix)
    every = {place: load_adaptation(place) for place in folder.prompts}
    folder, prompts = of_the_matrix(folder, full, every)
    record = without_prefix(full, "s")
    labels = row_labels(record)
    raw, _, _ = merge_seeds(record, labels)
    make_views(record, raw, labels)
    types_of(full, "s")
    facts(folder, record, prompts)
    commands(folder, full, every, Call(verb="report"), [])
    curve_table(prompts)


def look_at_prompt(path: Path) -> None:
    """A prompt alone, then in a report, then beside others."""
    save_adaptation(load_adaptation(path.parent), path.parent.parent.parent / "again" / "sst2")
    look_at_run(path)
    read_prompts([path.parent])


def table(folder: Path) -> Path:
    alike = pd.DataFrame([[1, 0.9], [0.9, 1]], index=["sst2", "imdb"], columns=["sst2", "imdb"])
    return written(folder / "transfer.csv", alike.to_csv())


def masking(folder: Path) -> Path:
    return written(
        folder / "masking.csv",
        "share,kind,draw,score\n0,specific,0,1\n0.5,specific,0,0.4\n0.5,random,0,0.6\n",
    )


def draw_masking(path: Path) -> None:
    import matplotlib.pyplot as plt

    masking_curves(read_long_table(path))
    plt.close("all")


# Projectors, states -----------------------------------------------------------------------------------------------


def projector_file(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        side = Side("tiny", "sha256:1", "masked-lm", "prompt-first", 5, 16)
        architecture = Architecture("linear", standardise=True)
        scores = {"fitted": {"projected": {"mean": 0.7, "spread": 0.1, "seeds": 2, "tasks": 1}}}
        made = Projector(build(architecture, Shape(5, 16, 5, 16)), side, side, "distance", architecture,
                         settings={"steps": 3, "lr": 0.1}, tasks=("sst2",), curve=(1.0, 0.5), scores=scores,
                         sensitivity={"own": 0.5}, collapsed=False, verdict="fine")  # fmt: skip
        save_projector(made, folder / "p")
        return folder / "p" / name

    return make


def look_at_projector(path: Path) -> None:
    load_projector(path.parent)
    cross_model(RunFolder(path.parent, path, projectors=(path.parent,)), [])


def optimiser() -> torch.optim.Optimizer:
    """Two prompts, one step."""
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.nn.Parameter(torch.randn(5, 16, generator=generator)) for _ in range(2)]
    made = torch.optim.AdamW([{"params": [prompt]} for prompt in prompts], lr=0.1)
    sum(prompt.sum() for prompt in prompts).backward()  # type: ignore[union-attr]
    made.step()
    return made


def training_state(folder: Path) -> Path:
    states = [MemberState({"prompt": vectors(i)}, 2, 0, 4, None, [CurvePoint(0, None, 0.5), CurvePoint(2, float("nan"), 0.6, 0.4)]) for i in range(2)]  # fmt: skip
    path = folder / ".training-0.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    write_state(path, states, [VectorMember(vectors(i)) for i in (2, 3)], optimiser(), 4)
    return path


def resume_training(path: Path) -> None:
    made = optimiser()
    members = [VectorMember(vectors(i)) for i in range(2)]
    _, found, state, _ = read_state(path, members, made)
    made.load_state_dict(state)
    for member, values in zip(members, found, strict=True):
        member.load_state_dict(values)
    made.step()


FIT = FitSettings(steps=5)


def fit_state(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    module = torch.nn.Linear(3, 2)
    made = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    made.step()
    keep(folder / "fit.safetensors", module, made, Curve([1.0, 0.5]), FIT)
    return folder / "fit.safetensors"


def go_on_fitting(path: Path) -> None:
    module = torch.nn.Linear(3, 2)
    made = torch.optim.AdamW(module.parameters())
    curve = resume_fit(path, module, made, FIT)
    module(torch.ones(1, 3)).sum().backward()
    made.step()
    assert len(curve.losses) <= FIT.steps


def neuron_states(folder: Path) -> Path:
    active = np.random.default_rng(0).random((3, 2, 40)) > 0.5
    return save_states(
        Captured(pack(active, ("a", "b", "c"), "tiny"), ("sst2", "imdb", "mnli"), "x"),
        folder / "s.safetensors",
    )


def overlap(path: Path) -> None:
    overlaps(load_states(path).states, {"all": slice(None), "0": slice(0, 1)}, "ON")


# Prompts of other systems -----------------------------------------------------------------------------------------


def foreign(name: str, save: Callable[[Path], object]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        save(folder / name)
        return folder / name

    return make


def old_pickle(path: Path) -> None:
    torch.save(
        {"model": vectors(), "trained_epoch": 3, "global_step": 7}, path, _use_new_zipfile_serialization=False
    )


def peft_file(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        config = {"peft_type": "PROMPT_TUNING", "task_type": "SEQ_2_SEQ_LM", "base_model_name_or_path": "t5-small",
                  "num_virtual_tokens": 5, "token_dim": 16, "num_transformer_submodules": 1}  # fmt: skip
        written(folder / "adapter_config.json", json.dumps(config))
        save_file({"prompt_embeddings": vectors()}, folder / "adapter_model.safetensors")
        return folder / name

    return make


def backbone_config(folder: Path) -> Path:
    return written(
        folder / "config.json", json.dumps({"model_type": "roberta", "hidden_size": 16, "vocab_size": 9})
    )


def calls(folder: Path) -> Path:
    """The record of the commands that wrote the files of a folder."""
    path = written(folder / "transfer.json", "{}")
    note_call([path], Call(verb="transfer", options={"to": ["sst2"], "tune": True}).model_dump())
    return folder / "commands.json"


TYPES = "sst2=sentiment\nimdb,sentiment\n\nmnli=nli\n"

READERS: dict[str, Reader] = {
    "task file": Reader(lambda f: written(f / "task.yaml", TASK), read_task_file, yaml_mutants),
    "task file of the hub": Reader(lambda f: written(f / "task.yaml", HUB_TASK), read_task_file, yaml_mutants),
    "rows": Reader(rows, lambda p: read_folder(ROWS_TASK, p.parent), row_mutants),
    "rows, any bytes": Reader(rows, lambda p: read_folder(ROWS_TASK, p.parent), bytes_mutants),
    "study file": Reader(lambda f: written(f / "study.yaml", STUDY), read_study, yaml_mutants),
    "plan.json": Reader(lambda f: study(f).root / "plan.json", lambda p: look_at_study(LocalStore(p.parent)), json_mutants),
    "cell.json": Reader(
        lambda f: study(f).path(next(iter(study_graph().cells))) / "cell.json",
        lambda p: look_at_study(LocalStore(p.parents[3])), json_mutants,
    ),
    "failure": Reader(
        lambda f: next((study(f).root / "failures").iterdir()), lambda p: look_at_study(LocalStore(p.parents[1])), json_mutants
    ),
    "score.json": Reader(lambda f: written(f / "score.json", json.dumps(SCORE)), look_at_score, json_mutants),
    "adaptation.json": Reader(prompt_file("adaptation.json"), look_at_prompt, json_mutants),
    "prompt vectors": Reader(prompt_file("adapter_model.safetensors"), look_at_prompt, header_mutants),
    "prompt start": Reader(prompt_file("initial.safetensors"), look_at_prompt, header_mutants),
    "transfer.json": Reader(lambda f: written(f / "transfer.json", json.dumps(TRANSFER)), look_at_run, json_mutants),
    "commands.json": Reader(calls, lambda p: read_calls(p.parent), json_mutants),
    "transfer.csv": Reader(table, look_at_run, text_mutants),
    "indicator": Reader(table, read_square, text_mutants),
    "masking": Reader(masking, draw_masking, text_mutants),
    "types": Reader(lambda f: written(f / "types.txt", TYPES), lambda p: parse_types([str(p)]), text_mutants),
    "projector.json": Reader(projector_file("projector.json"), look_at_projector, json_mutants),
    "projector weights": Reader(projector_file("projector.safetensors"), look_at_projector, header_mutants),
    "training state": Reader(training_state, resume_training, header_mutants),
    "state of a fit": Reader(fit_state, go_on_fitting, header_mutants),
    "neuron states": Reader(neuron_states, overlap, header_mutants),
    "npy": Reader(foreign("a.npy", lambda p: np.save(p, vectors().numpy())), read_foreign, npy_mutants),
    "safetensors": Reader(foreign("a.safetensors", lambda p: save_file({"a": vectors()}, p)), read_foreign, header_mutants),
    "prompts of a file": Reader(
        foreign("a.safetensors", lambda p: save_file({"a": vectors(), "b": vectors(1)}, p)), lambda p: read_prompts([p]), header_mutants
    ),
    "torch": Reader(foreign("a.pt", lambda p: torch.save({"a": vectors()}, p)), read_foreign, bytes_mutants),
    "old pickle": Reader(foreign("a.pkl", old_pickle), read_foreign, bytes_mutants),
    "peft configuration": Reader(peft_file("adapter_config.json"), lambda p: read_foreign(p.parent), json_mutants),
    "peft weights": Reader(peft_file("adapter_model.safetensors"), lambda p: read_foreign(p.parent), header_mutants),
    "backbone configuration": Reader(backbone_config, lambda p: local_config(str(p.parent)), json_mutants),
}  # fmt: skip
"""Name -> reader."""
