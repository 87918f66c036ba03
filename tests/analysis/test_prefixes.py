"""Similarity of prefixes, attention by attention, against vectors that are cut out by hand."""

import pytest
import torch

from analysis.prefixes import SIMILARITIES, split_attentions
from tasks.errors import UserError

GENERATOR = torch.Generator().manual_seed(0)
LENGTH, ATTENTIONS, SIZE = 3, 2, 4
PREFIXES = torch.randn(2, LENGTH, ATTENTIONS * 2 * SIZE, generator=GENERATOR)
INITIAL = torch.randn(2, LENGTH, ATTENTIONS * 2 * SIZE, generator=GENERATOR)


def cut(prefixes, member, attention, side):
    """Keys (0) or values (1) of one attention: of each its keys come first, then its values."""
    start = (2 * attention + side) * SIZE
    return prefixes[member, :, start : start + SIZE].double()


def of(name, prefixes=PREFIXES, initial=INITIAL):
    return SIMILARITIES[name](split_attentions(prefixes, ATTENTIONS), split_attentions(initial, ATTENTIONS))


def cosine(one, other):
    return float(torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0))


@pytest.mark.parametrize("attention", [0, 1])
@pytest.mark.parametrize(("side", "name"), enumerate(("keys", "values")))
def test_keys_are_compared_with_keys_of_the_same_attention(attention, side, name):
    one, other = (cut(PREFIXES, member, attention, side) for member in (0, 1))
    assert float(of(f"{name}-concat")[attention, 0, 1]) == pytest.approx(cosine(one, other))
    pairs = [cosine(first, second) for first in one for second in other]
    assert float(of(f"{name}-average")[attention, 0, 1]) == pytest.approx(sum(pairs) / len(pairs))
    changes = [cut(PREFIXES, m, attention, side) - cut(INITIAL, m, attention, side) for m in (0, 1)]
    assert float(of(f"{name}-concat-minus-initial")[attention, 0, 1]) == pytest.approx(cosine(*changes))


def test_average_is_blind_to_the_order_of_positions():
    turned = PREFIXES.clone()
    turned[1] = turned[1, [2, 0, 1]]
    assert torch.allclose(of("keys-average", turned), of("keys-average"))
    assert not torch.allclose(of("keys-concat", turned), of("keys-concat"))


def test_what_is_no_prefix_is_refused():
    with pytest.raises(UserError, match="prefixes of 3 attentions must be"):
        split_attentions(PREFIXES, 3)
    with pytest.raises(UserError, match="needs the initial vectors"):
        SIMILARITIES["keys-concat-minus-initial"](split_attentions(PREFIXES, ATTENTIONS), None)
