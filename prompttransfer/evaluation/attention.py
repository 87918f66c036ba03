"""How much each source prompt counts for each row, where prompts are mixed by attention (adaptations/methods/attempt.py)."""

from __future__ import annotations

import torch
from torch import Tensor

from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.methods.attempt import Attempt, MixingBank
from prompttransfer.adaptations.running import bank_of
from prompttransfer.backbones.base import Backbone
from prompttransfer.evaluation.encoding import EncodedTask
from prompttransfer.evaluation.evaluate import batches
from tasks.errors import UserError

OWN = "its own"
"""What the target's own prompt is called among the sources."""


def mixed_prompts(adaptation: Adaptation) -> list[str]:
    """Names of what an adaptation mixes, its own prompt last. Raises UserError for one that mixes nothing."""
    if not isinstance(adaptation.method, Attempt):
        raise UserError(
            f"{adaptation.name!r} is of method {adaptation.method.name}, which mixes no prompts: give one of method attempt"
        )
    count = len(adaptation.tensors["sources"])
    named = adaptation.notes.get("sources") or [f"source {place}" for place in range(1, count + 1)]
    return [*named, OWN]


@torch.no_grad()
def attention_weights(backbone: Backbone, adaptation: Adaptation, encoded: EncodedTask) -> Tensor:
    """The weight of each of `mixed_prompts` in each row, [rows, prompts], float32 on the CPU; rows sum to 1."""
    count = len(mixed_prompts(adaptation))
    bank = bank_of(backbone, [adaptation])
    assert isinstance(bank, MixingBank)
    found = torch.zeros(len(encoded.rows), count)
    for indices, batch in batches(backbone, encoded, prompts=1):
        own = bank.rows(torch.zeros(batch.rows, dtype=torch.long, device=batch.ids.device))
        found[indices] = own.attention(backbone.word_embeddings(batch.ids), batch.mask).float().cpu()
    return found
