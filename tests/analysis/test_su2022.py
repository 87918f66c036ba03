"""The published prompts and matrices of Su et al. 2022: our formulas give the numbers computed from them."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from analysis.matrices import PUBLISHED_TYPES, parse_matrix
from analysis.prediction import predict_transfer
from analysis.similarity import PAPER_METRICS, similarity

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "su2022"
pytestmark = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="the published prompts are not on this machine"
)

BACKBONES = ("roberta-base", "bert-base", "t5-base", "t5-small")
VARIANTS = {
    "all 100 rows": ("", 0),
    "row 0 dropped": ("", 1),
    "mean prompt subtracted": ("-minus-mean", 0),
    "row 0 dropped + mean subtracted": ("-minus-mean", 1),
}


def matrix(name):
    return parse_matrix((REFERENCE / f"{name}.csv").read_text(), name)


def prompts(backbone):
    from safetensors.torch import load_file

    return load_file(REFERENCE / f"prompts_{backbone}.safetensors")


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("metric", PAPER_METRICS)
def test_similarities_match_to_1e_5(backbone, metric):
    expected = matrix(f"similarity_{backbone}_{metric}")
    tensors = prompts(backbone)
    ours = similarity(metric, torch.stack([tensors[k] for k in expected.index]), list(expected.index))
    assert (ours - expected).abs().max().max() < 1e-5


@pytest.mark.parametrize("backbone", ["roberta-base", "t5-base", "t5-small"])
@pytest.mark.parametrize("include_self", [True, False])
def test_mean_spearman_matches_to_0_001(backbone, include_self):
    setting = f"paper tasks, self {'included' if include_self else 'excluded'}"
    summary = pd.read_csv(REFERENCE / "spearman_summary.csv")
    rows = summary[(summary["backbone"] == backbone) & (summary["setting"] == setting)].set_index("metric")[
        "mean"
    ]
    assert len(rows) >= 4, sorted(summary["setting"].unique())
    indicators = {m: matrix(f"similarity_{backbone}_{m}") for m in PAPER_METRICS}
    answers = predict_transfer(
        matrix(f"transfer_relative_{backbone}"), indicators, include_self=include_self, draws=20
    )
    for answer in answers:
        assert answer.mean == pytest.approx(rows[answer.indicator], abs=1e-3)


@pytest.mark.parametrize(
    ("backbone", "chosen", "best", "same_type"),
    [("roberta-base", 83.6, 89.6, 0.588), ("t5-base", 76.2, 80.1, 0.498), ("t5-small", 66.8, 80.0, 0.527)],
)
def test_the_chosen_source_and_the_same_type_flag_match(backbone, chosen, best, same_type):
    indicator = {"C_average": matrix(f"similarity_{backbone}_C_average")}
    answers = predict_transfer(matrix(f"transfer_relative_{backbone}"), indicator, PUBLISHED_TYPES, draws=20)
    found = {a.indicator: a for a in answers}
    assert found["C_average"].choice.chosen_score == pytest.approx(chosen, abs=0.05)
    assert found["C_average"].choice.best_score == pytest.approx(best, abs=0.05)
    assert found["same-type"].mean == pytest.approx(same_type, abs=1e-3)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("metric", ["C_concat", "C_average", "C_average-token"])
def test_controls_match_to_0_001(variant, metric):
    suffix, first = VARIANTS[variant]
    transfer = matrix("transfer_relative_roberta-base")
    tasks = list(transfer.columns)
    tensors = prompts("roberta-base")
    table = similarity(metric + suffix, torch.stack([tensors[t][first:] for t in tasks]), tasks)
    summary = pd.read_csv(REFERENCE / "spearman_variants.csv")
    name = metric.replace("C_average-token", "C_avgtoken(SPoT)")
    rows = summary[
        (summary["backbone"] == "roberta-base")
        & (summary["variant"] == variant)
        & (summary["metric"] == name)
    ]
    (answer,) = predict_transfer(transfer, {metric: table}, draws=20)
    assert answer.mean == pytest.approx(rows["spearman_excl_self"].item(), abs=1e-3)
