"""Closed-form projectors against values worked by hand and independent solvers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from sklearn.linear_model import OrthogonalMatchingPursuit

from projectors.architectures import Shape
from projectors.closed_form import (
    SharedWords,
    combination,
    least_squares,
    procrustes,
    pursue,
    shared_words,
    vocabulary_mlp,
    whole_words,
)
from projectors.methods import unit_of
from tasks.errors import UserError


def words(count: int, source_width: int, target_width: int, seed: int = 0) -> SharedWords:
    generator = torch.Generator().manual_seed(seed)
    names = tuple(f"w{i}" for i in range(count))
    source = torch.randn(count, source_width, generator=generator)
    return SharedWords(names, source, torch.randn(count, target_width, generator=generator))


def test_least_squares_is_numpys() -> None:
    shared = words(40, 6, 4)
    expected = np.linalg.lstsq(shared.source.numpy(), shared.target.numpy(), rcond=None)[0]
    prompt = torch.randn(3, 6)
    assert np.allclose(
        least_squares(shared, Shape(3, 6, 3, 4))(prompt).detach(), prompt.numpy() @ expected, atol=1e-5
    )


def test_least_squares_by_hand() -> None:
    # two words, E_s = I, E_t = [[2, 0], [0, 3]]: W must be diag(2, 3)
    shared = SharedWords(("a", "b"), torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
    carried = least_squares(shared, Shape(1, 2, 1, 2))(torch.tensor([[1.0, 1.0]]))
    assert torch.allclose(carried, torch.tensor([[2.0, 3.0]]))


def test_procrustes_is_scipys_rotation() -> None:
    shared = words(50, 5, 5)
    source, target = (side.double().numpy() for side in (shared.source, shared.target))
    centred, aim = source - source.mean(0), target - target.mean(0)
    rotation, trace = orthogonal_procrustes(centred, aim)
    scale = trace / np.square(centred).sum()
    prompt = torch.randn(2, 5)
    expected = scale * (prompt.numpy() - source.mean(0)) @ rotation + target.mean(0)
    assert np.allclose(procrustes(shared, Shape(2, 5, 2, 5))(prompt).detach(), expected, atol=1e-5)


def test_procrustes_undoes_a_rotation_a_scale_and_a_shift() -> None:
    shared = words(50, 5, 5)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1))).Q
    moved = SharedWords(shared.words, shared.source, 3 * shared.source @ rotation + 2)
    prompt = torch.randn(2, 5)
    carried = procrustes(moved, Shape(2, 5, 2, 5))(prompt)
    assert torch.allclose(carried, 3 * prompt @ rotation + 2, atol=1e-4)


def test_procrustes_to_a_wider_model_keeps_angles() -> None:
    module = procrustes(words(50, 4, 7), Shape(2, 4, 2, 7))
    gram = module.map.weight.T @ module.map.weight
    assert torch.allclose(gram / gram[0, 0], torch.eye(4), atol=1e-5)


def test_vocabulary_mlp_learns_the_words_and_is_seeded() -> None:
    shared = words(200, 6, 6)
    learnable = SharedWords(shared.words, 0.02 * shared.source, 0.3 * torch.tanh(shared.source))
    modules = [
        vocabulary_mlp(learnable, Shape(2, 6, 2, 6), seed=seed, epochs=40, lr=5e-3) for seed in (0, 0, 1)
    ]
    learned = modules[0](learnable.source.unflatten(0, (100, 2))).flatten(0, 1)
    left = (learned - learnable.target).square().mean() / learnable.target.square().mean()
    assert float(left.detach()) < 0.3
    assert torch.equal(modules[0].inward.weight, modules[1].inward.weight)
    assert not torch.equal(modules[0].inward.weight, modules[2].inward.weight)


def test_pursuit_chooses_the_words_that_sklearn_chooses() -> None:
    shared = words(30, 12, 3)
    unit = shared.source / shared.source.norm(dim=1, keepdim=True)
    vectors = torch.randn(5, 12)
    chosen, weights = pursue(vectors, unit, 4)
    for vector, ids, parts in zip(vectors, chosen, weights, strict=True):
        solver = OrthogonalMatchingPursuit(n_nonzero_coefs=4, fit_intercept=False)
        coefficients = solver.fit(unit.T.double().numpy(), vector.double().numpy()).coef_
        assert sorted(ids.tolist()) == np.nonzero(coefficients)[0].tolist()
        assert np.allclose(coefficients[ids], parts, atol=1e-5)


def test_a_word_of_the_source_comes_out_as_the_same_word_of_the_target() -> None:
    shared = words(30, 12, 3)
    carried = combination(shared, Shape(2, 12, 2, 3), per_token=1)(2 * shared.source[4:6])
    assert torch.allclose(carried, 2 * shared.target[4:6], atol=1e-5)


def test_a_full_combination_is_the_vocabulary_map() -> None:
    # With as many words as dimensions both are P_s E_s^-1 E_t, exactly.
    shared = words(6, 6, 4)
    prompt, shape = torch.randn(3, 6), Shape(3, 6, 3, 4)
    full = combination(shared, shape, per_token=6)(prompt)
    assert torch.allclose(full, least_squares(shared, shape)(prompt), atol=1e-3)


def test_whole_words_of_the_four_kinds_of_vocabulary() -> None:
    assert whole_words({"\u0120cat": 3, "cat": 4, "\u01201": 5}) == {"cat": 3}
    assert whole_words({"\u2581dog": 1, "s": 2}) == {"dog": 1}
    assert whole_words({"cat": 1, "##s": 2, "[MASK]": 3}) == {"cat": 1}
    assert whole_words({"cat": 1, "<mask>": 2, ".": 3}) == {"cat": 1}


def test_words_are_shared_across_kinds_of_vocabulary_in_source_order() -> None:
    source = {"\u0120dog": 2, "\u0120cat": 0, "\u0120bee": 1}
    shared = shared_words(
        source, torch.eye(3), {"cat": 1, "dog": 0, "##s": 2}, torch.arange(6.0).reshape(3, 2)
    )
    assert shared.words == ("cat", "dog")
    assert shared.source.tolist() == [[1, 0, 0], [0, 0, 1]] and shared.target.tolist() == [[2, 3], [0, 1]]


def test_no_shared_words_is_one_clear_line() -> None:
    with pytest.raises(UserError, match=r"share 0 whole words.*fit by distance or task"):
        shared_words({"cat": 0}, torch.eye(1), {"dog": 0}, torch.eye(1))


def test_the_learning_rate_is_in_units_of_the_words_of_both_models() -> None:
    source = torch.randn(8, 3)
    assert unit_of(SharedWords(tuple("abcdefgh"), source, 5 * source)) == pytest.approx(5)
