"""The tokenizer of a backbone, and the proof that it is the model's.

Where a folder holds a tokenizer.json, its ids are the ids: transformers 5 builds tokenizers of some classes anew from
the vocabulary alone and drops the file's own normalizer and pre-tokenizer, so the class that a folder names is not
asked. Tokens that the file does not hold are never added: the model's table has no row for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prompttransfer.backbones.reading import read_part
from prompttransfer.backbones.revisions import TOKENIZER, VOCABULARIES
from prompttransfer.backbones.special_tokens import (
    NAMES,
    SpecialTokens,
    read_settings,
    settings_files,
    special_tokens,
)
from tasks.errors import UserError

_MASKED = ("cls_token", "sep_token", "pad_token", "mask_token")
NEEDED = {
    **dict.fromkeys(("roberta", "xlm-roberta", "mpnet", "bert", "distilbert", "electra"), _MASKED),
    **dict.fromkeys(("albert", "deberta-v2", "modernbert"), _MASKED),
    **dict.fromkeys(("t5", "mt5", "longt5"), ("eos_token", "pad_token")),
}
"""`model_type` -> the special tokens that a row is made with; decoders need none."""

BYTES = "ByT5Tokenizer"
"""The class of tokenizers whose tokens are bytes, which need no file."""

PROBES = (
    " The film was GREAT.",
    " Don't  panic:\ttwo  spaces, a tab\nand a line",
    " naïve café Zürich Straße 1,234.50 % @user #tag",
    " Фильм прекрасен! 这部电影很好。 映画 \u0939\u093f\u0928\u094d\u0926\u0940 🎬 \u00a0 …",
    " (so-so) [x] {y} <z> a_b c/d e=f",
)
"""Texts on which a loaded tokenizer is held against its file."""

UNUSED_ROWS = 0.5
"""Share of a table without tokens above which a tokenizer is said to be small for it."""


def load_tokenizer(name: str, folder: Path, model_type: str) -> Any:
    """The tokenizer of a folder; UserError where it has none, or one that cannot be read."""
    tokens = special_tokens(folder, model_type)
    if (folder / TOKENIZER).exists():
        return read_part(name, TOKENIZER, partial(_from_file, name, folder / TOKENIZER, tokens))
    if any(read_settings(path).get("tokenizer_class") == BYTES for path in settings_files(folder)):
        return read_part(name, "tokenizer", partial(_bytes, folder))
    if not any((folder / file).exists() for file in VOCABULARIES):
        raise UserError(
            f"backbone {name!r} holds no tokenizer (no {TOKENIZER}, nor any of {', '.join(VOCABULARIES)}): copy that of "
            f"the model it was made from beside the weights"
        )
    return read_part(name, "tokenizer", partial(_from_vocabulary, folder))


def _from_file(name: str, file: Path, tokens: SpecialTokens) -> Any:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer.from_file(str(file))
    raw.no_truncation()
    raw.no_padding()
    for chance in ("dropout", "alpha"):  # the same text has the same ids every time
        if getattr(raw.model, chance, None) is not None:
            setattr(raw.model, chance, None)
    known = raw.get_vocab(with_added_tokens=True)
    named = {key: token for key, token in tokens.named.items() if token in known}
    unknown = getattr(
        raw.model, "unk_token", None
    )  # what it gives for unknown words, whatever the settings say
    if unknown in known:
        named["unk_token"] = unknown
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        extra_special_tokens=[token for token in tokens.extra if token in known],
        **named,
    )
    for text in PROBES:
        ids = made(text, add_special_tokens=False)["input_ids"]
        if ids != raw.encode(text, add_special_tokens=False).ids:
            raise UserError(f"backbone {name!r}: transformers gives {text!r} other ids than its {TOKENIZER}")
    return made


def _bytes(folder: Path) -> Any:
    from transformers import ByT5Tokenizer

    return ByT5Tokenizer.from_pretrained(str(folder))


def _from_vocabulary(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)


def check_tokenizer(
    name: str, folder: Path, tokenizer: Any, *, model_type: str, rows: int, config: Any
) -> tuple[str, ...]:
    """Raise UserError for a tokenizer that cannot be the one of a model with `rows` token embeddings.

    Returns what is strange and no error, a line each.
    """
    named = special_tokens(folder, model_type).named
    for key in NEEDED.get(model_type, ()):
        if getattr(tokenizer, f"{key}_id") is None:
            said = named.get(key)
            why = f"{said!r} is not in its vocabulary" if said else "tokenizer_config.json names none"
            raise UserError(f"backbone {name!r} has no {key.replace('_', ' ')}, which is needed: {why}")
    vocabulary = tokenizer.get_vocab()
    last = max(vocabulary, key=vocabulary.__getitem__)
    if vocabulary[last] >= rows:
        raise UserError(
            f"the tokenizer of backbone {name!r} is not its model's: token {last!r} has id {vocabulary[last]}, but the "
            f"model has {rows} token embeddings; take the model's own, or resize_token_embeddings and train them"
        )
    special = {getattr(tokenizer, key) for key in NAMES} | set(tokenizer.all_special_tokens)
    if not any(any(map(str.isalpha, token)) for token in vocabulary.keys() - special):
        raise UserError(
            f"the tokenizer of backbone {name!r} knows no word ({len(vocabulary)} tokens): copy the model's"
        )
    return tuple(_remarks(tokenizer, len(vocabulary), rows, config))


def _remarks(tokenizer: Any, tokens: int, rows: int, config: Any) -> Iterable[str]:
    if tokens < (1 - UNUSED_ROWS) * rows:
        yield f"the tokenizer knows {tokens} tokens, the model has rows for {rows}: it may be another model's"
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        said, own = getattr(config, key, None), getattr(tokenizer, key)
        if isinstance(said, int) and own is not None and own != said:
            yield f"config.json says {key} {said}, the tokenizer {own} ({tokenizer.convert_ids_to_tokens(own)})"


def otherwise_read(tokenizer: Any, folder: Path, texts: Sequence[str]) -> int:
    """How many of `texts` transformers' own AutoTokenizer gives other ids; all of them if it cannot load the folder."""
    from transformers import AutoTokenizer

    try:
        other = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        return sum(
            tokenizer(text, add_special_tokens=False)["input_ids"]
            != other(text, add_special_tokens=False)["input_ids"]
            for text in texts
        )
    except Exception:  # it raises anything at all
        return len(texts)


# Long texts ------------------------------------------------------------------------------------------------------

CHARACTERS = 16
"""Characters a kept token of the first beginning that is tried; texts up to four times as long are tokenised whole."""
SHORTEST = 4096
"""Characters of it at the least: WordPiece reads a word of more than about a hundred as one unknown token."""
MARGIN = 16
"""Tokens before a cut that the cut may have changed."""


def first_ids(tokenizer: Any, texts: Sequence[str], keep: int) -> list[tuple[int, ...]]:
    """The first `keep` token ids of each text (all, where there are fewer), as if the whole of it were tokenised."""
    size = max(SHORTEST, CHARACTERS * keep)
    long = [index for index, text in enumerate(texts) if len(text) > 4 * size]
    whole = dict.fromkeys(range(len(texts)))
    for index in long:
        del whole[index]
    found = dict(zip(whole, _ids(tokenizer, [texts[index] for index in whole]), strict=True))
    found |= {index: _first_of_long(tokenizer, texts[index], keep, size) for index in long}
    return [found[index][:keep] for index in range(len(texts))]


def _first_of_long(tokenizer: Any, text: str, keep: int, size: int) -> tuple[int, ...]:
    """From beginnings of the text, each twice as long as the one before, until two agree well in front of the cut."""
    before = None
    while size < len(text):
        (ids,) = _ids(tokenizer, [text[: _between_words(text, size)]])
        if before is not None and len(before) >= keep + MARGIN and ids[:keep] == before[:keep]:
            return ids
        size, before = 2 * size, ids
    return _ids(tokenizer, [text])[0]


def _between_words(text: str, size: int) -> int:
    """The first space behind `size` characters; `size` where none is near, as in Chinese."""
    near = text[size : size + 200]
    return next((size + index for index, letter in enumerate(near) if letter.isspace()), size)


def _ids(tokenizer: Any, texts: Sequence[str]) -> list[tuple[int, ...]]:
    if not texts:
        return []
    # The tokenizer's own limit would only make it warn: texts are cut by `cut_texts`.
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        truncation=False,
        verbose=False,
        return_attention_mask=False,
        return_token_type_ids=False,
    )["input_ids"]
    return [tuple(ids) for ids in encoded]


# Unknown words ---------------------------------------------------------------------------------------------------


def unknown_share(tokenizer: Any, texts: Iterable[str]) -> float | None:
    """Share of the words of `texts` that the tokenizer knows only in part or not at all; None where there is no word.

    A word is what stands between spaces and has a letter or digit. One that leaves no token counts as unknown too.
    """
    words = [word for text in texts for word in text.split() if any(map(str.isalnum, word))]
    if not words:
        return None
    different = list(dict.fromkeys(words))
    ids = dict(zip(different, _ids(tokenizer, [f" {word}" for word in different]), strict=True))
    return sum(not ids[word] or tokenizer.unk_token_id in ids[word] for word in words) / len(words)
