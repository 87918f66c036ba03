"""Similarity of updates of low rank, against the products that are formed."""

import math

import pytest
import torch

from analysis.low_rank import (
    AT_MAPS,
    SIMILARITIES,
    inner_products,
    principal_angles,
    product_cosine,
    product_cosines,
    subspace_overlaps,
)
from tasks.errors import UserError


def update(seed, ranks=(2, 3)):
    generator = torch.Generator().manual_seed(seed)
    return {
        site: (torch.randn(rank, 7, generator=generator), torch.randn(5, rank, generator=generator))
        for site, rank in zip(("query", "value"), ranks, strict=True)
    }


UPDATES = [update(0), update(1, ranks=(4, 1)), update(2)]


def formed(one):
    return {site: (b @ a).double() for site, (a, b) in one.items()}


def test_cosines_are_those_of_the_products():
    products = [formed(one) for one in UPDATES]
    for site, cosines in product_cosines(UPDATES).items():
        flat = torch.stack([product[site].flatten() for product in products])
        wanted = torch.nn.functional.cosine_similarity(flat[:, None], flat[None], dim=-1)
        torch.testing.assert_close(cosines, wanted, atol=1e-6, rtol=1e-6)
    whole = torch.stack([torch.cat([p["query"].flatten(), p["value"].flatten()]) for p in products])
    wanted = torch.nn.functional.cosine_similarity(whole[:, None], whole[None], dim=-1)
    torch.testing.assert_close(product_cosine(UPDATES), wanted, atol=1e-6, rtol=1e-6)


def test_the_same_product_of_other_factors_is_the_same_update():
    a, b = UPDATES[0]["query"]
    turn = torch.tensor([[2.0, 1.0], [0.0, -3.0]])
    pair = [{"query": (a, b)}, {"query": (turn @ a, b @ torch.linalg.inv(turn))}]
    torch.testing.assert_close(product_cosine(pair), torch.ones(2, 2, dtype=torch.float64), atol=1e-6, rtol=0)


def test_an_update_that_is_zero_is_like_nothing():
    zero = {"query": (torch.randn(2, 7), torch.zeros(5, 2))}
    cosines = product_cosines([{"query": UPDATES[0]["query"]}, zero])["query"]
    torch.testing.assert_close(cosines, torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64))


def test_inner_products_of_an_update_with_itself_are_squared_norms():
    for site, inner in inner_products(UPDATES).items():
        wanted = torch.stack([formed(one)[site].square().sum() for one in UPDATES])
        torch.testing.assert_close(inner.diagonal(), wanted, atol=1e-5, rtol=1e-6)


def test_angles_by_hand():
    """Planes of three axes: one direction shared, the other turned by 30 degrees; B reads one and the same column."""
    turned = [0.0, math.cos(math.pi / 6), math.sin(math.pi / 6)]
    column = torch.tensor([[1.0, 2.0], [1.0, 0.0]])
    first = {"query": (torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), column)}
    second = {"query": (torch.tensor([[3.0, 0.0, 0.0], [1.0, *turned[1:]]]), 4 * column)}
    reads, writes = principal_angles(first, second)["query"]
    torch.testing.assert_close(
        reads, torch.tensor([math.pi / 6, 0.0], dtype=torch.float64), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(writes, torch.zeros(2, dtype=torch.float64), atol=1e-6, rtol=0)


def test_angles_are_of_the_spaces_of_the_formed_products():
    """The row space of B A is that of A, its column space that of B, where both have full rank."""
    first, second = UPDATES[0], UPDATES[2]
    for site, (reads, writes) in principal_angles(first, second).items():
        bases = [torch.linalg.svd(formed(one)[site]) for one in (first, second)]
        rank = len(first[site][0])
        rows = torch.linalg.svdvals(bases[0].Vh[:rank] @ bases[1].Vh[:rank].T).clamp(max=1).acos().flip(0)
        columns = (
            torch.linalg.svdvals(bases[0].U[:, :rank].T @ bases[1].U[:, :rank]).clamp(max=1).acos().flip(0)
        )
        torch.testing.assert_close(reads, rows, atol=1e-5, rtol=0)
        torch.testing.assert_close(writes, columns, atol=1e-5, rtol=0)


def test_directions_that_were_given_up_do_not_count():
    a, b = UPDATES[0]["value"]
    pruned = {"value": (a * torch.tensor([[1.0], [0.0], [1.0]]), b)}
    reads, writes = principal_angles({"value": (a, b)}, pruned)["value"]
    assert (len(reads), len(writes)) == (2, 3)
    reads, _ = principal_angles({"value": (a, b)}, {"value": (0 * a, b)})["value"]
    assert len(reads) == 0


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ([], "no update of low rank given"),
        ([UPDATES[0], {"query": UPDATES[0]["query"]}], "different linear maps"),
        ([{"query": (torch.ones(2, 7), torch.ones(5, 3))}], r"must be \[rank, in\], \[out, rank\]"),
        ([{"query": (torch.ones(2, 7) * math.nan, torch.ones(5, 2))}], "not finite"),
    ],
)
def test_what_cannot_be_compared_is_one_line(updates, message):
    with pytest.raises(UserError, match=message):
        product_cosine(updates)


def test_overlap_of_spaces_is_one_for_the_same_zero_for_crossing_and_half_at_45_degrees():
    across = torch.eye(3)

    def update(*rows):
        return {"map": (torch.stack([across[0]]), torch.stack(rows, dim=1))}

    same, crossing, between = update(across[0]), update(across[1]), update(across[0] + across[1])
    table = subspace_overlaps([same, crossing, between], "B")
    torch.testing.assert_close(
        table, torch.tensor([[1, 0, 0.5], [0, 1, 0.5], [0.5, 0.5, 1]], dtype=torch.float64)
    )
    torch.testing.assert_close(
        subspace_overlaps([same, crossing], "A"), torch.ones(2, 2, dtype=torch.float64)
    )
    none = {"map": (torch.zeros(1, 3), torch.zeros(3, 1))}
    assert subspace_overlaps([same, none], "B")[0, 1] == 0


@pytest.mark.parametrize("name", SIMILARITIES)
def test_each_map_by_itself_is_the_update_of_that_map_alone(name):
    updates, whole = [update(0), update(1), update(2)], SIMILARITIES[name]
    at_maps = AT_MAPS[name](updates)
    assert list(at_maps) == ["query", "value"]
    for site, found in at_maps.items():
        alone = whole([{site: one[site]} for one in updates])
        torch.testing.assert_close(found, alone, atol=1e-9, rtol=1e-9)
