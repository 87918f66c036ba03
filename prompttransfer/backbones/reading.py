"""What a folder from outside may hold: its configuration is checked before a model is made of it.

`transformers` raises anything at all over a damaged file; `read_part` makes one line of it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from prompttransfer.backbones.revisions import weight_files
from tasks.documents import read_json_object
from tasks.errors import MachineError, UserError

Value = TypeVar("Value")

MOST = {"num_hidden_layers": 1000, "num_layers": 1000, "num_decoder_layers": 1000}
"""Sizes above which a setting is taken for a mistake; ten billion for all others."""

SIZES = {
    "masked-lm": (
        *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
        *("max_position_embeddings", "type_vocab_size"),
    ),
    "t5": (
        *("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads"),
        *("relative_attention_num_buckets", "relative_attention_max_distance"),
    ),
    "causal-lm": ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
}
"""Family -> the settings that are whole numbers above 0."""
_ENCODER = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"),
    "intermediate_size",
)
_FACTORISED = (*_ENCODER, "embedding_size", "type_vocab_size")
SIZES_OF = {
    "distilbert": (*_ENCODER[:-1], "hidden_dim"),
    "albert": (*_FACTORISED, "num_hidden_groups", "inner_group_num"),
    "electra": _FACTORISED,
    "deberta-v2": _ENCODER,
    "modernbert": (*_ENCODER, "local_attention"),
    "mpnet": (*_ENCODER, "relative_attention_num_buckets"),
    "longt5": (*SIZES["t5"], "local_radius", "global_block_size"),
}
"""The same of architectures that have others than their family."""


def read_part(name: str, part: str, load: Callable[[], Value]) -> Value:
    """What `load` gives; its errors are a UserError, but for those of the machine."""
    try:
        return load()
    except (UserError, MachineError, MemoryError, torch.OutOfMemoryError):
        raise
    except BaseException as error:
        # The tokenizers library panics with a BaseException of its own.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if isinstance(error, RuntimeError) and "allocate memory" in str(error):
            raise
        if isinstance(error, PermissionError):
            raise MachineError(f"backbone {name!r}: its {part} cannot be read: {error}") from error
        raise UserError(f"backbone {name!r} cannot be loaded: its {part}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """What an error says, short and in one line."""
    words = " ".join(str(error).split())
    if not words or not isinstance(error, OSError | ValueError):
        words = f"{type(error).__name__}: {words}"
    return words if len(words) <= 300 else f"{words[:300]} ..."


def read_config(
    name: str, folder: Path, families: tuple[str, ...], runs: Callable[[str], bool]
) -> dict[str, Any]:
    """`config.json`, of a model that `runs`; UserError otherwise, with the `families` that are known by name."""
    values = read_json_object(folder / "config.json", "model configuration", any_number=True)
    kind = values.get("model_type")
    if not isinstance(kind, str):
        raise UserError(f"backbone {name!r}: config.json names no model_type, such as {', '.join(families)}")
    if not runs(kind):
        said = kind if kind.isprintable() and len(kind) < 40 else repr(kind[:40])
        raise UserError(f"backbone {name!r} is a {said} model: prompttransfer runs {', '.join(families)}")
    for key in ("quantization_config", "compression_config"):
        if values.get(key) is not None:
            raise UserError(
                f"backbone {name!r} is quantised ({key}), which prompttransfer does not run: give the model with its "
                f"weights in float32, bfloat16 or float16"
            )
    return values


def check_config(name: str, folder: Path, config: Any, family: str) -> None:
    """Raise UserError for settings with which no model can be made, or one that is not what runs here."""

    def refuse(key: str, needed: str) -> UserError:
        return UserError(
            f"backbone {name!r}: {key} is {getattr(config, key, None)!r} in config.json: it must be {needed}"
        )

    for key in SIZES_OF.get(config.model_type, SIZES[family]):
        value = getattr(config, key, None)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MOST.get(key, 10**10):
            raise refuse(key, f"a whole number from 1 to {MOST.get(key, 10**10)}")
    for epsilon in ("layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps"):
        if not 0 <= getattr(config, epsilon, 0) < 1:
            raise refuse(epsilon, "at least 0 and below 1")
    pad = config.pad_token_id
    if (pad is None and config.model_type in ("roberta", "xlm-roberta")) or (
        pad is not None and not (-1 if family == "causal-lm" else 0) <= pad < config.vocab_size
    ):
        raise refuse("pad_token_id", f"a token's id, below vocab_size {config.vocab_size}")
    {"masked-lm": _check_masked_lm, "t5": _check_t5, "causal-lm": _check_causal_lm}[family](config, refuse)
    least = _least_weights(config, family)
    held = sum(file.stat().st_size for file in weight_files(folder))
    if least > held:
        raise UserError(
            f"backbone {name!r}: config.json describes a model of more than {least} weights, its files hold {held} bytes: "
            f"they are not of one model, or are cut short"
        )


Refuse = Callable[[str, str], UserError]


def _check_masked_lm(config: Any, refuse: Refuse) -> None:
    if config.hidden_size % config.num_attention_heads:
        raise refuse("num_attention_heads", f"a divisor of hidden_size {config.hidden_size}")
    for key in ("is_decoder", "add_cross_attention"):
        if getattr(config, key, False):
            raise refuse(key, "false: a masked language model reads in both directions")
    if getattr(config, "position_embedding_type", None) not in (None, "absolute"):
        raise refuse("position_embedding_type", "absolute")


def _check_t5(config: Any, refuse: Refuse) -> None:
    buckets = config.relative_attention_num_buckets
    if buckets < 4:
        raise refuse("relative_attention_num_buckets", "at least 4")
    if config.relative_attention_max_distance <= buckets // 2:
        raise refuse("relative_attention_max_distance", f"above {buckets // 2}, half the buckets")
    start = getattr(config, "decoder_start_token_id", None)
    if not isinstance(start, int) or isinstance(start, bool) or not 0 <= start < config.vocab_size:
        raise refuse(
            "decoder_start_token_id",
            f"the id of the token that answers begin with, below {config.vocab_size}",
        )


def _check_causal_lm(config: Any, refuse: Refuse) -> None:
    shared = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    if config.num_attention_heads % shared:
        raise refuse("num_key_value_heads", f"a divisor of num_attention_heads {config.num_attention_heads}")
    if getattr(config, "head_dim", None) is None and config.hidden_size % config.num_attention_heads:
        raise refuse("num_attention_heads", f"a divisor of hidden_size {config.hidden_size}")
    if getattr(config, "add_cross_attention", False):
        raise refuse("add_cross_attention", "false: a decoder alone reads no other states")


def _least_weights(config: Any, family: str) -> int:
    """Weights that a model of these sizes has at the least; each takes a byte or more."""
    if config.model_type in SIZES_OF:
        narrow = getattr(config, "embedding_size", None) or config.hidden_size
        return int(narrow * config.vocab_size)
    if family == "t5":
        layers, inner = config.num_layers + config.num_decoder_layers, config.num_heads * config.d_kv
        return int(config.d_model * (config.vocab_size + layers * (4 * inner + 2 * config.d_ff)))
    if family == "causal-lm":
        narrow = min(config.hidden_size, getattr(config, "word_embed_proj_dim", None) or config.hidden_size)
        return int(narrow * config.vocab_size + config.num_hidden_layers * config.hidden_size**2)
    rows = config.vocab_size + config.max_position_embeddings + config.type_vocab_size
    layer = 4 * config.hidden_size + 2 * config.intermediate_size
    return int(config.hidden_size * (rows + config.num_hidden_layers * layer))
