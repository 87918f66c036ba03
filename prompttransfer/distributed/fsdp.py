"""Sharding: the weights of a frozen model shared out among processes, layer by layer (PyTorch's FSDP2).

Each process keeps its share of every layer; when a layer runs, the whole of it is there for a moment. Nothing is
trained, so no gradient of a weight is ever made or exchanged. Norms, positions and the like, which are small, stay
whole. The same functions shard a model on CPUs (gloo) and on GPUs (NCCL).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tasks.errors import UserError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def stacks(model: Any) -> list[tuple[nn.Module, nn.ModuleList]]:
    """The encoder, and the decoder where there is one, each with its layers; of a decoder alone, the whole of it.

    Empty where there is none with a list of layers.
    """
    base = model.base_model
    parts = [getattr(base, name, None) for name in ("encoder", "decoder", "transformer")]
    inside = [part for part in parts if isinstance(part, nn.Module)] or [base]
    return [(part, child) for part in inside for child in part.children() if isinstance(child, nn.ModuleList)]


def check_shardable(model: Any, name: str) -> None:
    """Raise a UserError for a model whose layers are not where they are looked for."""
    if not stacks(model):
        raise UserError(
            f"the weights of backbone {name} cannot be shared out: it has no encoder or decoder with a list of layers; "
            f"use --strategy ddp"
        )


def shard(model: Any, mesh: DeviceMesh) -> Any:
    """Share the weights of a Hugging Face model out over the first dimension of `mesh`, in place.

    Its tables of embeddings then answer by `rows` and, where the model reads its answer off them, by `scores`.
    """
    try:
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
    except ImportError as error:
        raise UserError(
            f"--strategy fsdp needs torch 2.6 or newer, this is {torch.__version__}: install a newer one"
        ) from error
    group = partial(fully_shard, mesh=mesh["data_parallel"], reshard_after_forward=True)
    table, output = model.get_input_embeddings(), model.get_output_embeddings()
    tied = output.weight is table.weight
    for module in (table,) if tied else (table, output):
        _share_table(model, module, group)
        for method in ("rows", "scores"):
            register_fsdp_forward_method(module, method)
    for stack, layers in stacks(model):
        for layer in layers:
            group(layer)
        group(stack)
    return model


def _share_table(model: Any, table: Any, group: Any) -> None:
    """Shard one table; modules that share its weight ask it from then on."""
    weight = table.weight
    if _sole(model, table):
        # It has to lie where it is found when the stack that it is taken out of is sharded.
        model.table, model.get_input_embeddings = table, lambda: table
    running = _inside_stacks(model)  # what lies in one of these is sharded with the stack
    sharers = [
        (parent, name, child)
        for parent in list(model.modules())
        for name, child in parent.named_children()
        if getattr(child, "weight", None) is weight and (child is not table or parent in running)
    ]
    for parent, name, child in sharers:
        setattr(parent, name, _Asking(table, child))
    table.rows = MethodType(_rows, table)
    table.scores = MethodType(_scores, table)
    group(table)


def _sole(model: Any, table: Any) -> bool:
    """Whether a table of words lies in a stack of layers and nowhere else, as that of a decoder."""
    if table is not model.get_input_embeddings():
        return False
    running = _inside_stacks(model)
    holders = [parent for parent in model.modules() if any(child is table for child in parent.children())]
    return bool(holders) and all(parent in running for parent in holders)


def _inside_stacks(model: Any) -> set[nn.Module]:
    return {module for stack, _ in stacks(model) for module in stack.modules()}


def _rows(table: Any, ids: Tensor) -> Tensor:
    return F.embedding(ids, table.weight)


def _scores(table: Any, states: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(states, table.weight, bias)


class _Asking(nn.Module):
    """Stands where a module shared its weight with a table that is sharded now."""

    def __init__(self, table: Any, replaced: Any):
        super().__init__()
        self._table = (table,)  # in a tuple: it is sharded where it is, and once
        self.bias = getattr(replaced, "bias", None)
        self._looks_up = isinstance(replaced, nn.Embedding)

    def forward(self, inputs: Tensor) -> Tensor:
        """Rows for ids, or scores for states, as the replaced module."""
        table = self._table[0]
        result: Tensor = table(inputs) if self._looks_up else table.scores(inputs, self.bias)
        return result

    def rows(self, ids: Tensor) -> Tensor:
        """Rows of the table."""
        result: Tensor = self._table[0].rows(ids)
        return result


@contextmanager
def recomputing(
    layers: nn.ModuleList, wanted: bool, inside: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Iterator[None]:
    """Inside the block the inner values of layers are not kept for the backward pass but computed again in it.

    By the layers' own switch, which they only obey in training mode; their dropouts stay off. `inside` makes the surroundings
    of a layer that is computed again.
    """
    if not wanted or not torch.is_grad_enabled():
        yield
        return
    again = partial(
        checkpoint,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), inside()),
    )
    for layer in layers:
        layer.gradient_checkpointing, layer.training = True, True  # type: ignore[assignment]
        layer._gradient_checkpointing_func = again  # type: ignore[assignment]
    try:
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing, layer.training = False, False  # type: ignore[assignment]


def table_rows(table: Any, ids: Tensor) -> Tensor:
    """Rows of a table of embeddings or of an output layer, sharded or not, [..., width] for ids [...]."""
    rows: Tensor = table.rows(ids) if hasattr(table, "rows") else table.weight[ids]
    return rows


def held(tensor: Tensor) -> Tensor:
    """The part of a weight that this process holds; the whole of one that is not sharded."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def whole(tensor: Tensor) -> Tensor:
    """The whole of a weight; every process must ask for it."""
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full
