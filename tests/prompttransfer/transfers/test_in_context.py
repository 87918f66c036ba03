"""The row `in-context` of a matrix: the mean over draws of labelled rows of each target, and their spread."""

from statistics import mean, stdev

import pytest
from toys import adapted, changed, label_task, question_task, recipe, sentences, splits

from prompttransfer.adaptations.methods import parse_method
from prompttransfer.backbones.layouts import Encoding
from prompttransfer.evaluation.calibration import TRAIN_MEAN, Calibration
from prompttransfer.training.train import Job, train_adaptations
from prompttransfer.transfers.in_context import Shown, with_in_context
from prompttransfer.transfers.matrix import IN_CONTEXT, MAJORITY, TransferMatrix
from prompttransfer.transfers.tuning import with_test_score
from prompttransfer.transfers.zero_shot import Target, zero_shot
from tasks.errors import UserError
from tasks.loading import Splits

TASK, OTHER = label_task(), label_task("other", bad=("wrong",), fine=("fine",))
TARGETS = (Target(TASK, splits()), Target(OTHER, splits("song", "book", "price")))


def matrix_on(backbone, shown, *, calibration=None, targets=TARGETS):
    sources = [adapted(backbone, "prompt:length=3")]
    matrix = zero_shot(backbone, sources, targets, calibration=calibration)
    return with_in_context(backbone, matrix, targets, shown, calibration=calibration)


@pytest.mark.parametrize("kind", ["roberta", "t5", "gpt2", "llama"])
def test_the_row_is_the_mean_of_what_each_draw_scores(tiny, kind):
    backbone = tiny(kind)
    matrix = matrix_on(backbone, Shown(2, draws=3))
    encoding = Encoding("after-bos" if kind in ("gpt2", "llama") else "prompt-first")
    for column, target in enumerate(TARGETS):
        jobs = [Job(target.task, target.splits, seed, name=f"s{seed}") for seed in range(3)]
        runs = train_adaptations(backbone, jobs, recipe(), encoding, method=parse_method("in-context:k=2"))
        runs = with_test_score(backbone, runs, target, encoding)
        scores = [run.adaptation.scores["test"]["accuracy"] for run in runs]
        row = matrix.sources.index(IN_CONTEXT)
        assert float(matrix.values[row, column]) == pytest.approx(mean(scores))
        assert matrix.in_context_spread[column] == pytest.approx(stdev(scores))
    assert matrix.sources[-2:] == (IN_CONTEXT, MAJORITY)
    assert matrix.as_dict()["in_context"].startswith("2 labelled training rows")


def test_calibrated_scores_have_the_row_too_and_one_draw_has_no_spread(tiny):
    matrix = matrix_on(tiny("roberta"), Shown(2, draws=1), calibration=Calibration(TRAIN_MEAN, rows=6))
    assert matrix.calibrated.sources == matrix.sources
    row = matrix.calibrated.values[matrix.sources.index(IN_CONTEXT)]
    assert row.isfinite().all()
    assert matrix.as_dict()["in_context_spread"] == [None, None]


def test_a_target_whose_rows_do_not_fit_has_no_value_and_a_reason(tiny):
    train = sentences(("film", "food"))
    long = Target(TASK, Splits(train, train[:4], train[4:8], "toy rows", "1"))
    matrix = matrix_on(tiny("roberta"), Shown(20, draws=2), targets=(long,))
    assert matrix.values[matrix.sources.index(IN_CONTEXT), 0].isnan()
    assert "are free for them" in matrix.impossible_cells[IN_CONTEXT]["toy"]


def test_a_target_that_no_row_can_answer_has_none(tiny):
    targets = (TARGETS[0], Target(question_task(), splits()))
    matrix = matrix_on(tiny("roberta"), Shown(2, draws=1), targets=targets)
    assert matrix.values[:, 1].isnan().all()


def test_a_matrix_without_the_row_says_nothing_of_it(tiny):
    plain = zero_shot(tiny("roberta"), [adapted(tiny("roberta"), "prompt:length=3")], TARGETS)
    assert isinstance(plain, TransferMatrix) and IN_CONTEXT not in plain.sources
    assert "in_context" not in plain.as_dict()


def test_a_text_stands_beside_soft_prompts_in_a_matrix_and_keeps_all_its_words(tiny):
    backbone = tiny("roberta")
    sources = [
        adapted(backbone, "text:prompt=is it good", name="a"),
        adapted(backbone, "prompt:length=3", name="b"),
    ]
    matrix = zero_shot(backbone, sources, TARGETS)
    alone = zero_shot(backbone, sources[:1], TARGETS)
    assert matrix.values[0].tolist() == alone.values[0].tolist()
    lost = changed(sources[0], layout="su2022")
    with pytest.raises(UserError, match="would be lost"):
        zero_shot(backbone, [lost], TARGETS)
