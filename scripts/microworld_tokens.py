"""The word-level tokenizers of the embedded backbones: one list of words, ids in the order of RoBERTa and of T5.

One idea: a word of the world is one token in both, so label words are whole and prompts can be carried across models by
the words that they share. Text from outside is lower-cased and split at spaces and punctuation; unknown words are <unk>.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

SENTINELS = tuple(f"<extra_id_{i}>" for i in range(10))


def _tokenizer(tokens: Sequence[str], single: str, pair: str, specials: Sequence[str]) -> Tokenizer:
    ids = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    used = [token for token in ("<s>", "</s>") if token in ids]
    tokenizer.post_processor = TemplateProcessing(
        single=single, pair=pair, special_tokens=[(t, ids[t]) for t in used]
    )
    tokenizer.add_special_tokens(list(specials))
    return tokenizer


def roberta_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """`<s> A </s>` and `<s> A </s> </s> B </s>`; ids 0 to 3 as in RoBERTa, <mask> last."""
    specials = ("<s>", "<pad>", "</s>", "<unk>")
    tokens = [*specials, *words, "<mask>"]
    tokenizer = _tokenizer(tokens, "<s> $A </s>", "<s> $A </s> </s> $B </s>", (*specials, "<mask>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=512,
    )


def t5_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """`A </s>` and `A </s> B </s>`; ids 0 to 2 as in T5, sentinels last."""
    specials = ("<pad>", "</s>", "<unk>")
    tokenizer = _tokenizer(
        [*specials, *words, *SENTINELS], "$A </s>", "$A </s> $B </s>", (*specials, *SENTINELS)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=list(SENTINELS),
        model_max_length=512,
    )
