"""From prompts and backbones to a fitted projector and the table with its controls."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import WORDS, examples, prompt, task, tiny_backbone

from projectors.architectures import Architecture, Shape
from projectors.fitting import FitSettings
from projectors.lessons import group_by_task, lesson, pairs_of, untrained_of, words_between
from projectors.methods import METHODS, FitPlan, Material
from projectors.projector import Projector, side_of_backbone
from projectors.report import (
    FITTED,
    OTHER_TYPE,
    SAME_TYPE,
    Bench,
    ConditionScore,
    judge,
    measure,
    summarise,
)
from prompttransfer.backbones.layouts import USUAL, find_layout
from prompttransfer.evaluation.encoding import encode_task
from tasks.errors import UserError

SOURCE, TARGET = tiny_backbone(16, 0, "small"), tiny_backbone(24, 1, "wide")
LAYOUT = find_layout("prompt-first")
TYPES = {"film": "sentiment", "food": "sentiment", "plot": "sentiment", "taste": "ethics"}
FITTING = ("film", "food")


def prompts(backbone, seeds=(0, 1)):  # type: ignore[no-untyped-def]
    return group_by_task([prompt(backbone, name, seed) for name in TYPES for seed in seeds])


def material() -> Material:
    source, target = prompts(SOURCE), prompts(TARGET)
    lessons = [
        lesson(TARGET, task(name), examples(name), source[name], encoding=USUAL, length=4) for name in FITTING
    ]
    pairs = pairs_of(FITTING, source, target)
    return Material(Shape(4, 16, 4, 24), pairs, lessons, untrained_of(FITTING, target))


def bench() -> Bench:
    encoded = {
        name: encode_task(TARGET, task(name, kind), examples(name), reserved=4)
        for name, kind in TYPES.items()
    }
    return Bench(TARGET, encoded, FITTING, prompts(SOURCE), prompts(TARGET))


def projector(method: str = "task", steps: int = 60) -> Projector:
    settings = FitSettings(steps=steps, lr=1e-2)
    made = METHODS[method](
        material(), FitPlan(Architecture("mlp", hidden=16), distance=settings, task=settings)
    )
    sides = [side_of_backbone(b, length=4, layout="prompt-first") for b in (SOURCE, TARGET)]
    return Projector(made.module, *sides, method, made.architecture, made.settings, FITTING, curve=made.curve)


def test_task_tuning_lowers_the_targets_loss_and_leaves_the_target_alone() -> None:
    before = TARGET.digest()
    curve = projector("task", steps=120).curve
    assert sum(curve[-10:]) < 0.9 * sum(curve[:10])
    assert TARGET.digest() == before
    assert all(p.grad is None for p in TARGET.model.parameters())


def test_a_linear_map_can_start_from_shared_words_without_a_bias() -> None:
    data = replace(material(), shared=words_between(SOURCE, TARGET))
    settings = FitSettings(steps=1, lr=1e-9)
    plan = FitPlan(Architecture("linear", bias=False), settings, settings, start="vocabulary")
    started = METHODS["task"](data, plan)
    words = METHODS["vocabulary"](data, plan)
    source = torch.randn(2, 4, 16)
    assert torch.allclose(started.module(source), words.module(source), atol=1e-5)
    assert torch.equal(started.module(torch.zeros(4, 16)), torch.zeros(4, 24))
    with pytest.raises(UserError, match="only a per-token map can start from shared words, given mlp"):
        METHODS["task"](data, replace(plan, architecture=Architecture("mlp")))


def test_distance_then_task_has_the_curve_of_both() -> None:
    assert len(projector("distance+task", steps=7).curve) == 14


def test_pairs_join_equal_seeds() -> None:
    source, target = prompts(SOURCE, (0, 1, 5)), prompts(TARGET, (0, 1))
    pairs = pairs_of(("film",), source, target)
    joined = [
        (i, j)
        for pair in pairs
        for i, s in enumerate(source["film"])
        for j, t in enumerate(target["film"])
        if torch.equal(pair.source, s.vectors) and torch.equal(pair.target, t.vectors)
    ]
    assert joined == [(0, 0), (1, 1), (2, 0), (2, 1)]


def test_a_fitting_task_without_prompts_is_named() -> None:
    with pytest.raises(UserError, match=r"no target prompt for fitting task plot.*prompts for film, food"):
        pairs_of(("film", "plot"), prompts(SOURCE), {name: prompts(TARGET)[name] for name in FITTING})


def test_starts_are_counted_once() -> None:
    starts = untrained_of(FITTING, prompts(TARGET))
    assert starts is not None and starts.shape == (1, 4, 24)


def test_shared_words_leave_special_tokens_out() -> None:
    assert set(words_between(SOURCE, TARGET).words) == set(WORDS)


def test_the_report_has_every_control_in_every_group() -> None:
    made = projector()
    data = material()
    cells = measure(bench(), [made], data.pairs, [torch.zeros(4, 24)], draws=2)
    table = summarise(cells)
    assert list(table) == [FITTED, SAME_TYPE, OTHER_TYPE]
    everything = {
        "own prompt",
        "projected",
        "random source",
        "mean constant",
        "tuned constant",
        "same type in target",
        "random prompt",
        "no prompt",
        "majority",
    }
    assert set(table[FITTED]) == set(table[SAME_TYPE]) == everything
    assert set(table[OTHER_TYPE]) == everything - {"same type in target"}
    assert table[FITTED]["majority"].mean == 0.5 and table[FITTED]["projected"].tasks == 2


def test_a_task_tuned_projector_scores_on_its_fitting_tasks() -> None:
    table = summarise(measure(bench(), [projector("task", steps=150)]))[FITTED]
    assert table["projected"].mean > table["no prompt"].mean + 0.1


def test_judging_a_projector_of_one_task_says_that_it_is_a_constant() -> None:
    one = projector("distance", steps=5)
    alone = Projector(one.module, one.source, one.target, "distance", one.architecture, tasks=("film",))
    judged = judge(measure(bench(), [alone]), alone, prompts(SOURCE), prompts(TARGET))
    assert judged.collapsed and "one task" in judged.verdict
    assert judged.scores()[FITTED]["projected"].keys() == {"mean", "spread", "seeds", "tasks"}


def test_means_and_spread_by_hand() -> None:
    values = {("film", 0): [0.8, 1.0], ("food", 0): [0.5], ("film", 1): [0.7], ("food", 1): [0.6]}
    cells = [
        ConditionScore(name, FITTED, "projected", seed, value)
        for (name, seed), scores in values.items()
        for value in scores
    ]
    # seed 0: (0.9 + 0.5) / 2 = 0.7; seed 1: 0.65; mean 0.675, standard deviation 0.05 / sqrt(2)
    entry = summarise(cells)[FITTED]["projected"]
    assert (entry.mean, entry.spread) == pytest.approx((0.675, 0.05 / 2**0.5))
    assert (entry.seeds, entry.tasks) == (2, 2)


def test_tasks_of_different_metrics_have_no_common_mean():
    values = {"a": (0.9, "accuracy"), "b": (0.7, "accuracy"), "c": (0.1, "token-f1")}
    cells = [
        ConditionScore(name, FITTED, "projected", 0, value, metric=metric)
        for name, (value, metric) in values.items()
    ]
    table = summarise(cells)
    assert list(table) == [f"{FITTED}, accuracy", f"{FITTED}, token-f1"]
    assert table[f"{FITTED}, accuracy"]["projected"].mean == pytest.approx(0.8)
    assert table[f"{FITTED}, token-f1"]["projected"].mean == pytest.approx(0.1)
    assert list(summarise(cells[:2])) == [FITTED]
