"""The special tokens of a model's folder: what its files say, and what its family takes where they say nothing.

Nothing heavy is imported here. Whether a token is in the vocabulary is looked at when it is loaded (backbones/tokens.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.documents import read_json_object
from tasks.errors import UserError

SETTINGS = ("special_tokens_map.json", "tokenizer_config.json")
"""Files that name special tokens; what the later one says counts."""

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

_ROBERTA = {name: "</s>" if name in ("eos_token", "sep_token") else "<s>" for name in NAMES}
_ROBERTA |= {"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}
_BERT = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
_T5 = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
USUAL: dict[str, dict[str, str]] = {
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "mpnet": {**_ROBERTA, "unk_token": "[UNK]"},
    **dict.fromkeys(("bert", "distilbert", "electra", "deberta-v2", "modernbert"), _BERT),
    "albert": {**_BERT, "unk_token": "<unk>", "pad_token": "<pad>"},
    **dict.fromkeys(("t5", "mt5", "longt5"), _T5),
    "gpt2": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
}
"""`model_type` -> what tokenizers of its family call their tokens; folders from before 2023 rely on it."""

GENERIC = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""Tokenizer classes of no family: with these nothing is taken for granted."""


@dataclass(frozen=True)
class SpecialTokens:
    """Named special tokens, and others that are no text either."""

    named: Mapping[str, str]
    extra: tuple[str, ...]


def special_tokens(folder: Path, model_type: Any) -> SpecialTokens:
    """What a folder calls its special tokens; UserError for a setting that is no token."""
    named: dict[str, str | None] = {}
    extra: list[str] = []
    generic = False
    for path in settings_files(folder):
        values = read_settings(path)
        generic |= values.get("tokenizer_class") in GENERIC
        named |= {name: _token(values[name], name, path) for name in NAMES if name in values}
        for key in ("additional_special_tokens", "extra_special_tokens"):
            extra += _several(values.get(key), key, path)
    usual = {} if generic else USUAL.get(model_type if isinstance(model_type, str) else "", {})
    known = {name: token for name, token in {**usual, **named}.items() if token is not None}
    if model_type in ("t5", "longt5"):
        extra += [f"<extra_id_{index}>" for index in range(100)]
    return SpecialTokens(known, tuple(dict.fromkeys(extra)))


def settings_files(folder: Path) -> list[Path]:
    """Those of SETTINGS that are there."""
    return [path for name in SETTINGS if (path := folder / name).exists()]


def read_settings(path: Path) -> dict[str, Any]:
    """The values of one of SETTINGS; transformers writes a model_max_length of 1e30 in digits."""
    return read_json_object(path, "tokenizer settings", any_number=True)


def _token(value: Any, key: str, path: Path) -> str | None:
    """A token as a text, or as an object with `content`."""
    content = value.get("content") if isinstance(value, dict) else value
    if content is None and value is None:
        return None
    if not isinstance(content, str) or not content:
        raise UserError(f'tokenizer settings {path}: {key} is {value!r}: it must be a token, such as "<s>"')
    return content


def _several(value: Any, key: str, path: Path) -> list[str]:
    if value is None:
        return []
    values = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(values, list):
        raise UserError(f"tokenizer settings {path}: {key} is {value!r}: it must be a list of tokens")
    return [token for item in values if (token := _token(item, key, path)) is not None]
