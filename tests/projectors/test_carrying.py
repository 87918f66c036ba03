"""Carrying LoRAs between models, against values by hand and models that are the same but for the order of their states."""

import copy
from dataclasses import replace

import pytest
import torch
from scoring import scores
from toys import adapted, noise

from projectors.carrying import bridge, carry, counterparts, sites_of
from projectors.weights import CARRIERS, Carrier, Maps, carried, cross_lora, lora_x
from prompttransfer.adaptations.updates import lora_of, updates_of
from tasks.errors import UserError

EVERYWHERE = "targets=query+value+attention.output.dense"
FOUND = Carrier("cross-lora", signs="found")


def product(update):
    return update[1] @ update[0]


def trained(backbone, text="lora:rank=2", seed=0):
    return adapted(backbone, text, seed=seed)


def reordered(backbone, seed=3):
    """The same model with the entries of its states in another order, which no answer depends on."""
    made = copy.copy(backbone)
    model = copy.deepcopy(backbone.model)
    order = torch.randperm(backbone.width, generator=torch.Generator().manual_seed(seed))
    done = set()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.data_ptr() in done:
                continue
            done.add(value.data_ptr())
            writes = name.endswith(("output.dense.weight", "output.dense.bias", "lm_head.dense.bias"))
            if "Norm" in name or "layer_norm" in name or (writes and value.ndim == 1):
                value.copy_(value[order])
            elif "lm_head.dense" in name:
                value.copy_(value[order][:, order])
            elif writes:
                value.copy_(value[order])
            elif value.ndim == 2:
                value.copy_(value[:, order])
    return type(made)(
        model,
        backbone.tokenizer,
        name="reordered",
        revision="reordered",
        device=backbone.device,
        engine="plain",
    )


# Values by hand ---------------------------------------------------------------------------------------------------


def test_cross_lora_by_hand():
    """Diagonal weights, whose singular vectors are the axes: the first two axes of both are kept, and only they."""
    source, target = torch.diag(torch.tensor([3.0, 2.0, 1.0])), torch.zeros(4, 3)
    target[3, 0], target[1, 2] = 5.0, 4.0  # u_1 = e4, v_1 = e1; u_2 = e2, v_2 = e3
    update = (torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[10.0], [20.0], [30.0]]))
    found = product(carried(update, cross_lora(Maps(source, target, "map"), replace(FOUND, rank=2))))
    wanted = torch.zeros(4, 3)
    wanted[3, 0], wanted[3, 2], wanted[1, 0], wanted[1, 2] = 10.0, 20.0, 20.0, 40.0
    torch.testing.assert_close(found, wanted)


def test_lora_x_by_hand():
    """What lies along the target's first axis stays, all else goes."""
    target = torch.diag(torch.tensor([1.0, 5.0, 2.0]))
    update = (torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[10.0], [20.0], [30.0]]))
    found = product(carried(update, lora_x(Maps(target.clone(), target, "map"), Carrier("lora-x", rank=1))))
    wanted = torch.zeros(3, 3)
    wanted[1, 1] = 40.0
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("carrier", [FOUND, Carrier("lora-x", rank=3), Carrier("copy")])
def test_between_equal_weights_an_update_inside_the_kept_directions_comes_back(carrier):
    weight = noise(6, 5, seed=1)
    u, _, vh = torch.linalg.svd(weight)
    update = (noise(2, 3, seed=2) @ vh[:3], u[:, :3] @ noise(3, 2, seed=3))
    sides = CARRIERS[carrier.method](Maps(weight, weight.clone(), "map"), replace(carrier, rank=3))
    torch.testing.assert_close(product(carried(update, sides)), product(update), atol=1e-5, rtol=1e-5)


def test_the_map_brings_the_main_directions_onto_each_other():
    """L U_s = U_t exactly, and nothing smaller does it: the least squares solution of numpy's solver."""
    source, target = noise(6, 5, seed=4), noise(8, 7, seed=5)
    (u_t, u_s), _ = cross_lora(Maps(source, target, "map"), FOUND)
    solved = torch.linalg.lstsq(u_s.T, u_t.T, driver="gelsd").solution.T
    torch.testing.assert_close(u_t @ u_s.T, solved)


# Whole models -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [f"lora:rank=2,{EVERYWHERE}", f"adalora:rank=2,target=1,{EVERYWHERE}"])
def test_to_a_model_in_another_order_cross_lora_carries_all(tiny, text):
    """A reordering is an orthogonal map of all states: signs of shared words recover it and every answer is the same."""
    source = tiny("roberta")
    target = reordered(source)
    own = trained(source, text)
    torch.testing.assert_close(scores(target), scores(source), atol=1e-5, rtol=1e-5)
    over = bridge(source, target, sites_of(source, [own]), Carrier())
    torch.testing.assert_close(scores(target, carry(over, own)), scores(source, own), atol=1e-4, rtol=1e-4)
    copied = carry(bridge(source, target, sites_of(source, [own]), Carrier("copy")), own)
    assert (scores(target, copied) - scores(source, own)).abs().max() > 0.01


@pytest.mark.parametrize(
    "text", ["lora:rank=2", "lora-fa:rank=2", "dora:rank=2", "adalora:rank=2,target=1", "vera:rank=4"]
)
@pytest.mark.parametrize("method", CARRIERS)
def test_onto_itself_every_way_gives_the_adaptation_back(tiny, text, method):
    backbone = tiny("roberta")
    own = trained(backbone, text)
    carrier = Carrier(method, rank=None if method != "lora-x" else 16)
    made = carry(bridge(backbone, backbone, sites_of(backbone, [own]), carrier), own)
    assert made.method.name == "lora" and made.origin.start == f"carried:{method}"
    torch.testing.assert_close(scores(backbone, made), scores(backbone, own), atol=1e-4, rtol=1e-4)


def test_rank_and_factors_of_a_lora_stay(tiny):
    source, target = tiny("roberta"), tiny("roberta", width=24)
    made = carry(bridge(source, target, sites_of(source, [trained(source)]), Carrier()), trained(source))
    assert made.method.rank == 2 and made.backbone == target.name
    made.method.check_fits(target, made.tensors, made.name)


def test_updates_are_the_products_at_another_scale(tiny):
    backbone = tiny("roberta")
    own = trained(backbone, "lora:rank=2,alpha=6")
    updates = updates_of(backbone, own.method, own.tensors)
    again = updates_of(backbone, *lora_of(updates))
    for site, update in updates.items():
        a, b = (own.tensors[f"base_model.model.{site}.lora_{x}.weight"] for x in "AB")
        torch.testing.assert_close(product(update), 3 * b @ a)
        torch.testing.assert_close(product(again[site]), product(update))


def test_layers_stand_for_those_at_the_same_relative_depth(tiny):
    class Deep:
        family = "masked-lm"
        name = "deep"

        def __init__(self, layers, prefix):
            self.linear_maps = {f"{prefix}.encoder.layer.{i}.query": (4, 4) for i in range(layers)}
            self.model = type("Model", (), {"base_model_prefix": prefix})

    def pairs(source, target):
        found = counterparts(Deep(source, "bert"), Deep(target, "roberta"))
        return [int(place.split(".")[3]) for place in found.values()]

    assert pairs(4, 4) == [0, 1, 2, 3]
    assert pairs(4, 2) == [1, 3] and pairs(2, 4) == [0, 0, 1, 1] and pairs(12, 4) == [1, 4, 7, 10]


# Mistakes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda t: Carrier("cross-lore"), "did you mean 'cross-lora'"),
        (lambda t: Carrier(rank=0), "rank 0: it must be at least 1"),
        (lambda t: counterparts(t("roberta"), t("t5")), "is a masked-lm, .* a t5 backbone"),
        (lambda t: over(t, Carrier("copy")), "copy needs models of the same widths: .*; use cross-lora"),
        (lambda t: over(t, Carrier("lora-x")), "lora-x needs models of the same widths"),
        (lambda t: over(t, Carrier(rank=17)), "rank 17 is above the size of .*: use a rank of at most 16"),
        (lambda t: over(t, Carrier(), ["nothing"]), "none of the linear maps .* has a counterpart"),
        (lambda t: carried_one(t, "prompt"), "is a soft prompt, and this carries updates of weights"),
        (lambda t: carried_one(t, "bitfit"), "changes more than weights"),
        (lambda t: carried_one(t, "houlsby"), "only what changes linear maps"),
    ],
)
def test_a_mistake_is_one_line(tiny, act, message):
    with pytest.raises(UserError, match=message):
        act(tiny)


def over(tiny, carrier, sites=None):
    source = tiny("roberta")
    return bridge(source, tiny("roberta", width=24), sites or sites_of(source, [trained(source)]), carrier)


def carried_one(tiny, text):
    source = tiny("roberta")
    return carry(bridge(source, source, list(source.linear_maps), Carrier("copy")), trained(source, text))
