"""Overlap of activation states by hand, and what a state file may be compared with."""

import numpy as np
import pytest

from analysis.neurons import (
    NeuronStates,
    active_share,
    highest,
    merge,
    overlap,
    overlaps,
    pack,
    positive,
    specificity,
    top_share,
    windows,
)
from tasks.errors import UserError

# two layers of three neurons
A = [[1, 1, 0], [0, 0, 1]]
B = [[1, 0, 0], [0, 1, 1]]
C = [[0, 0, 0], [0, 0, 0]]


def states(*rows, names=None, backbone="tiny"):
    active = np.array(rows, dtype=bool)
    return pack(active, names or [f"p{i}" for i in range(len(rows))], backbone)


def test_on_is_shared_over_the_root_of_the_product_of_the_active():
    assert overlap(states(A, B)).loc["p0", "p1"] == pytest.approx(2 / np.sqrt(3 * 3))


def test_jaccard_is_shared_over_either():
    assert overlap(states(A, B), "jaccard").loc["p0", "p1"] == pytest.approx(2 / 4)


def test_overlap_by_layer_counts_only_that_layer():
    tables = overlaps(states(A, B), windows(2, 1))
    assert tables["0"].loc["p0", "p1"] == pytest.approx(1 / np.sqrt(2 * 1))
    assert tables["1"].loc["p0", "p1"] == pytest.approx(1 / np.sqrt(1 * 2))


def test_a_prompt_overlaps_wholly_with_itself_and_a_silent_one_with_nothing():
    table = overlap(states(A, C))
    assert table.loc["p0", "p0"] == pytest.approx(1)
    assert table.loc["p1", "p1"] == 0 and table.loc["p0", "p1"] == 0


def test_packed_overlap_equals_the_cosine_of_the_unpacked_states():
    active = np.random.default_rng(0).random((7, 5, 37)) > 0.6
    flat = active.reshape(7, -1).astype(float)
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    np.testing.assert_allclose(overlap(pack(active, list("abcdefg"), "tiny")), unit @ unit.T, atol=1e-12)


def test_windows_of_three_are_the_papers_and_the_last_may_be_shorter():
    assert list(windows(12, 3)) == ["0-2", "3-5", "6-8", "9-11"]
    assert list(windows(7, 3)) == ["0-2", "3-5", "6"]


def test_a_window_larger_than_the_model_is_refused():
    with pytest.raises(UserError, match="window of 9"):
        windows(6, 9)


def test_positive_is_greater_than_zero_and_not_zero():
    assert positive(np.array([-1.0, 0.0, 0.1])).tolist() == [False, False, True]


def test_top_share_takes_equally_many_for_every_prompt_even_with_ties():
    active = top_share(np.array([[0.0, 0.0, 0.0, 0.0], [4.0, 1.0, 3.0, 2.0]]), 0.5)
    assert active.tolist() == [[True, True, False, False], [True, False, True, False]]


def test_active_share_is_by_prompt_and_layer():
    np.testing.assert_allclose(active_share(states(A, B)).to_numpy(), [[2 / 3, 1 / 3], [1 / 3, 2 / 3]])


def test_states_of_another_backbone_are_refused_by_name():
    with pytest.raises(UserError, match="backbone 'tiny' against 'other'"):
        merge([states(A), states(B, names=["q"], backbone="other")])


def test_merged_states_keep_their_bits_and_names():
    both = merge([states(A, names=["a"]), states(B, names=["b"])])
    assert both.names == ("a", "b")
    assert overlap(both).loc["a", "b"] == pytest.approx(2 / 3)


def test_states_that_do_not_fit_their_names_cannot_be_built():
    with pytest.raises(UserError, match="do not fit"):
        NeuronStates(np.zeros((2, 3, 1), np.uint8), 8, ("only one",), "tiny")


def test_the_highest_neurons_are_active_here_and_rare_elsewhere():
    one = states([[1, 1, 0, 0]], [[1, 0, 1, 0]], [[1, 0, 0, 0]])
    assert specificity(one, "p0").tolist() == [[0, 1, -1.5, -1]]
    assert highest(specificity(one, "p0"), 0.25).tolist() == [[False, True, False, False]]


def test_a_larger_share_of_specific_neurons_holds_a_smaller_one():
    many = pack(np.random.default_rng(1).random((4, 3, 20)) > 0.5, list("abcd"), "tiny")
    small, large = (highest(specificity(many, "b"), share) for share in (0.1, 0.3))
    assert small.sum() == 6 and large.sum() == 18 and (large | small).sum() == 18


def test_ties_are_drawn_over_all_layers_and_again_the_same():
    alike = np.zeros((4, 100))
    first, again, other = highest(alike, 0.25), highest(alike, 0.25), highest(alike, 0.25, seed=1)
    assert first.sum() == 100 and (first.sum(axis=1) > 10).all()
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_outside_0_to_1_is_refused(share):
    with pytest.raises(UserError, match="between 0 and 1"):
        highest(np.zeros((1, 4)), share)


def test_a_wide_layer_is_counted_exactly():
    active = np.ones((2, 1, 10240), dtype=bool)
    active[1, 0, 0] = False
    assert overlap(pack(active, ["a", "b"], "wide")).loc["a", "b"] == pytest.approx(
        10239 / np.sqrt(10240 * 10239), abs=1e-12
    )
