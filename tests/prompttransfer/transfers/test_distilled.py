"""PANDA: students of what was tuned from a source, beside it and the run from scratch."""

from __future__ import annotations

import pytest
import torch
from toys import adapted, label_task, prompt_on, question_task, recipe, splits

from analysis.similarity import INDICATORS
from prompttransfer.adaptations.adaptation import CurvePoint, same_tensors
from prompttransfer.training.train import Job, train_adaptations
from prompttransfer.transfers.distilled import SQUARED, Distilling, check_distilling, distil
from prompttransfer.transfers.tuning import tune
from prompttransfer.transfers.zero_shot import Target
from tasks.errors import UserError
from tasks.loading import Splits
from tasks.task import Example

PLAN = recipe(lr=0.01)


def target(name="other"):
    return Target(label_task(name), splits())


def test_a_student_starts_as_the_run_from_scratch_and_learns_from_what_was_tuned_from_its_source(tiny):
    backbone = tiny("roberta")
    sources = [prompt_on(backbone, seed=seed, curve=(CurvePoint(9, None, 0.5),)) for seed in (0, 1)]
    aims = [target(), target("third")]
    tuned = tune(backbone, sources, aims, PLAN, seeds=[2, 3])
    found = distil(backbone, sources, aims, PLAN, tuned, Distilling(0.3), seeds=[2, 3])
    names = [
        f"toy-s{source}-to-{aim}-distilled-s{seed}"
        for aim in ("other", "third")
        for seed in (2, 3)
        for source in (0, 1)
    ]
    assert [run.adaptation.name for run in found.trained] == names
    by_name = {run.adaptation.name: run.adaptation for run in tuned.trained}
    for pair, run in zip(found.pairs, found.trained, strict=True):
        scratch = by_name[f"{pair.target}-scratch-s{pair.seed}"]
        teacher = by_name[f"{pair.source}-to-{pair.target}-s{pair.seed}"]
        assert torch.equal(run.adaptation.first_vectors, scratch.first_vectors)
        assert run.adaptation.origin.recipe["distil"]["digest"] == teacher.digest
        assert (pair.scratch, pair.transferred, pair.distilled) == tuple(
            each.scores["test"]["accuracy"] for each in (scratch, teacher, run.adaptation)
        )
        assert (pair.weight, pair.all_steps) == (0.3, (6, 9 + 6, 9 + 6 + 6))
        assert pair.as_dict()["distilled_all_steps"] == 21


def test_the_weight_is_a_tenth_of_the_similarity_and_never_below_nothing(tiny):
    backbone = tiny("roberta")
    sources = [prompt_on(backbone, seed=seed) for seed in range(4)]
    tuned = tune(backbone, sources, [target()], PLAN)
    found = distil(backbone, sources, [target()], PLAN, tuned, Distilling())
    ended = tuned.trained[0].adaptation.vectors
    values = INDICATORS["C_average"](torch.stack([ended, *(s.vectors for s in sources)]), None)[
        0, 1:
    ].tolist()
    assert [pair.similarity for pair in found.pairs] == pytest.approx(values)
    assert [pair.weight for pair in found.pairs] == pytest.approx([0.1 * max(value, 0) for value in values])
    assert min(values) < 0


def test_a_teacher_of_weight_0_changes_nothing_but_rounding(tiny):
    backbone = tiny("roberta")
    tuned = tune(backbone, [prompt_on(backbone)], [target()], PLAN)
    found = distil(backbone, [prompt_on(backbone)], [target()], PLAN, tuned, Distilling(0.0))
    alone = train_adaptations(backbone, [Job(label_task("other"), splits())], PLAN)[0].adaptation
    torch.testing.assert_close(found.trained[0].adaptation.vectors, alone.vectors, atol=1e-5, rtol=1e-5)


def test_the_same_seed_gives_the_same_student(tiny):
    backbone, source = tiny("roberta"), [prompt_on(tiny("roberta"))]
    one, again = (
        distil(backbone, source, [target()], PLAN, tune(backbone, source, [target()], PLAN), Distilling(1.0))
        for _ in range(2)
    )
    assert same_tensors(one.trained[0].adaptation.tensors, again.trained[0].adaptation.tensors)


def test_loras_are_distilled_by_their_own_similarity(tiny):
    backbone = tiny("roberta")
    sources = [adapted(backbone, "lora:rank=2", seed=seed, name=f"l{seed}") for seed in (0, 1)]
    tuned = tune(backbone, sources, [target()], PLAN)
    found = distil(backbone, sources, [target()], PLAN, tuned, Distilling())
    assert all(pair.similarity is not None for pair in found.pairs)


QUESTIONS = tuple(Example("who", f"the {noun}", references=("the actor",)) for noun in ("film", "food"))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda b: check_distilling(Distilling(-1.0), [prompt_on(b)], []), "0 or more"),
        (
            lambda b: check_distilling(
                Distilling(),
                [prompt_on(b)],
                [Target(question_task(), Splits(QUESTIONS, QUESTIONS, QUESTIONS, "toy rows", "1"))],
            ),
            "toy-question are written",
        ),
    ],
)
def test_mistakes_are_one_line(tiny, act, message):
    with pytest.raises(UserError, match=message) as error:
        act(tiny("roberta"))
    assert "\n" not in str(error.value)


def test_the_released_distance_is_of_squares():
    assert (SQUARED.on, SQUARED.of_logits) == ("logits", "squared")
