"""PEFT's folders of every type that a method here writes, read as that method with its tensors.

One entry a type: from its configuration to the method. What was read is proved by writing it again: where our
configuration would say something else than PEFT's, the adapter holds what the method does not have, and that is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from prompttransfer.adaptations.adaptation import check_tensors
from prompttransfer.adaptations.method import Method
from prompttransfer.adaptations.methods import make_method
from prompttransfer.tensor_files import read_tensors, read_torch
from tasks.documents import read_json_object, shortened
from tasks.errors import MissingError, UserError, unknown

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
Config = Mapping[str, Any]
USUAL = (
    *({"query", "value"}, {"q", "v"}, {"q_proj", "v_proj"}, {"q_lin", "v_lin"}, {"query_proj", "value_proj"}),
    *({"c_attn"}, {"query_key_value"}, {"qkv_proj"}, {"Wqkv"}),
)
"""What the maps of queries and values are called in the models that run here; a method names none where it means these."""


def _targets(config: Config) -> dict[str, Any]:
    """The maps that are changed, by the ends of their names; none, which means the usual ones, where they are those."""
    named = config.get("target_modules")
    if not isinstance(named, list):
        return {}
    ends = sorted({str(name).rpartition(".")[2] for name in named})
    layers = [
        {str(name).rpartition(".")[0] for name in named if str(name).endswith(f".{end}")} for end in ends
    ]
    if any(found != layers[0] for found in layers):  # some layers alone
        return {"targets": sorted(map(str, named))}
    usual = set(ends) in USUAL
    return {} if usual else {"targets": ends}


def _lora(config: Config) -> Method:
    name = "dora" if config.get("use_dora") else "lora"
    values = {"rank": "r", "alpha": "lora_alpha", "stabilised": "use_rslora"}
    return make_method(name, _settings(config, values) | _targets(config))


def _adalora(config: Config) -> Method:
    values = {"rank": "init_r", "target": "target_r", "alpha": "lora_alpha", "penalty": "orth_reg_weight"}
    return make_method("adalora", _settings(config, values) | _targets(config))


def _vera(config: Config) -> Method:
    values = {"rank": "r", "initial": "d_initial", "projection": "projection_prng_key"}
    return make_method("vera", _settings(config, values) | _targets(config))


def _prefix(config: Config) -> Method:
    return make_method("p-tuning-v2", _settings(config, {"length": "num_virtual_tokens"}))


TYPES: dict[str, Callable[[Config], Method]] = {
    "LORA": _lora,
    "ADALORA": _adalora,
    "VERA": _vera,
    "IA3": lambda config: make_method("ia3", {}),
    "PREFIX_TUNING": _prefix,
}
"""PEFT's type -> the method that it is here; soft prompts are read by exchange.py."""

NOTHING = ("bias", "rank_pattern", "alpha_pattern", "modules_to_save", "layer_replication", "lora_bias")
"""What an adapter may have beside its method; none of it is read."""
AGREE = ("r", "lora_alpha", "use_rslora", "use_dora", "init_r", "num_virtual_tokens", "prefix_projection")
"""What decides the logits and has to be what we would write."""


class PeftFolder(NamedTuple):
    """What `read_peft_folder` returns."""

    method: Method
    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    """`format`, `file`, `stored_as`, and where they are known `base_model` and `family`."""


def read_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json of a folder."""
    try:
        return read_json_object(folder / CONFIG, "PEFT configuration", any_number=True)
    except MissingError:
        raise UserError(f"folder {folder} has no {CONFIG}: give a PEFT folder, or a single file") from None


def peft_type(folder: Path) -> str:
    """What kind of adapter a folder holds, in PEFT's words."""
    return str(read_config(folder).get("peft_type"))


def read_peft_folder(folder: Path) -> PeftFolder:
    """Read an adapter of PEFT. Raises UserError for a type that is none of TYPES, or one that holds more than its method."""
    config = read_config(folder)
    kind = str(config.get("peft_type"))
    if kind not in TYPES:
        raise unknown(f"{folder}: PEFT type that can be read:", shortened(kind), ["PROMPT_TUNING", *TYPES])
    if more := [name for name in NOTHING if config.get(name) not in (None, False, "none", {}, [])]:
        raise UserError(
            f"{folder} is a PEFT adapter with {more[0]} {shortened(str(config[more[0]]))}, which is not read: only the "
            f"{kind} itself is"
        )
    method = TYPES[kind](config)
    stored = _stored(folder)
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in stored.values()})
    tensors = {name: tensor.detach().float().contiguous().clone() for name, tensor in stored.items()}
    check_tensors(tensors, str(folder))
    method.restored(tensors)
    ours = method.peft_config(family="masked-lm", tensors=tensors) or {}
    for name in AGREE:
        if name in ours and name in config and config[name] != ours[name]:
            raise UserError(
                f"{folder}: {name} is {shortened(str(config[name]))}, and what is in {WEIGHTS} needs {ours[name]}"
            )
    return PeftFolder(method, tensors, _facts(folder, config, kind, dtypes))


def families(config: Config) -> dict[str, str]:
    """The base model and family that a configuration tells, as far as it does."""
    known = {"SEQ_2_SEQ_LM": "t5", "FEATURE_EXTRACTION": "masked-lm"}
    said = {
        "base_model": config.get("base_model_name_or_path"),
        "family": known.get(str(config.get("task_type"))),
    }
    return {name: value for name, value in said.items() if value and isinstance(value, str)}


def _facts(folder: Path, config: Config, kind: str, dtypes: list[str]) -> dict[str, Any]:
    told = {"file": folder.name, "stored_as": ", ".join(dtypes), "type": kind}
    return {"format": "peft", **told, **families(config)}


def _stored(folder: Path) -> Mapping[str, Tensor]:
    weights = next((folder / name for name in (WEIGHTS, PICKLE) if (folder / name).exists()), None)
    if weights is None:
        raise UserError(f"{folder} has no {WEIGHTS} and no {PICKLE}: the adapter is incomplete")
    if weights.name == WEIGHTS:
        return read_tensors(weights, "PEFT adapter").tensors
    found = read_torch(weights, "PEFT adapter")
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{weights} holds no table of tensors")
    return found


def _settings(config: Config, names: Mapping[str, str]) -> dict[str, Any]:
    """Setting -> value, of those that the configuration gives; the method's own defaults for the others."""
    return {ours: config[theirs] for ours, theirs in names.items() if config.get(theirs) is not None}
