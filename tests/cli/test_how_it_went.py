"""What `train` says beside its table: means over seeds, an early end, and where nothing was learned."""

from __future__ import annotations

import pytest
import torch
from toys import label_task, prompt_on, splits

from prompttransfer.adaptations.adaptation import CurvePoint
from prompttransfer.cli.runs import how_it_went, print_spread
from prompttransfer.cli.transfer_tables import print_matrix, print_pairs
from prompttransfer.training.train import Job, Trained
from prompttransfer.transfers.matrix import TransferMatrix
from prompttransfer.transfers.tuned_pairs import TunedPair


def trained(backbone, *, best=4, test=0.75, ended="steps", seed=0):
    scores = {
        "validation": {"accuracy": 0.8, "step": best},
        "test": {"accuracy": test, "chance": 0.5, "no_prompt": 0.4, "rows": 8},
    }
    curve = (CurvePoint(0, None, 0.5), CurvePoint(4, 0.3, 0.8))
    return Trained(prompt_on(backbone, seed=seed, scores=scores, curve=curve), ended, 4)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, []),
        ({"best": 0}, ["its best was at step 0"]),
        ({"test": 0.5}, ["no better than the majority answer"]),
        ({"ended": "patience"}, ["ended by --patience at step 4, its best was at step 4"]),
    ],
)
def test_what_went_wrong_is_said(tiny, more, said) -> None:
    lines = how_it_went(trained(tiny("roberta"), **more), "accuracy")
    assert len(lines) == len(said) and all(part in line for part, line in zip(said, lines, strict=True))


def test_several_seeds_have_mean_and_spread_and_one_has_none(tiny, capsys) -> None:
    runs = [trained(tiny("roberta"), test=value, seed=seed) for seed, value in enumerate((0.6, 0.7, 0.8))]
    jobs = [Job(label_task(), splits(), seed) for seed in range(3)]
    print_spread(runs, jobs)
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("toy")]
    assert row == ["toy", "accuracy", "3", "0.800", "0.700", "0.100", "0.600", "0.800"]
    print_spread(runs[:1], jobs[:1])
    assert capsys.readouterr().out == ""


def test_a_matrix_of_several_seeds_has_their_mean_and_deviation_beneath_method_by_method(capsys) -> None:
    sources = ("a-s0", "a-s1", "a@lora", "no prompt")
    values = torch.tensor([[0.5], [0.7], [0.9], [0.4]], dtype=torch.float64)
    matrix = TransferMatrix(
        sources,
        ("a", "a", "a", "no prompt"),
        ("b",),
        values,
        metrics=("accuracy",),
        methods=("prompt", "prompt", "lora"),
    )
    print_matrix(matrix)
    said = capsys.readouterr().out
    assert "a, prompt  60.0 ±14.1" in said and "a, lora" not in said


def test_transfer_as_a_start_has_mean_and_spread_of_each_pair(capsys) -> None:
    pairs = [
        TunedPair("a", "b", seed, 0.5, tuned, scratch, 0.5, 2, 4, 2, 2, 0.8, 0.8, 4)
        for seed, tuned, scratch in ((0, 0.8, 0.6), (1, 0.6, 0.6))
    ]
    print_pairs(pairs)
    said = capsys.readouterr().out
    part = said[said.index("mean over seeds") :].splitlines()
    assert part[2].split() == ["a", "b", "2", "0.700", "0.141", "0.600", "0.000", "0.100", "0.141"]
    print_pairs(pairs[:1])
    assert "mean over seeds" not in capsys.readouterr().out
