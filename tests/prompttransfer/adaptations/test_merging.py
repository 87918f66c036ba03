"""Merging: the bare model with changed weights is the model with the adaptation, and then itself again."""

import pytest
import torch
from method_texts import TEXTS
from test_methods import CASES, batch_of, moved, owners, started

from prompttransfer.adaptations.bank import BareBank
from prompttransfer.adaptations.merging import merged
from prompttransfer.adaptations.methods import METHODS, parse_method
from prompttransfer.backbones.interventions import BARE
from tasks.errors import UserError

FOLDS = ("lora", "lora-plus", "lora-fa", "delta-lora", "dora", "adalora", "vera", "ia3", "bitfit")


@pytest.mark.parametrize(("kind", "text"), [(k, t) for k, t in CASES if t.partition(":")[0] in FOLDS])
def test_a_merged_adaptation_gives_the_same_scores_and_leaves_no_trace(tiny, kind, text):
    backbone, method = tiny(kind), parse_method(text)
    bank = method.bank(backbone, [moved(method, backbone)])
    batch, before = batch_of(backbone, method), backbone.digest()
    with torch.no_grad():
        bare = backbone.label_scores(BARE, batch)
        own = backbone.label_scores(bank.rows(owners(0, 0, 0)), batch)
        with merged(backbone, bank) as changed:
            folded = changed.label_scores(BARE, batch)
            assert backbone.digest() != before
        again = backbone.label_scores(BARE, batch)
    torch.testing.assert_close(folded, own, atol=1e-5, rtol=1e-5)
    assert torch.equal(again, bare)
    assert backbone.digest() == before


def test_weights_come_back_where_the_block_fails(tiny):
    backbone, method = tiny("roberta"), parse_method("lora:rank=2")
    before = backbone.digest()
    with pytest.raises(ZeroDivisionError), merged(backbone, method.bank(backbone, [moved(method, backbone)])):
        raise ZeroDivisionError
    assert backbone.digest() == before


@pytest.mark.parametrize("text", ["lora:rank=2", "dora:rank=2", "ia3"])
def test_weights_that_were_laid_out_in_bf16_follow_a_merge_and_back(backbone_folder, text):
    from prompttransfer.backbones.loading import load_backbone

    backbone, method = load_backbone(str(backbone_folder("roberta")), precision="bf16"), parse_method(text)
    bank = method.bank(backbone, [moved(method, backbone)])
    batch = batch_of(backbone, method)
    with torch.no_grad():
        bare = backbone.label_scores(BARE, batch)
        own = backbone.label_scores(bank.rows(owners(0, 0, 0)), batch)
        with merged(backbone, bank):
            folded = backbone.label_scores(BARE, batch)
        again = backbone.label_scores(BARE, batch)
    assert (folded - own).abs().max() < 0.1 * (bare - own).abs().max()
    assert torch.equal(again, bare)


def test_what_does_more_than_change_linear_maps_is_not_merged(tiny):
    backbone = tiny("roberta")
    for name in METHODS.keys() - set(FOLDS):
        method = parse_method(TEXTS[name][0])
        bank = method.bank(backbone, [started(method, backbone, 0)])
        with (
            pytest.raises(UserError, match="only what changes linear maps can be merged"),
            merged(backbone, bank),
        ):
            pass
    with pytest.raises(UserError, match="only what changes linear maps"), merged(backbone, BareBank()):
        pass


def test_one_adaptation_is_merged_at_a_time(tiny):
    backbone, method = tiny("roberta"), parse_method("lora:rank=2")
    bank = method.bank(backbone, [moved(method, backbone, seed=seed) for seed in (0, 1)])
    with (
        pytest.raises(UserError, match="one adaptation can be merged at a time, not 2"),
        merged(backbone, bank),
    ):
        pass
