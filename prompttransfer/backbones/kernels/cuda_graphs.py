"""Training calls of a GPU recorded as CUDA graphs: one launch a call instead of one for every product.

At the batch sizes that prompts are trained with, a GPU is done with a product before Python has asked for the next
one: of a step of roberta-large at batch 16 it works a fifth. A frozen backbone does the same for every batch of one
shape, so the loss and its gradient are recorded once a shape and replayed from then on, and time is padded to a
multiple of 8 so that shapes are few. What is computed does not change; every call of a shape, the first one too, is a
replay, so that a resumed run does what an uninterrupted one did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

if TYPE_CHECKING:
    from prompttransfer.backbones.rows import Batch

MULTIPLE = 8
"""Time, prompt included, is padded to a multiple of this, which a GPU's products prefer too."""
MOST = 128
"""Recordings kept; each holds the launches of a forward and a backward pass (values live in memory that all share)."""
PRODUCTS = 2e11
"""Multiply-adds of a layer above which a GPU works longer than Python takes to launch it, so that nothing is won.

Measured on an H100, where a layer's launches, forward and backward, take 1.2 ms (roberta-base).
"""

RowLoss = Callable[[Tensor, "Batch"], Tensor]
"""Prompts [batch, length, width] and a batch to the loss of each row, [batch]."""


@dataclass(frozen=True, eq=False)
class _Recording:
    """A call of one shape: where its inputs go, the launches, and where its results lie."""

    graph: torch.cuda.CUDAGraph
    prompts: Tensor
    batch: Batch
    losses: Tensor
    gradient: Tensor

    def replay(self, prompts: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Losses [batch] and the gradient of their sum, [batch, length, width], in memory of their own."""
        self.prompts.copy_(prompts)
        for into, values in zip(_tensors(self.batch), _tensors(batch), strict=True):
            into.copy_(values)
        self.graph.replay()
        return self.losses.clone(), self.gradient.clone()


class Graphs:
    """The recordings of one backbone on one GPU."""

    def __init__(self, device: torch.device):
        self.device = device
        self._recordings: dict[tuple[Any, ...], _Recording] = {}
        self._prompts: dict[torch.Size, tuple[Tensor, Tensor]] = {}
        """Where prompts of a shape go and their gradient lies, for all recordings."""
        self._largest = 0
        self._stream = torch.cuda.Stream(device)

    def loss(self, row_loss: RowLoss, prompts: Tensor, batch: Batch, *, kind: Any = None) -> Tensor:
        """What `row_loss(prompts, batch)` gives, differentiable in `prompts`.

        Recordings are told apart by shapes and `kind`, so whatever else changes the work of `row_loss` belongs into
        `kind`. The weights must stay where they are; their values may change.
        """
        values = (getattr(batch, field.name) for field in fields(batch))
        key = (kind, prompts.shape, *(getattr(value, "shape", value) for value in values))
        if key not in self._recordings:
            self._make_room(batch.rows * (batch.ids.shape[1] + prompts.shape[1]))
            self._recordings[key] = self._record(row_loss, prompts, batch)
        losses: Tensor = _Replay.apply(prompts, batch, self._recordings[key])
        return losses

    def _make_room(self, tokens: int) -> None:
        """Forget all recordings where there are too many, and before one that is larger than all.

        Smaller ones fit into the memory of a larger one, but not the other way round.
        """
        if tokens > self._largest or len(self._recordings) == MOST:
            self._recordings.clear()
            self._prompts.clear()
            self._largest = max(tokens, self._largest)
            self._pool = torch.cuda.graph_pool_handle()

    def _record(self, row_loss: RowLoss, prompts: Tensor, batch: Batch) -> _Recording:
        if prompts.shape not in self._prompts:
            self._prompts[prompts.shape] = (torch.empty_like(prompts), torch.empty_like(prompts))
        given, gradient = self._prompts[prompts.shape]
        given.copy_(prompts)
        copies: dict[str, Any] = {name: tensor.clone() for name, tensor in _named_tensors(batch)}
        batch = replace(batch, **copies)

        def call() -> Tensor:
            inputs = given.detach().requires_grad_()
            losses = row_loss(inputs, batch)
            gradient.copy_(torch.autograd.grad(losses.sum(), inputs)[0])
            return losses.detach()

        with torch.enable_grad():
            self._stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self._stream):
                call()  # what libraries do only once cannot be recorded
            torch.cuda.current_stream(self.device).wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            # Other threads, such as those that watch over several processes, may use the GPU meanwhile.
            with (
                _workspace_of_its_own(),
                torch.cuda.graph(
                    graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
                ),
            ):
                losses = call()
        return _Recording(graph, given, batch, losses, gradient)


@contextmanager
def _workspace_of_its_own() -> Iterator[None]:
    """Let cuBLAS take its working memory from the recording's own.

    It keeps one a stream, and whoever clears them, as Lightning does when a run ends, would take it from under a
    recording that was made with it.
    """
    torch._C._cuda_clearCublasWorkspaces()
    yield
    torch._C._cuda_clearCublasWorkspaces()


class _Replay(torch.autograd.Function):
    """A recorded call; rows do not meet, so each row's gradient is its own loss's."""

    @staticmethod
    def forward(ctx: Any, prompts: Tensor, batch: Batch, recording: _Recording) -> Tensor:
        losses, gradient = recording.replay(prompts, batch)
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outer[:, None, None], None, None


def _named_tensors(batch: Batch) -> list[tuple[str, Tensor]]:
    named = [(field.name, getattr(batch, field.name)) for field in fields(batch)]
    return [(name, value) for name, value in named if isinstance(value, Tensor)]


def _tensors(batch: Batch) -> list[Tensor]:
    return [tensor for _, tensor in _named_tensors(batch)]


def padded(batch: Batch, *, length: int, most: int | None, pad_id: int) -> Batch:
    """The same rows with time, prompt included, and the time of targets up to a multiple, but no further than `most`."""
    time = batch.ids.shape[1] + length
    room = -time % MULTIPLE if most is None else min(-time % MULTIPLE, most - time)
    ids, mask = F.pad(batch.ids, (0, room), value=pad_id), F.pad(batch.mask, (0, room))
    targets = batch.targets
    if targets is not None:
        targets = F.pad(targets, (0, -targets.shape[1] % MULTIPLE), value=-100)
    return replace(batch, ids=ids, mask=mask, targets=targets)
