"""Backbones by name: embedded ones, hub names and local folders, loaded frozen and in the best precision here.

A family of models is one file beside this one and one entry in `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from prompttransfer.backbones.base import Backbone, Batch, Row
from prompttransfer.backbones.masked_lm import MaskedLM
from prompttransfer.backbones.t5 import T5
from prompttransfer.heap import drop_compiled, keep_heap
from prompttransfer.placement import SINGLE, Placement
from prompttransfer.places import EMBEDDED, locate
from prompttransfer.processes import check_devices, choose_device, join, quiet_lightning
from prompttransfer.sharding import check_shardable
from tasks.errors import UserError, unknown

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = [
    "EMBEDDED",
    "FAMILIES",
    "Backbone",
    "Batch",
    "Row",
    "choose_device",
    "load_backbone",
    "outline_backbone",
]

FAMILIES: dict[str, type[Backbone]] = {"roberta": MaskedLM, "bert": MaskedLM, "t5": T5}
"""`model_type` of a Hugging Face configuration -> the class that runs it."""

PRECISIONS = ("auto", "bf16", "fp32")


def load_backbone(
    name: str, *, precision: str = "auto", device: str = "auto", placement: Placement = SINGLE
) -> Backbone:
    """Load a backbone by embedded name, local folder or hub name.

    With a `placement` of several devices this is called in each of their processes (`run_on`), which then share rows
    and, sharded, weights; a process reads the whole checkpoint into its host memory before it keeps its share.
    precision: `auto` takes bf16 where the hardware computes in it (CPU: AMX or avx512_bf16), else float32. float16 is
    not offered: it overflows in T5 (transformers#5651).
    On a CPU the process keeps memory that it has used (heap.py).
    Raises UserError for a name that is nothing, MachineError when the hub cannot be reached.
    """
    check_devices(placement, device)
    place = choose_device(device)
    processes = join(placement, place.type)
    if placement.several:
        place = processes.fabric.device
    dtype = choose_dtype(precision, place)
    folder, revision = locate(name)
    config = _read(name, lambda: _auto().AutoConfig.from_pretrained(folder))
    _check_family(name, config)
    model = _load_model(name, folder, config, dtype, place)
    tokenizer = _read(name, lambda: _auto().AutoTokenizer.from_pretrained(folder))
    first = torch.device("cpu") if placement.shards else place
    backbone = FAMILIES[config.model_type](model, tokenizer, name=name, revision=revision, device=first)
    backbone.processes = processes
    if place.type == "cpu":
        keep_heap()  # from here on: what loading needs for a moment goes back
        drop_compiled(backbone.layer_products)
    if placement.shards:
        check_shardable(model, name)
        with quiet_lightning():
            processes.fabric.setup_module(model, move_to_device=False)
        backbone.sharded = True
        backbone.move(place)
    return backbone


def outline_backbone(name: str) -> Backbone:
    """A backbone without its weights (on torch's `meta` device): enough for label words, lengths and sizes.

    Raises what `load_backbone` raises for a name that is nothing or cannot be reached.
    """
    folder, revision = locate(name)
    config = _read(name, lambda: _auto().AutoConfig.from_pretrained(folder))
    _check_family(name, config)
    auto = _auto().AutoModelForSeq2SeqLM if config.model_type == "t5" else _auto().AutoModelForMaskedLM
    meta = torch.device("meta")
    with meta:
        model = auto.from_config(config)
    tokenizer = _read(name, lambda: _auto().AutoTokenizer.from_pretrained(folder))
    return FAMILIES[config.model_type](model, tokenizer, name=name, revision=revision, device=meta)


def _check_family(name: str, config: PretrainedConfig) -> None:
    if config.model_type not in FAMILIES:
        raise UserError(
            f"backbone {name!r} is a {config.model_type} model: prompttransfer runs {', '.join(FAMILIES)}"
        )


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type that frozen weights are held in."""
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    fast = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def _auto() -> Any:
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # what matters is checked by `_load_model`
    return transformers


def _load_model(
    name: str, folder: str, config: PretrainedConfig, dtype: torch.dtype, device: torch.device
) -> Any:
    transformers = _auto()
    auto = (
        transformers.AutoModelForSeq2SeqLM if config.model_type == "t5" else transformers.AutoModelForMaskedLM
    )
    # Measured on CPU: in bf16 the backward of scaled-dot-product attention costs 1.4 to 2.5 times a whole step of
    # the plain one (scripts/benchmark.py shows both).
    attention = "eager" if device.type == "cpu" and dtype is torch.bfloat16 else "sdpa"
    if config.model_type == "t5":
        attention = "eager"
    model, info = _read(
        name,
        lambda: auto.from_pretrained(
            folder, config=config, dtype=dtype, attn_implementation=attention, output_loading_info=True
        ),
    )
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(
            f"backbone {name!r} lacks weights that are needed, such as {missing[0]}: "
            f"a language-model head is required, so choose the pre-trained checkpoint"
        )
    return model


def _read(name: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (OSError, ValueError, KeyError) as error:
        line = str(error).strip().splitlines()[0]
        raise UserError(f"backbone {name!r} cannot be loaded: {line}") from error
