"""Composition without training, against products that are formed."""

import pytest
import torch
from test_methods import batch_of, moved, owners
from toys import noise

from prompttransfer.adaptations.composition import Part, dare, ties, truncated, weighted_sum
from prompttransfer.adaptations.merging import merged
from prompttransfer.adaptations.methods import parse_method
from prompttransfer.backbones.interventions import BARE
from tasks.errors import UserError


def lora(tiny, text="lora:rank=2", seed=0, weight=1.0):
    method = parse_method(text)
    return Part(method, moved(method, tiny("roberta"), seed=seed).tensors(), weight)


def prompt(values, weight=1.0):
    return Part(parse_method("prompt:length=2"), {"prompt_embeddings": torch.tensor(values)}, weight)


def products(method, tensors):
    """s B A of every map."""
    return {
        name: method.scale * tensors[name.replace("lora_A", "lora_B")] @ value
        for name, value in tensors.items()
        if "lora_A" in name
    }


WAYS = {
    "sum": weighted_sum,
    "ties": lambda parts: ties(parts, density=0.3),
    "dare": lambda parts: dare(parts, drop=0.5, generator=torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("way", WAYS)
def test_one_part_of_weight_one_is_itself(tiny, way):
    other = lora(tiny, seed=1, weight=0.0)
    for parts in ([lora(tiny)], [prompt([[1.0, 2.0], [3.0, 4.0]])], [other, lora(tiny)]):
        method, tensors = WAYS[way](parts)
        assert method == parts[-1].method
        assert all(torch.equal(value, parts[-1].tensors[name]) for name, value in tensors.items())
        assert tensors.keys() == parts[-1].tensors.keys()


def test_a_weighted_sum_of_loras_is_that_of_their_products(tiny):
    """Different ranks and scales too, where a sum of factors would not even have a shape."""
    parts = [lora(tiny, weight=0.3), lora(tiny, "lora:rank=3,alpha=5,stabilised=true", seed=1, weight=-2.0)]
    method, tensors = weighted_sum(parts)
    assert method.rank == 5
    first, second = (products(part.method, part.tensors) for part in parts)
    for name, value in products(method, tensors).items():
        torch.testing.assert_close(value, 0.3 * first[name] - 2 * second[name], atol=1e-5, rtol=1e-5)


def test_a_composed_lora_runs_as_its_parts_merged_one_after_another(tiny):
    backbone, parts = tiny("roberta"), [lora(tiny), lora(tiny, seed=1)]
    banks = [part.method.bank(backbone, [part.method.restored(part.tensors)]) for part in parts]
    method, tensors = weighted_sum(parts)
    own = method.bank(backbone, [method.restored(tensors)]).rows(owners(0, 0, 0))
    batch = batch_of(backbone, method)
    with torch.no_grad(), merged(backbone, banks[0]), merged(backbone, banks[1]):
        both = backbone.label_scores(BARE, batch)
    with torch.no_grad():
        torch.testing.assert_close(backbone.label_scores(own, batch), both, atol=1e-5, rtol=1e-5)


def test_a_weighted_sum_of_prompts_by_hand():
    _, tensors = weighted_sum([prompt([[1.0, 2.0], [3.0, 4.0]], 0.5), prompt([[4.0, 0.0], [0.0, 4.0]], 0.25)])
    assert tensors["prompt_embeddings"].tolist() == [[1.5, 1.0], [1.5, 3.0]]


def test_ties_by_hand():
    # half of each is kept: (-6, 5) and (4, -7); the signs of the sums are -, + and -, of which those that agree are averaged
    first, second = prompt([[1.0, -6.0], [5.0, 2.0]]), prompt([[1.0, 4.0], [0.5, -7.0]])
    _, tensors = ties([first, second], density=0.5)
    assert tensors["prompt_embeddings"].tolist() == [[0.0, -6.0], [5.0, -7.0]]
    _, tensors = ties([first, second], density=1.0)
    assert tensors["prompt_embeddings"].tolist() == [[1.0, -6.0], [2.75, -7.0]]


def test_ties_of_loras_is_that_of_their_products(tiny):
    """Where all values are kept and the rank holds everything, against the products that were formed."""
    parts = [lora(tiny, "lora:rank=8"), lora(tiny, "lora:rank=8", seed=1)]
    method, tensors = ties(parts, density=1.0)
    first, second = (products(part.method, part.tensors) for part in parts)
    for name, value in products(method, tensors).items():
        both = torch.stack([first[name], second[name]])
        agree = both.sign() == both.sum(0).sign()
        torch.testing.assert_close(value, (both * agree).sum(0) / agree.sum(0), atol=1e-4, rtol=1e-4)


def test_dare_keeps_the_sum_on_average():
    parts = [
        Part(parse_method("prompt"), {"prompt_embeddings": 2 + 0.1 * noise(200, 50, seed=s)}) for s in (0, 1)
    ]
    _, tensors = dare(parts, drop=0.4, generator=torch.Generator().manual_seed(0))
    whole = parts[0].tensors["prompt_embeddings"] + parts[1].tensors["prompt_embeddings"]
    assert abs(tensors["prompt_embeddings"].mean() / whole.mean() - 1) < 0.03
    single = tensors["prompt_embeddings"] == parts[0].tensors["prompt_embeddings"] / 0.6
    assert 0.2 < single.float().mean() < 0.28  # 0.6 x 0.4 have the first alone
    again = dare(parts, drop=0.4, generator=torch.Generator().manual_seed(0))[1]
    assert torch.equal(again["prompt_embeddings"], tensors["prompt_embeddings"])


def test_a_truncated_product_is_the_nearest_of_its_rank():
    product = noise(6, 5, seed=2)
    into, out = truncated(product, 2)
    rest = torch.linalg.svdvals(product)[2:].norm()
    torch.testing.assert_close((product - out @ into).norm(), rest, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (lambda tiny: [], "nothing to compose"),
        (lambda tiny: [lora(tiny, weight=0.0)], "nothing to compose"),
        (lambda tiny: [lora(tiny), prompt([[1.0], [2.0]])], "cannot be composed with each other"),
        (lambda tiny: [prompt([[1.0]]), prompt([[1.0, 2.0]])], "prompts of different shapes"),
        (lambda tiny: [lora(tiny), lora(tiny, "lora:rank=2,targets=key")], "LoRAs at different linear maps"),
        (lambda tiny: [lora(tiny, "dora:rank=2"), lora(tiny, "dora:rank=2", 1)], "dora cannot be composed"),
    ],
)
def test_what_cannot_be_composed_is_one_line(tiny, parts, message):
    with pytest.raises(UserError, match=message):
        weighted_sum(parts(tiny))


@pytest.mark.parametrize(("way", "message"), [("ties", "density 0"), ("dare", "drop 1")])
def test_a_share_that_leaves_nothing_is_one_line(tiny, way, message):
    with pytest.raises(UserError, match=message):
        if way == "ties":
            ties([lora(tiny)], density=0)
        else:
            dare([lora(tiny)], drop=1, generator=torch.Generator())
