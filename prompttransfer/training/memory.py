"""How much memory a training run needs, said before it is run.

What autograd keeps is not estimated by a formula: the heaviest batch goes through the backbone's own loss on torch's
`meta` device, where tensors have shapes but no values, and the bytes kept for the backward pass are added up. To
them come the weights, the largest values that live beside them for a moment, and on a CPU the process itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from prompttransfer.adaptations.heads import needs_head, with_heads
from prompttransfer.adaptations.method import Method
from prompttransfer.backbones.interventions import Interventions
from prompttransfer.backbones.kernels.host_memory import compiled_kept
from prompttransfer.backbones.kernels.linear import has_bf16_products
from prompttransfer.distributed.fsdp import stacks
from prompttransfer.distributed.placement import SINGLE, Placement
from prompttransfer.distributed.processes import Processes
from prompttransfer.evaluation.encoding import EncodedTask
from prompttransfer.evaluation.evaluate import batch_sizes
from tasks.task import Task

if TYPE_CHECKING:
    from prompttransfer.backbones.base import Backbone
    from prompttransfer.backbones.layouts import Layout
    from prompttransfer.backbones.rows import Row
    from prompttransfer.training.batches import BankData

LIBRARIES = 80_000_000
"""Bytes that matrix products, optimizer and Lightning take when they first run, measured on a CPU."""
EVALUATION = 2.8
"""How often the widest layer's values fit into what an evaluation takes on a CPU. It comes on top of what training keeps:
the heap holds on to what was freed (backbones/kernels/host_memory.py), and larger values do not fit into its gaps (measured on roberta-base)."""
COMPILED = 1_050_000
"""Bytes of a product that oneDNN has compiled for one number of rows, in bf16 on a CPU, .7 to 1.4 MB measured on the
embedded models; of a batch for training come `TRAINED` of them and of one for evaluation `EVALUATED`."""
TRAINED, EVALUATED = 14, 6
MODULES = 1.5
"""How much more a sharded backbone keeps, whose layers run by their own modules: up to this, measured on a CPU."""


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of a run, by what they are for."""

    process: int
    """The interpreter with its libraries and the rows, and products compiled in bf16; 0 on a GPU, where only tensors count."""
    weights: int
    """Of a sharded backbone this process's share; in bf16 on a CPU with the copies that products work on."""
    kept: int
    """Values that the backward pass needs."""
    working: int
    """Values that live for a moment: the gradients of the widest layer, or an evaluation without gradients; of a sharded
    backbone also the layers that are brought together."""
    rows: int
    """Rows of the heaviest batch, in this process."""
    tokens: int
    """Its tokens, prompt and padding included."""

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.process + self.weights + self.kept + self.working

    def __str__(self) -> str:
        parts = {
            "process": self.process,
            "weights": self.weights,
            "kept for the backward pass": self.kept,
            "working": self.working,
        }
        listed = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in parts.items() if size)
        return (
            f"expected peak memory: {self.total / 1e9:.2f} GB ({listed}); the heaviest batch runs {self.rows} rows "
            f"and {self.tokens} tokens at a time"
        )


def expected_memory(
    backbone: Backbone,
    data: BankData,
    evaluated: Mapping[EncodedTask, int],
    method: Method,
    *,
    dtype: torch.dtype,
    device: torch.device,
    checkpoints: bool = False,
    placement: Placement = SINGLE,
) -> Memory:
    """The peak of training the rows of `data`, in each of the processes of `placement`.

    `backbone` is an outline without weights (`outline_backbone`); `evaluated` says of each task how many members
    of `method` are evaluated on its rows at one time.
    """
    backbone.move(backbone.device, dtype)
    backbone.checkpoints = checkpoints
    backbone.batch_for(device)
    backbone.processes = Processes(placement)
    rows, shapes = _heaviest(data)
    task = next(iter(evaluated)).task
    kept, tokens = kept_bytes(
        backbone, rows, outlined(backbone, method, task, len(data.rows), len(rows)), layout=data.layout
    )
    kept += len(data.rows) * member_bytes(method, backbone, task, device)
    if placement.shards:
        kept = int(MODULES * kept)
    weights, together = _weights(backbone, placement)
    process = _process(device)
    sizes = {
        size for task, prompts in evaluated.items() for size in batch_sizes(backbone, task, prompts=prompts)
    }
    if device.type == "cpu" and dtype is torch.bfloat16 and has_bf16_products():
        weights += _laid_out(backbone) if backbone.engine == "frozen" and not placement.shards else 0
        compiled = TRAINED * shapes + EVALUATED * len(sizes)
        process += COMPILED * min(compiled, compiled_kept(backbone.layer_products))
    most = max(math.prod(size) for size in sizes)
    training, evaluation = _training(backbone, tokens, checkpoints, len(rows)), _widest(backbone, most)
    # On a GPU recorded calls have memory of their own (backbones/kernels/cuda_graphs.py).
    on_cpu = device.type == "cpu"
    working = max(training, int(EVALUATION * evaluation)) if on_cpu else training + evaluation
    return Memory(
        process=process,
        weights=weights,
        kept=kept,
        working=working + together,
        rows=len(rows),
        tokens=tokens,
    )


def outlined(backbone: Backbone, method: Method, task: Task, members: int, rows: int) -> Interventions:
    """What a bank of so many members does to so many rows, where `backbone` has no values: neither has it."""
    member = method.outline(backbone, task)
    # One member may take a shorter way than several; what runs apart is there for one at a time.
    alike = 1 if method.apart else min(members, 2)
    owners = torch.arange(rows, device=backbone.device) % alike
    head = torch.zeros(len(task.labels), backbone.state_width), torch.zeros(len(task.labels))
    heads = [head if needs_head(method, task) else None] * alike
    return with_heads(method.bank(backbone, [member] * alike), heads, backbone).rows(owners)


def member_bytes(method: Method, backbone: Backbone, task: Task, device: torch.device) -> int:
    """Bytes of a member's parameters with their gradients and the two moments of AdamW.

    A CPU also holds the best of it so far, and while the state is written copies of all but the gradients.
    """
    times = 8 if device.type == "cpu" else 4
    return times * sum(parameter.nbytes for parameter in method.outline(backbone, task).parameters())


def kept_bytes(
    backbone: Backbone, rows: Sequence[Row], own: Interventions, *, layout: Layout
) -> tuple[int, int]:
    """Bytes that autograd keeps for one batch, weights left out, and the batch's tokens with padding and what is reserved."""
    batch = backbone.batch(rows, layout=layout)
    seen: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage._cdata] = storage  # held, so that no other storage takes its address
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = backbone.loss(own, batch)
    tokens = len(rows) * (batch.ids.shape[1] + own.reserved)
    weights = {parameter.untyped_storage()._cdata for parameter in backbone.model.parameters()}
    total = sum(storage.nbytes() for address, storage in seen.items() if address not in weights)
    if (
        backbone.checkpoints
    ):  # the inputs of layers are then held by the layers' calls, where the hook sees nothing
        total += tokens * backbone.state_width * backbone.dtype.itemsize * backbone.layers
    del loss
    return total, tokens


def _weights(backbone: Backbone, placement: Placement) -> tuple[int, int]:
    """Bytes of weights that a process holds, and of those that it brings together for a moment if they are sharded.

    That is the layer that runs and the one that is fetched meanwhile, or the table of embeddings.
    """

    def size(module: nn.Module) -> int:
        return sum(weight.nbytes for weight in {id(w): w for w in module.parameters()}.values())

    if not placement.shards:
        return size(backbone.model), 0
    shared = [layer for _, layers in stacks(backbone.model) for layer in layers] + [backbone.word_embeddings]
    split = sum(size(module) for module in shared)
    left = size(backbone.model) - split
    return left + split // placement.count, max(2 * size(shared[0]), size(shared[-1]))


def _laid_out(backbone: Backbone) -> int:
    """Bytes of the copies of an encoder's weights that oneDNN's products in bf16 work on (backbones/kernels/linear.py)."""
    _, layers = stacks(backbone.model)[0]
    return 2 * sum(weight.nbytes for weight in layers.parameters() if weight.ndim == 2)


def _heaviest(data: BankData) -> tuple[list[Row], int]:
    """The rows of the batch with most tokens, of all that will run, and the number of different shapes of batches."""
    everybody = range(len(data.rows))
    fixed = data.reserved + data.backbone.special_tokens
    heaviest: list[Row] = []
    most = 0
    shapes = set()
    for step in range(data.steps):
        for part in data.plan(step, everybody):
            part = part[:: -data.backbone.processes.count]  # of all processes, the one with the longest rows
            shape = len(part), part[0][1].size + fixed
            shapes.add(shape)
            if math.prod(shape) > most:
                most, heaviest = math.prod(shape), [row for _, row, _ in part]
    return heaviest, len(shapes)


def _widest(backbone: Backbone, tokens: int) -> int:
    """Bytes of what lives at one time in a feed-forward layer, the widest: its values, or their gradients."""
    return tokens * (2 * backbone.feed_forward + 4 * backbone.state_width) * backbone.dtype.itemsize


def _training(backbone: Backbone, tokens: int, checkpoints: bool, rows: int) -> int:
    """Bytes of what lives for a moment in a backward pass."""
    taken = _widest(backbone, tokens)
    if checkpoints:  # one layer's inner values live again while its backward pass runs
        attention = backbone.heads * (tokens // rows)
        taken += (
            tokens * (5 * backbone.state_width + backbone.feed_forward + attention) * backbone.dtype.itemsize
        )
    return taken


def _process(device: torch.device) -> int:
    """Bytes that this process holds now, and what the libraries will take on top; 0 on a GPU."""
    if device.type != "cpu":
        return 0
    status = Path("/proc/self/statm")
    if status.exists():
        import resource

        return int(status.read_text().split()[1]) * resource.getpagesize() + LIBRARIES
    import psutil

    return int(psutil.Process().memory_info().rss) + LIBRARIES
