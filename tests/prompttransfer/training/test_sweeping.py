"""Sweeps: what is a bank, who is stopped, who is chosen, and that a killed sweep comes to the same."""

import pytest
from method_texts import LACKS, TEXTS
from toys import Watcher, label_task, recipe, splits, stop

from prompttransfer.adaptations.adaptation import CurvePoint, same_tensors
from prompttransfer.adaptations.methods import METHODS, parse_method
from prompttransfer.training.grids import (
    Candidate,
    brought_by,
    candidates_from,
    candidates_of,
    check_axes,
    parse_grid,
)
from prompttransfer.training.recipes import OPTIMIZERS
from prompttransfer.training.sweep import Tried, parts_of, run_sweep
from prompttransfer.training.train import Job, TrainingOptions, begin_run, train_adaptations
from tasks.errors import UserError

TASK = label_task()
RATES = ("0.001", "0.05", "0.2")
SHORT = {"steps": 8, "batch": 4, "evaluate_every": 1}
AXES = {
    **dict.fromkeys(("lora", "lora-plus", "lora-fa", "delta-lora", "dora"), ("rank", "1", "2")),
    "text": ("prompt", "the film was", "it was"),
    "in-context": ("k", "1", "2"),
}
"""Methods -> an axis of their own, and two values."""


def jobs(*seeds, **fields):
    return [Job(TASK, splits(), seed, name=f"toy-s{seed}", **fields) for seed in seeds or (0,)]


def of(grid, text="prompt:length=3", **given):
    return candidates_of("masked-lm", 16, text, grid, {**SHORT, **given})


def scores(found):
    return {str(one.candidate): (one.scores, one.steps) for one in found.tried}


def test_a_grid_is_read_with_commas_in_quotes() -> None:
    assert parse_grid(["lr=1e-3, 0.1", 'prompt="good, or bad",it was']) == {
        "lr": ("1e-3", "0.1"),
        "prompt": ("good, or bad", "it was"),
    }


@pytest.mark.parametrize("text", ["lr", "lr=", "=1,2", "lr=1,1", "lr=1", "lr=1,,2"])
def test_what_is_no_grid_is_one_line(text) -> None:
    with pytest.raises(UserError, match="--sweep"):
        parse_grid([text])


@pytest.mark.parametrize(
    ("method", "grid", "given", "said"),
    [
        ("prompt", {"lr": ("1", "a")}, {}, "lr=a: give a number"),
        ("prompt", {"lr": ("1", "2")}, {"lr": 0.1}, "lr is given and swept over"),
        ("lora:rank=2", {"rank": ("1", "2")}, {}, "rank is given and swept over"),
        ("lora", {"length": ("1", "2")}, {}, "unknown axis"),
        ("text-search", {"lr": ("1", "2")}, {}, "text-search has no lr"),
        ("text:prompt=it", {"lr": ("1", "2")}, {}, "text has no lr"),
        ("prompt", {"lr": ("1e-3", "0.001")}, {}, "lr 1e-3 and lr 0.001 are one setting: keep one"),
        (
            "prompt",
            {"warm-up": ("0", "9")},
            {"steps": 8},
            "warm-up 9: it is longer than the 8 steps .* give at most 8",
        ),
        (
            "prompt",
            {"warm-up": ("2", "9"), "steps": ("8", "9")},
            {},
            "warm-up 9: it is longer than the 8 steps",
        ),
    ],
)
def test_an_axis_that_cannot_be_is_one_line(method, grid, given, said) -> None:
    with pytest.raises(UserError, match=said):
        check_axes(method, grid, given)


def test_rates_are_members_of_one_bank_and_lengths_are_banks() -> None:
    parts = parts_of(of({"lr": RATES, "length": ("2", "4")}, text="prompt"))
    assert [str(part) for part in parts] == ["length 2", "length 4"]
    assert [[job.lr for job in part.jobs(jobs(0))] for part in parts] == [[0.001, 0.05, 0.2]] * 2
    assert {part.method.settings()["length"] for part in parts} == {2, 4}


def test_of_methods_that_share_each_rate_has_a_bank_of_its_own() -> None:
    assert len(parts_of(of({"lr": RATES}, text="mpt:length=3"))) == 3


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_that_halts_and_goes_on_is_the_whole_run_bit_for_bit(tiny, optimizer) -> None:
    plan = recipe(optimizer=optimizer, steps=7, evaluate_every=2, schedule="linear")
    (whole,) = train_adaptations(tiny("roberta"), jobs(0), plan)
    run = begin_run(tiny("roberta"), jobs(0), plan)
    for until in (1, 3, 4, 7):
        run.advance(until)
    (parts,) = run.results()
    assert same_tensors(whole.adaptation.tensors, parts.adaptation.tensors)
    assert (whole.adaptation.curve, whole.ended) == (parts.adaptation.curve, parts.ended)


def test_without_halving_every_setting_is_what_its_bank_gives(tiny) -> None:
    found = run_sweep(tiny("roberta"), of({"lr": RATES}), jobs(0, 1), halving=False)
    bank = [job for rate in RATES for job in jobs(0, 1, lr=float(rate))]
    alone = train_adaptations(tiny("roberta"), bank, recipe(**SHORT), method=parse_method("prompt:length=3"))
    assert [score for one in found.tried for score in one.scores] == [
        max(point.score for point in run.adaptation.curve) for run in alone
    ]
    place = [one.candidate for one in found.tried].index(found.chosen["toy"]) * 2
    for run, own in zip(found.trained, alone[place : place + 2], strict=True):
        assert same_tensors(run.adaptation.tensors, own.adaptation.tensors)
        assert run.adaptation.origin.recipe["lr"] == float(found.chosen["toy"].values["lr"])


def test_halving_stops_the_worse_half_behind_a_quarter_and_behind_half_of_the_steps(tiny) -> None:
    said: list[str] = []
    found = run_sweep(tiny("roberta"), of({"lr": (*RATES, "0.3")}), jobs(0, 1), tell=said.append)
    assert sorted(one.steps for one in found.tried) == [2, 2, 4, 8]
    assert len(said) == 2 and "2 of 4 settings go on" in said[0]
    best = max(found.tried, key=lambda one: (one.steps, one.mean))
    assert found.chosen["toy"] is best.candidate and not best.stopped


def test_equal_scores_are_decided_by_the_loss_and_a_loss_without_end_comes_last(tiny) -> None:
    candidates = of({"lr": ("1e20", "0.05")})
    found = run_sweep(tiny("roberta"), candidates, jobs(0), halving=False)
    assert not found.tried[0].finite and found.chosen["toy"] is candidates[1]


def test_a_sweep_that_was_stopped_comes_to_the_same_bit_for_bit(tiny, tmp_path) -> None:
    candidates = of({"lr": RATES, "length": ("2", "3")}, text="prompt")
    whole = run_sweep(tiny("roberta"), candidates, jobs(0, 1))
    for at in (1, 3, 5):  # in the first stretch, the second and the last
        with pytest.raises(RuntimeError):
            run_sweep(
                tiny("roberta"),
                candidates,
                jobs(0, 1),
                options=lambda part, at=at: TrainingOptions(tmp_path, progress=Watcher(at, stop)),
            )
    again = run_sweep(tiny("roberta"), candidates, jobs(0, 1), options=lambda part: TrainingOptions(tmp_path))
    assert scores(again) == scores(whole) and again.chosen == whole.chosen
    for one, other in zip(whole.trained, again.trained, strict=True):
        assert same_tensors(one.adaptation.tensors, other.adaptation.tensors)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_swept(tiny, name) -> None:
    axis, *values = AXES.get(name, ("lr", "0.001", "0.05") if METHODS[name].trains else ("", ""))
    if METHODS[name].searches:
        axis, values = "beam", ["1", "2"]
    kind = "roberta" if ("roberta", name) not in LACKS else "bert"
    text = TEXTS[name][0]
    if axis in text:
        head, _, settings = text.partition(":")
        kept = [part for part in settings.split(",") if not part.startswith(f"{axis}=")]
        text = ":".join(filter(None, (head, ",".join(kept))))
    candidates = candidates_of(
        "masked-lm", 16, text, {axis: tuple(values)}, {**SHORT, "steps": 4} if METHODS[name].trains else {}
    )
    found = run_sweep(tiny(kind), candidates, jobs(0))
    (run,) = found.trained
    assert len(found.tried) == 2 and run.adaptation.method == found.chosen["toy"].method
    assert (
        max(one.mean for one in found.tried if not one.stopped)
        == max(found.tried, key=lambda one: one.steps).mean
    )


def test_the_mean_is_over_seeds() -> None:
    (candidate, _) = of({"lr": ("1", "2")})
    curves = {0: (CurvePoint(0, None, 0.2), CurvePoint(1, 1.0, 0.6)), 1: (CurvePoint(0, None, 0.4),)}
    assert isinstance(candidate, Candidate)
    assert Tried("toy", candidate, curves, 1, True).mean == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("family", "width"), [("t5", 768), ("t5", 64), ("causal-lm", 576), ("masked-lm", 768)]
)
@pytest.mark.parametrize("given", [{}, {"batch": 7, "weight_decay": 0.5}])
def test_a_recipe_and_what_optimizers_bring_say_all_candidates_of_a_grid(family, width, given) -> None:
    grid = {"optimizer": OPTIMIZERS, "length": ("3", "5")}
    candidates = candidates_of(family, width, "prompt", grid, given)
    again = candidates_from("prompt", candidates[0].recipe, grid, brought_by(candidates))
    assert [one.method for one in again] == [one.method for one in candidates]
    assert [one.recipe.as_dict() | {"source": ""} for one in again] == [
        one.recipe.as_dict() | {"source": ""} for one in candidates
    ]
    brought = brought_by(candidates).get("adafactor", {})
    assert not brought.keys() & given.keys()
    if (family, width, given) == ("t5", 768, {}):
        assert brought == {"lr": 0.3, "weight_decay": 1e-5, "batch": 32}
