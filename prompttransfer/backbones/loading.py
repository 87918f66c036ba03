"""Backbones by name: embedded ones, hub names and local folders, loaded frozen and in the best precision here.

A family of models is one file beside this one and one entry in `FAMILIES`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.causal_lm import CausalLM, PlainCausalLM
from prompttransfer.backbones.decoder_layers import LAYERS
from prompttransfer.backbones.encoders import ENCODERS, PlainEncoder, missing_head
from prompttransfer.backbones.kernels.host_memory import drop_compiled, keep_heap
from prompttransfer.backbones.kernels.nf4 import check_nf4, hold_in_nf4
from prompttransfer.backbones.locating import locate
from prompttransfer.backbones.masked_lm import MaskedLM
from prompttransfer.backbones.reading import check_config, read_config, read_part
from prompttransfer.backbones.seq2seq import T5, LongT5
from prompttransfer.backbones.tokens import check_tokenizer, load_tokenizer, otherwise_read
from prompttransfer.distributed.fsdp import check_shardable
from prompttransfer.distributed.placement import SINGLE, Placement
from prompttransfer.distributed.processes import check_devices, choose_device, join, quiet_lightning
from tasks.documents import read_json_object
from tasks.errors import UserError, unknown

if TYPE_CHECKING:
    from transformers import PretrainedConfig


DECODERS = ("llama", "mistral", "qwen2", "gpt2", "qwen3", "gemma3_text", "phi", "opt", "gpt_neox")
"""Decoders that are tested; any other that transformers loads as a causal LM runs if its logits are what we take them for."""
FAMILIES: dict[str, type[Backbone]] = {
    **dict.fromkeys(("roberta", "bert", "xlm-roberta"), MaskedLM),
    **dict.fromkeys(ENCODERS, PlainEncoder),
    **dict.fromkeys(("t5", "mt5"), T5),
    "longt5": LongT5,
    **{kind: CausalLM if kind in LAYERS else PlainCausalLM for kind in DECODERS},
}
"""`model_type` of a Hugging Face configuration -> the class that runs it."""


def family_class(model_type: str) -> type[Backbone] | None:
    """The class that runs models of a type; None where there is none."""
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    from transformers.models.auto import modeling_auto as known

    others = known.MODEL_FOR_MASKED_LM_MAPPING_NAMES, known.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    decodes = model_type in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return PlainCausalLM if decodes and not any(model_type in names for names in others) else None


EAGER = ("t5", "mt5", "longt5", "deberta-v2", "mpnet")
"""Types whose modules compute attention in one way alone, or are run here in that one."""
ENGINES = ("auto", "frozen", "plain")
PRECISIONS = ("auto", "bf16", "fp32", "nf4")


def load_backbone(
    name: str,
    *,
    revision: str | None = None,
    precision: str = "auto",
    device: str = "auto",
    placement: Placement = SINGLE,
    engine: str = "auto",
) -> Backbone:
    """Load a backbone by embedded name, local folder or hub name.

    revision: the commit, branch or tag of a hub model; of a folder what it must be at (backbones/revisions.py).
    With a `placement` of several devices this is called in each of their processes (`run_on`), which then share rows
    and, sharded, weights; a process reads the whole checkpoint into its host memory before it keeps its share.
    precision: `auto` takes bf16 where the hardware computes in it (CPU: AMX or avx512_bf16), else float32. float16 is
    not offered: it overflows in T5 (transformers#5651). `nf4` holds the linear maps of the layers in four bits and computes
    as `auto` does (backbones/kernels/nf4.py).
    engine: `frozen` runs layers written for frozen weights, `plain` the modules of transformers, so that what was done to
    those counts; `auto` takes the first where the family has it and its weights are not sharded.
    On a CPU the process keeps memory that it has used (backbones/kernels/host_memory.py).
    Raises UserError for a name that is nothing, a model that is not one of FAMILIES and a folder that is damaged or
    whose tokenizer is not its model's, MachineError when the hub cannot be reached.
    """
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    if precision == "nf4":
        check_nf4(engine, shards=placement.shards)
        engine = "plain"
    if placement.shards:
        if engine == "frozen":
            raise UserError("--strategy fsdp runs on engine 'plain' alone: leave the engine out, or use ddp")
        engine = "plain"
    check_devices(placement, device)
    place = choose_device(device)
    processes = join(placement, place.type)
    if placement.several:
        place = processes.fabric.device
    dtype = choose_dtype(precision, place)
    folder, found = locate(name, revision)
    config, tokenizer = _load_outline(name, Path(folder))
    model = _load_model(name, folder, config, dtype, place)
    first = torch.device("cpu") if placement.shards or precision == "nf4" else place
    backbone = _made(name, Path(folder), found, model, tokenizer, first, engine)
    backbone.processes = processes
    if precision == "nf4":
        hold_in_nf4(backbone, place)
    if isinstance(backbone, CausalLM) and model.config.model_type not in FAMILIES:
        backbone.check_head()
    if place.type == "cpu":
        keep_heap()  # from here on: what loading needs for a moment goes back
        drop_compiled(backbone.layer_products)
    if placement.shards:
        check_shardable(model, name)
        with quiet_lightning():
            processes.fabric.setup_module(model, move_to_device=False)
        backbone.sharded = True
        backbone.move(place)  # and knows the modules anew: sharding puts its own in place of some
    return backbone


def outline_backbone(name: str, revision: str | None = None, *, precision: str = "auto") -> Backbone:
    """A backbone without its weights (on torch's `meta` device): enough for label words, lengths and sizes.

    Of a precision nothing is taken but whether it is nf4.

    Raises what `load_backbone` raises for a name that is nothing, cannot be reached, or is damaged.
    """
    folder, found = locate(name, revision)
    config, tokenizer = _load_outline(name, Path(folder))
    meta = torch.device("meta")
    with meta:
        model = read_part(
            name,
            "configuration",
            # Of the ways to attend the one that keeps most, which no device is worse than.
            lambda: _auto_class(config).from_config(config, attn_implementation="eager"),
        )
    if precision != "nf4":
        return _made(name, Path(folder), found, model, tokenizer, meta)
    backbone = _made(name, Path(folder), found, model, tokenizer, meta, "plain")
    hold_in_nf4(backbone, meta)
    return backbone


def _made(
    name: str,
    folder: Path,
    revision: str,
    model: Any,
    tokenizer: Any,
    device: torch.device,
    engine: str = "auto",
) -> Backbone:
    """A backbone whose tokenizer was checked against its model."""
    config = model.config
    family = family_class(config.model_type)
    assert family is not None  # `_load_outline` refused what nothing runs
    backbone = family(
        model,
        tokenizer,
        name=name,
        revision=revision,
        device=device,
        engine=None if engine == "auto" else engine,
    )
    rows = backbone.word_embeddings.num_embeddings
    backbone.remarks = check_tokenizer(
        name, folder, tokenizer, model_type=config.model_type, rows=rows, config=config
    )
    return backbone


def read_otherwise(backbone: Backbone, texts: Sequence[str]) -> int:
    """How many of `texts` transformers' AutoTokenizer reads otherwise than the file that counts here."""
    folder = Path(locate(backbone.name, backbone.revision)[0])
    return otherwise_read(backbone.tokenizer, folder, [f" {text.strip()}" for text in texts])


def _load_outline(name: str, folder: Path) -> tuple[PretrainedConfig, Any]:
    """The configuration of a folder, checked, and its tokenizer."""
    values = read_config(name, folder, tuple(FAMILIES), runs=lambda kind: family_class(kind) is not None)
    transformers = _quiet_transformers()
    config = read_part(
        name,
        "config.json",
        lambda: transformers.AutoConfig.from_pretrained(str(folder), trust_remote_code=False),
    )
    # What a folder says of how results are handed over must not change what they are.
    config.return_dict, config.output_hidden_states, config.output_attentions = True, False, False
    config.chunk_size_feed_forward = 0
    if values.get("decoder_start_token_id") is None:
        config.decoder_start_token_id = _start_of_generation(folder)
    family = _family(config)
    read_part(name, "config.json", lambda: check_config(name, folder, config, family))
    return config, load_tokenizer(name, folder, config.model_type)


def _start_of_generation(folder: Path) -> Any:
    """Where config.json does not say what answers begin with, generation_config.json may."""
    path = folder / "generation_config.json"
    if not path.exists():
        return None
    return read_json_object(path, "generation settings", any_number=True).get("decoder_start_token_id")


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type that frozen weights are held in, or that those in NF4 are computed with."""
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if precision in ("bf16", "fp32"):
        return torch.bfloat16 if precision == "bf16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    fast = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def _quiet_transformers() -> Any:
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # what matters is checked by `_load_model`
    return transformers


def _auto_class(config: PretrainedConfig) -> Any:
    transformers = _quiet_transformers()
    return {
        "masked-lm": transformers.AutoModelForMaskedLM,
        "t5": transformers.AutoModelForSeq2SeqLM,
        "causal-lm": transformers.AutoModelForCausalLM,
    }[_family(config)]


def _family(config: PretrainedConfig) -> str:
    made = family_class(config.model_type)
    assert made is not None
    return made.family


def _load_model(
    name: str, folder: str, config: PretrainedConfig, dtype: torch.dtype, device: torch.device
) -> Any:
    # Measured on CPU: in bf16 the backward of scaled-dot-product attention costs 1.4 to 2.5 times a whole step of
    # the plain one (scripts/benchmark.py shows both).
    attention = "eager" if device.type == "cpu" and dtype is torch.bfloat16 else "sdpa"
    if config.model_type in EAGER or config.model_type not in FAMILIES:
        attention = "eager"
    model, info = _read_weights(name, folder, config, dtype, attention)
    for settings in missing_head(config.model_type):
        if info["missing_keys"]:
            config.update(dict(settings))
            model, info = _read_weights(name, folder, config, dtype, attention)
    for key, held, needed in sorted(info["mismatched_keys"]):
        raise UserError(
            f"backbone {name!r}: {key} is {list(held)} in its weights, {list(needed)} by its config.json: they are not of "
            f"one model"
        )
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(
            f"backbone {name!r} lacks weights that are needed, such as {missing[0]}: a language-model head is required, so "
            f"choose the pre-trained checkpoint, with the config.json that belongs to it"
        )
    unused = sorted(
        key for key in info["unexpected_keys"] if _INSIDE.search(key) and not key.endswith(_CONSTANTS)
    )
    if unused:
        raise UserError(
            f"backbone {name!r} has weights that its config.json has no place for, such as {unused[0]}: "
            f"they are not of one model"
        )
    return model


def _read_weights(
    name: str, folder: str, config: PretrainedConfig, dtype: torch.dtype, attention: str
) -> tuple[Any, Any]:
    """The model of a configuration with a folder's weights, and what did not fit."""
    from transformers import GenerationConfig

    found: tuple[Any, Any] = read_part(
        name,
        "weights",
        lambda: _auto_class(config).from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation=attention,
            generation_config=GenerationConfig(),  # the folder's own would steer ours
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # they are an error where they are found, with the sizes
            output_loading_info=True,
        ),
    )
    return found


_INSIDE = re.compile(r"(?:layers?|block|h)\.\d+\.")
"""Names of weights inside a layer: none of them may be left out. Poolers and other heads are not needed."""
_CONSTANTS = (
    "rotary_emb.inv_freq",
    "attn.bias",
    "attn.masked_bias",
    "attention.bias",
    "attention.masked_bias",
)
"""What old checkpoints of decoders hold in every layer and is no weight."""
