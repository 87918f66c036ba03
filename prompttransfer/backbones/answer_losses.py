"""What an answer by label words costs, a number a row, from the scores of the words."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from prompttransfer.backbones.rows import Batch


def answer_losses(scores: Tensor, batch: Batch) -> Tensor:
    """The loss of each row, [batch], of log-probabilities over the label words, [batch, classes].

    Cross-entropy where one label is right; where shares of probability are, KL(shares || probabilities), as LM-BFF has it
    for regression (Gao et al. 2021, arXiv 2012.15723, section 3.2). Where each label is right or wrong by itself, the mean over
    a row's labels of the binary cross-entropy of their log odds. Rows without a gold label cost 0.
    """
    if batch.several:
        assert batch.shares is not None
        there = batch.shares.isfinite()
        scores, shares = (part.masked_fill(~there, 0.0) for part in (scores, batch.shares))
        losses = F.binary_cross_entropy_with_logits(scores, shares, reduction="none").masked_fill(~there, 0.0)
        return losses.sum(dim=-1) / there.sum(dim=-1).clamp(min=1)
    if batch.shares is not None:
        return F.kl_div(scores, batch.shares.nan_to_num(), reduction="none").sum(dim=-1)
    assert batch.labels is not None
    return F.nll_loss(scores, batch.labels, reduction="none", ignore_index=-1)
