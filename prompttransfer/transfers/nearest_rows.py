"""Sources by nearest rows (RoSPr, Ye et al. 2022, arXiv 2210.03029): whose training rows are most like the target's texts?

A row is the mean over its tokens of the bare model's last states. Each of a few rows of the target, whose labels are not
looked at, votes for the tasks of the rows that are nearest to it among those of all source tasks; a task's similarity is
its share of the votes. Nothing is trained. Theirs is the inner product, here it is the cosine, so that long states are not
near to everything. 32 rows of the target, 100 of each source task and 10 votes a row are as we recall their settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.layouts import USUAL, Encoding
from prompttransfer.evaluation.encoding import encode_task
from prompttransfer.evaluation.evaluate import batches
from prompttransfer.transfers.zero_shot import Target
from tasks.loading import sample
from tasks.task import Example, Task

BY = "rows"
"""What this is called among similarities."""
QUERIES, STORED, NEAREST = 32, 100, 10
"""Rows of the target, rows of each source task, and votes of each row."""
RowsOf = Callable[[Sequence[Adaptation]], Sequence[Target]]
"""Sources -> their tasks, with rows."""


@torch.no_grad()
def pooled_states(
    backbone: Backbone, task: Task, examples: Sequence[Example], encoding: Encoding = USUAL
) -> Tensor:
    """The mean over the tokens of each row of the bare model's last states, of a T5 its encoder's; [rows, width] float32."""
    encoded = encode_task(backbone, task, examples, encoding, reserved=0)
    model = backbone.model
    inner = model.get_encoder() if model.config.is_encoder_decoder else model.base_model
    found = torch.zeros(len(examples), backbone.state_width)
    with backbone.on("plain"):
        for indices, batch in batches(backbone, encoded, prompts=1):
            states = inner(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state.float()
            shares = (batch.mask / batch.mask.sum(dim=1, keepdim=True)).to(states)
            found[indices] = torch.einsum("bt,btd->bd", shares, states).cpu()
    return found


def shares_of_votes(
    queries: Tensor, stored: Mapping[str, Tensor], nearest: int = NEAREST
) -> dict[str, float]:
    """Name -> share of the votes that `queries` [rows, width] give to `stored` rows [rows, width]; they sum to 1.

    Each votes for the owners of the `nearest` rows by cosine, of equal ones for those that come first.
    """
    owners = torch.cat([torch.full((len(rows),), place) for place, rows in enumerate(stored.values())])
    cosines = F.normalize(queries, dim=1) @ F.normalize(torch.cat([*stored.values()]), dim=1).T
    order = cosines.argsort(dim=1, descending=True, stable=True)[:, :nearest]
    votes = torch.bincount(owners[order].flatten(), minlength=len(stored)).double()
    return dict(zip(stored, (votes / votes.sum()).tolist(), strict=True))


def by_nearest_rows(
    backbone: Backbone,
    sources: Sequence[Adaptation],
    target: Task,
    examples: Sequence[Example],
    rows_of: RowsOf,
    encoding: Encoding = USUAL,
) -> dict[str, float]:
    """Name of each source -> the share of votes that its task has from `examples` of the target."""
    queries = pooled_states(backbone, target, sample(examples, 0, QUERIES), encoding)
    stored = {
        each.task.name: pooled_states(backbone, each.task, sample(each.splits.train, 0, STORED), encoding)
        for each in rows_of(sources)
    }
    shares = shares_of_votes(queries, stored)
    return {source.name: shares[source.task] for source in sources}
