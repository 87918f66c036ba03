"""Transfer: the source's vectors, the target's input and label words; the matrix and its reference rows."""

import math
from dataclasses import replace
from statistics import stdev

import pytest
import torch
from toys import label_task, prompt_on, question_task, recipe, sentences, splits

from prompttransfer.adaptations.adaptation import CurvePoint
from prompttransfer.adaptations.bank import BareBank, VectorBank
from prompttransfer.adaptations.random_prompts import random_like
from prompttransfer.backbones.interventions import Vectors
from prompttransfer.backbones.layouts import LAYOUTS
from prompttransfer.cli.transfer_tables import seen_lines, speed_up_lines
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import evaluate_bank
from prompttransfer.training.train import Job, train_adaptations
from prompttransfer.transfers.matrix import (
    MAJORITY,
    NO_PROMPT,
    NO_PROMPT_CALIBRATED,
    RANDOM_PROMPT,
    TransferMatrix,
)
from prompttransfer.transfers.speedups import Range
from prompttransfer.transfers.tuned_pairs import TunedPair
from prompttransfer.transfers.tuning import tune, tuned_pair
from prompttransfer.transfers.zero_shot import Target, zero_shot
from tasks.errors import UserError
from tasks.loading import Splits
from tasks.task import Example

FIRST = LAYOUTS["prompt-first"]


def target(name="other", **words):
    return Target(label_task(name, **words), splits())


def cell(matrix, source, task):
    return float(matrix.values[matrix.sources.index(source), matrix.targets.index(task)])


def test_zero_shot_uses_the_target_label_words(tiny):
    backbone = tiny("roberta")
    words = {"negative": "wrong", "positive": "fine"}
    prompt = prompt_on(backbone, words={"negative": "terrible", "positive": "great"})
    aim = target(**words)
    # By hand: the answer is the likelier of the target's two words at the mask.
    rows = backbone.encode(aim.task, aim.splits.test, reserved=3)
    hits = []
    for row in rows:
        batch = backbone.batch([row], layout=FIRST)
        with torch.no_grad():
            features, bias = backbone._head(backbone.answer_state(Vectors(prompt.vectors[None]), batch))
        logits = (features @ backbone.model.get_output_embeddings().weight.T + bias)[0]
        ids = backbone.tokenizer.convert_tokens_to_ids(["wrong", "fine"])
        hits.append(int(logits[ids[1]] > logits[ids[0]]) == row.label)
    matrix = zero_shot(backbone, [prompt], [aim])
    assert cell(matrix, "toy-s0", "other") == pytest.approx(sum(hits) / len(hits))
    # With the source's own words the answers are others, so the words do decide.
    own = encode_task(backbone, label_task("toy"), aim.splits.test, reserved=3)
    by_words = [evaluate_bank(backbone, VectorBank(prompt.vectors[None]), e)[0].loss for e in (own,)]
    theirs = evaluate_bank(
        backbone,
        VectorBank(prompt.vectors[None]),
        encode_task(backbone, aim.task, aim.splits.test, reserved=3),
    )[0]
    assert by_words[0] != theirs.loss


def test_zero_shot_changes_neither_the_prompt_nor_the_backbone(tiny):
    backbone = tiny("roberta")
    prompt = prompt_on(backbone)
    before, digest = backbone.digest(), prompt.digest
    zero_shot(backbone, [prompt], [target()])
    assert (backbone.digest(), prompt.digest) == (before, digest)


def test_the_reference_rows_are_no_prompt_random_prompt_and_majority(tiny):
    backbone = tiny("roberta")
    prompts = [prompt_on(backbone, seed=0), prompt_on(backbone, task="other", seed=1)]
    rows = sentences(("room",))
    uneven = Target(
        label_task("uneven"), Splits(rows, rows, (*rows, Example("it was warm", label=1)), "toy rows", "1")
    )
    matrix = zero_shot(backbone, prompts, [uneven], seed=5)
    assert matrix.sources == (
        "toy-s0",
        "other-s1",
        NO_PROMPT,
        NO_PROMPT_CALIBRATED,
        RANDOM_PROMPT,
        MAJORITY,
    )
    encoded = encode_task(backbone, uneven.task, uneven.splits.test, reserved=3)
    bare = evaluate_bank(backbone, BareBank(), encoded)[0]
    draws = random_like([prompt.vectors for prompt in prompts], 12, torch.Generator().manual_seed(5))
    drawn = [score.value for score in evaluate_bank(backbone, VectorBank(draws), encoded)]
    assert cell(matrix, NO_PROMPT, "uneven") == bare.value
    assert cell(matrix, RANDOM_PROMPT, "uneven") == pytest.approx(sum(drawn) / 12)
    assert matrix.random_spread == pytest.approx((stdev(drawn),)) and matrix.random_draws == 12
    assert cell(matrix, MAJORITY, "uneven") == pytest.approx(7 / 13)
    assert matrix.rows == (13,) and matrix.metrics == ("accuracy",)
    few = zero_shot(backbone, prompts, [uneven], seed=5, draws=3)
    assert few.random_draws == 3 and few.sources == matrix.sources
    assert cell(few, "toy-s0", "uneven") == cell(matrix, "toy-s0", "uneven")


def test_a_matrix_does_not_depend_on_which_prompts_stand_beside_one_another(tiny):
    backbone = tiny("roberta")
    prompts = [prompt_on(backbone, seed=seed) for seed in range(3)]
    together = zero_shot(backbone, prompts, [target()])
    for prompt in prompts:
        assert cell(zero_shot(backbone, [prompt], [target()]), prompt.name, "other") == cell(
            together, prompt.name, "other"
        )


def test_a_cell_that_cannot_be_is_marked_and_says_why(tiny):
    rows = (Example("who", "the actor", references=("the actor",)),)
    writing = Target(question_task("ask"), Splits(rows, rows, rows, "toy rows", "1"))
    matrix = zero_shot(tiny("roberta"), [prompt_on(tiny("roberta"))], [target(), writing])
    assert matrix.values[:, 1].isnan().all() and not matrix.values[:, 0].isnan().any()
    assert "use a T5 backbone" in matrix.impossible["ask"]
    assert matrix.as_dict()["values"][0][1] is None
    assert matrix.to_csv().splitlines()[1].endswith(",")


def test_prompts_that_do_not_fit_are_refused(tiny):
    backbone, wide = tiny("roberta"), tiny("roberta", "fp32", 32)
    with pytest.raises(UserError, match="width 32"):
        zero_shot(backbone, [prompt_on(wide)], [target()])
    with pytest.raises(UserError, match="trained under layout 'su2022'"):
        zero_shot(backbone, [prompt_on(backbone), prompt_on(backbone, seed=1, layout="su2022")], [target()])
    with pytest.raises(UserError, match="two prompts are called 'toy-s0'"):
        zero_shot(backbone, [prompt_on(backbone), prompt_on(backbone)], [target()])
    with pytest.raises(UserError, match="no prompt given"):
        zero_shot(backbone, [], [target()])


# The matrix ---------------------------------------------------------------------------------------------------


def matrix():
    return TransferMatrix(
        sources=("a-s0", "a-s1", "b", NO_PROMPT),
        source_tasks=("a", "a", "b", NO_PROMPT),
        targets=("a", "b", "c"),
        values=torch.tensor(
            [[0.8, 0.4, 0.5], [0.6, 0.2, 0.3], [0.35, 0.5, 0.1], [0.35, 0.25, 0.2]], dtype=torch.float64
        ),
    )


def test_the_relative_matrix_is_each_cell_over_the_targets_own_prompt():
    # Own of a: the mean of its two seeds, 0.7; of b: 0.5; c has none.
    relative = matrix().relative()
    assert matrix().own().tolist()[:2] == pytest.approx([0.7, 0.5])
    assert relative.meaning == "relative"
    assert relative.values[:, 0].tolist() == pytest.approx([8 / 7, 6 / 7, 0.5, 0.5])
    assert relative.values[:, 1].tolist() == pytest.approx([0.8, 0.4, 1.0, 0.5])
    assert relative.values[:, 2].isnan().all()


def test_a_matrix_without_own_prompts_has_no_relative_one_and_says_so():
    from dataclasses import replace

    for foreign in (
        replace(matrix(), targets=("d", "e", "f")),
        replace(matrix(), values=torch.zeros(4, 3, dtype=torch.float64)),
    ):
        assert matrix().has_own and not foreign.has_own
        with pytest.raises(UserError, match=r"none of the sources was trained on .* and scores above 0"):
            foreign.relative()


def test_the_summary_leaves_self_out_and_keeps_reference_rows_apart():
    # a and c are of one type. Same type: a-s0 -> c 0.5, a-s1 -> c 0.3. Different: a -> b 0.4 and 0.2, b -> a 0.35, b -> c 0.1.
    summary = matrix().summary({"a": "x", "b": "y", "c": "x"})
    assert summary["same type"] == pytest.approx(0.4)
    assert summary["different type"] == pytest.approx((0.4 + 0.2 + 0.35 + 0.1) / 4)
    assert summary[NO_PROMPT] == pytest.approx((0.35 + 0.25 + 0.2) / 3)
    assert math.isnan(matrix().summary({"a": "x", "b": "x", "c": "x"})["different type"])


def test_scores_of_different_metrics_have_no_common_mean():
    one = TransferMatrix(
        sources=("a", "b", "c", NO_PROMPT),
        source_tasks=("a", "b", "c", NO_PROMPT),
        targets=("a", "b", "c"),
        values=torch.tensor([[0.9, 0.6, 0.2], [0.7, 0.9, 0.3], [0.5, 0.4, 0.8], [0.5, 0.5, 0.1]]),
        metrics=("accuracy", "accuracy", "token-f1"),
    )
    summary = one.summary({"a": "x", "b": "x", "c": "y"})
    assert summary["same type, accuracy"] == pytest.approx((0.6 + 0.7) / 2)
    assert summary["different type, accuracy"] == pytest.approx((0.5 + 0.4) / 2)
    assert summary["different type, token-f1"] == pytest.approx((0.2 + 0.3) / 2)
    assert summary["no prompt, token-f1"] == pytest.approx(0.1)
    assert math.isnan(summary["same type, token-f1"]) and "same type" not in summary


def test_labels_that_do_not_fit_the_values_are_refused():
    with pytest.raises(ValueError, match=r"\[1, 2\], labels are 1 x 1"):
        TransferMatrix(sources=("a",), source_tasks=("a",), targets=("b",), values=torch.zeros(1, 2))


def test_the_csv_has_labels_and_six_digits():
    lines = matrix().to_csv().splitlines()
    assert lines[0] == ",a,b,c"
    assert lines[3] == "b,0.350000,0.500000,0.100000"


def test_the_spread_of_random_prompts_is_written_beside_their_mean():
    values = torch.tensor([[0.8, 0.5], [0.5, 0.4]], dtype=torch.float64)
    names = ("a", RANDOM_PROMPT)
    made = TransferMatrix(names, names, ("a", "b"), values, random_spread=(0.08, 0.02), random_draws=12)
    lines = made.random_csv().splitlines()
    assert lines == [",a,b", "mean,0.500000,0.400000", "spread,0.080000,0.020000", "draws,12,12"]
    assert made.as_dict()["random_spread"] == [0.08, 0.02]
    relative = made.relative().as_dict()["random_spread"]  # a's own prompt has 0.8; b has none
    assert relative == [pytest.approx(0.1), None]
    with pytest.raises(ValueError, match="1 spreads for 2 targets"):
        TransferMatrix(names, names, ("a", "b"), values, random_spread=(0.1,))


# Transfer as initialisation -----------------------------------------------------------------------------------


def pair(**values):
    base = {
        "source": "s",
        "target": "t",
        "seed": 0,
        "step0": 0.5,
        "tuned": 0.9,
        "scratch": 0.8,
        "chance": 0.5,
        "tuned_steps": 40,
        "scratch_steps": 200,
        "reach_steps": 20,
        "evaluate_every": 10,
        "tuned_best": 0.9,
        "scratch_best": 0.8,
        "tuned_last": 200,
    }
    return TunedPair(**{**base, **values})


def test_both_speedups_are_scratch_steps_over_source_steps():
    assert pair().convergence_speedup == 200 / 40
    assert pair().comparable_speedup == 200 / 20


def test_convergence_at_step_0_counts_as_one_interval():
    assert pair(tuned_steps=0, reach_steps=0).convergence_speedup == 20.0
    assert pair(tuned_steps=0, reach_steps=0).comparable_speedup == 20.0


def test_a_score_that_was_never_reached_has_a_range_and_no_number():
    never = pair(reach_steps=None)
    assert never.comparable_speedup is None and never.comparable == Range(0.0, 200 / 200)
    assert never.as_dict()["comparable_speedup"] is None
    # ended early, at step 50: all that is known is that it would have needed more than 50
    assert pair(reach_steps=None, tuned_last=50).comparable == Range(0.0, 4.0)


def test_a_speedup_is_known_to_the_evaluation_interval():
    # scratch converged within (190, 200], the run from the source within (30, 40] and reached scratch within (10, 20]
    assert pair().convergence == Range(190 / 40, 200 / 30)
    assert pair().comparable == Range(190 / 20, 200 / 10)
    assert pair(tuned_steps=0).convergence == Range(20.0, math.inf)
    assert pair().as_dict()["comparable_low"] == 9.5
    assert pair(tuned_steps=0).as_dict()["convergence_high"] is None


def test_a_run_that_did_not_learn_has_no_convergence_speedup():
    # flat at chance: it has its best at step 0, which once was "at least 20x"
    flat = pair(tuned_best=0.5, tuned_steps=0, reach_steps=None)
    assert flat.outcome == "did not learn"
    assert flat.convergence is None and flat.convergence_speedup is None
    assert flat.as_dict()["outcome"] == "did not learn"
    # 99 % of 0.8 is 0.792
    assert pair(tuned_best=0.792).outcome == "learned" and pair(tuned_best=0.791).outcome == "did not learn"


def test_nothing_is_faster_than_a_run_that_learned_nothing():
    nothing = pair(scratch_steps=0)
    assert nothing.outcome == "scratch learned nothing"
    assert (nothing.convergence, nothing.comparable) == (None, None)


def test_pairs_without_a_speedup_are_counted_beside_the_median():
    flat = pair(tuned_best=0.5, tuned_steps=0, reach_steps=None)
    said = speed_up_lines([pair(), pair(tuned_steps=0), flat, flat, pair(scratch_steps=0)])
    assert "over 2 of 4 runs, 2 did not learn" in said[0]
    assert "over 4 runs, 2 of which reached it" in said[1]
    # of the four ranges (9.5, 20], (9.5, 20], (0, 1], (0, 1]
    assert "comparable: median 4.8x to 10.5x" in said[1]
    assert "1 of 5 runs are not in the medians" in said[3]


def test_a_pair_compares_the_two_curves_of_one_target(tiny):
    def trained(name, scores, test):
        curve = tuple(CurvePoint(10 * index, None, score) for index, score in enumerate(scores))
        return prompt_on(
            tiny("roberta"), name=name, curve=curve, scores={"test": {"accuracy": test, "chance": 0.5}}
        )

    scratch = trained("scratch", (0.5, 0.6, 0.7, 0.8, 0.8), 0.75)  # converges (>= 0.792) at step 30 with 0.8
    tuned = trained("tuned", (0.7, 0.8, 0.85, 0.9, 0.9), 0.85)  # converges at 30, has 0.8 at step 10
    found = tuned_pair("s", "accuracy", 0, scratch, tuned, evaluate_every=10)
    assert (found.scratch_steps, found.tuned_steps, found.reach_steps) == (30, 30, 10)
    assert (found.step0, found.tuned, found.scratch) == (0.7, 0.85, 0.75)
    assert (found.convergence_speedup, found.comparable_speedup) == (1.0, 3.0)
    assert (found.tuned_best, found.scratch_best, found.tuned_last) == (0.9, 0.8, 40)


def test_tuning_starts_from_the_source_and_has_the_scratch_run_beside_it(tiny):
    backbone = tiny("roberta")
    source, aim, plan = prompt_on(backbone), target(), recipe(lr=0.01)
    result = tune(backbone, [source], [aim], plan, seeds=[2, 3])
    names = [run.adaptation.name for run in result.trained]
    assert names == ["other-scratch-s2", "toy-s0-to-other-s2", "other-scratch-s3", "toy-s0-to-other-s3"]
    scratch, tuned = result.trained[:2]
    assert torch.equal(tuned.adaptation.first_vectors, source.vectors)
    assert tuned.adaptation.origin.start == "from:toy-s0" and tuned.adaptation.task == "other"
    # The scratch run is what training the target alone gives.
    alone = train_adaptations(backbone, [Job(aim.task, aim.splits, 2)], plan)[0]
    torch.testing.assert_close(scratch.adaptation.vectors, alone.adaptation.vectors, atol=1e-5, rtol=1e-5)
    assert [found.seed for found in result.pairs] == [2, 3]
    found = result.pairs[0]
    assert found.step0 == tuned.adaptation.curve[0].score
    assert found.tuned == tuned.adaptation.scores["test"]["accuracy"]
    assert tuned.adaptation.scores["test"]["rows"] == 12


def test_every_seed_is_tuned_on_its_own_rows(tiny):
    rows = {
        seed: replace(splits(), train=sentences((word,)), seed=seed)
        for seed, word in ((0, "film"), (1, "food"))
    }
    aim = Target(label_task("other"), rows[0], rows)
    result = tune(tiny("roberta"), [prompt_on(tiny("roberta"))], [aim], recipe(), seeds=[0, 1])
    assert [run.adaptation.origin.data["split_seed"] for run in result.trained] == [0, 0, 1, 1]
    assert aim.rows(7) is aim.splits


def test_a_source_that_has_seen_the_validation_rows_is_named(tiny):
    source = prompt_on(tiny("roberta"), task="other", data={"split_seed": 1})
    aim = Target(label_task("other"), splits(), {1: replace(splits(), seed=1)})
    assert seen_lines([source], [aim], [1]) == []
    assert "another split (other-s0 on seed 0" in seen_lines([source], [aim], [0, 1])[0]
    assert seen_lines([prompt_on(tiny("roberta"))], [aim], [0]) == []


def test_step_0_of_a_tuned_run_is_the_zero_shot_score_of_its_source(tiny):
    backbone = tiny("roberta")
    source, rows = prompt_on(backbone), sentences(("film", "food"))
    aim = Target(label_task("other"), Splits(rows, rows, rows, "toy rows", "1"))
    matrix = zero_shot(backbone, [source], [aim])
    result = tune(backbone, [source], [aim], recipe())
    assert result.pairs[0].step0 == cell(matrix, "toy-s0", "other")


def test_sources_of_different_length_are_refused_for_tuning(tiny):
    sources = [prompt_on(tiny("roberta"), seed=length, length=length) for length in (3, 5)]
    with pytest.raises(UserError, match=r"from:toy-s5 is \[5, 16\], but \[3, 16\] is needed"):
        tune(tiny("roberta"), sources, [target()], recipe())
