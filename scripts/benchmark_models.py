"""Models of real shapes with random weights for the benchmark, and what their work is worth in operations."""

from __future__ import annotations

import os
import resource
import statistics
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

clock = time.process_time if os.environ.get("BENCHMARK_CLOCK") == "cpu" else time.perf_counter
"""Seconds of wall time, or of processor time where the machine is busy with other things."""


class _Words(SimpleNamespace):
    """A tokenizer, as far as it is asked: its special tokens, and that a random start takes any of 1,000 others."""

    @property
    def all_special_ids(self) -> list[int]:
        return sorted(set(vars(self).values()))

    def get_added_vocab(self) -> dict[str, int]:
        return {}

    def get_vocab(self) -> dict[str, int]:
        return {f"w{number}": number for number in range(1000)}


class _Reader(_Words):
    """That of a decoder: nothing begins a row."""

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        return {"input_ids": [7]}


SPECIAL = SimpleNamespace(
    llama=dict(pad_token_id=0, eos_token_id=0),
    gpt2=dict(pad_token_id=0, eos_token_id=0),
    roberta=dict(cls_token_id=0, pad_token_id=1, sep_token_id=2, eos_token_id=2, mask_token_id=50264),
    t5=dict(pad_token_id=0, eos_token_id=1),
)
"""Ids of special tokens in the real tokenizers; the benchmark needs nothing else of them."""

WORDS = ((5,), (6,))
"""One label word a label, as token ids."""


@dataclass(frozen=True)
class Shape:
    """A public checkpoint's shape."""

    name: str
    family: str
    settings: dict[str, Any]

    @property
    def decodes(self) -> bool:
        """Whether it is a decoder alone."""
        return self.family in ("llama", "gpt2")

    @property
    def special(self) -> SimpleNamespace:
        """Stands in for the tokenizer."""
        kind = _Reader if self.decodes else _Words
        return kind(**getattr(SPECIAL, self.family))

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return int(self.settings["vocab_size"])


def _roberta(name: str, width: int, layers: int, heads: int) -> Shape:
    settings = dict(
        vocab_size=50265,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    return Shape(name, "roberta", settings)


def _t5(name: str, width: int, layers: int, heads: int) -> Shape:
    settings = dict(
        vocab_size=32128,
        d_model=width,
        d_kv=64,
        d_ff=4 * width,
        num_layers=layers,
        num_heads=heads,
        decoder_start_token_id=0,
        pad_token_id=0,
    )
    return Shape(name, "t5", settings)


def _smollm(name: str, width: int, layers: int, heads: int, shared: int) -> Shape:
    settings = dict(
        vocab_size=49152,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=shared,
        intermediate_size=8 * width // 3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
    )
    return Shape(name, "llama", settings)


def _gpt2(name: str, width: int, layers: int, heads: int) -> Shape:
    settings = dict(vocab_size=50257, n_embd=width, n_layer=layers, n_head=heads, n_positions=1024)
    return Shape(name, "gpt2", {**settings, "bos_token_id": 0, "eos_token_id": 0})


SHAPES = {
    shape.name: shape
    for shape in (
        _roberta("roberta-base", 768, 12, 12),
        _roberta("roberta-large", 1024, 24, 16),
        _t5("t5-base", 768, 12, 12),
        _t5("t5-large", 1024, 24, 16),
        _smollm("smollm2-135m", 576, 30, 9, 3),
        _gpt2("gpt2", 768, 12, 12),
        _smollm("smollm2-tiny", 192, 2, 3, 1),
        _gpt2("gpt2-tiny", 128, 2, 2),
        _roberta("roberta-tiny", 128, 2, 2),  # to try the script
        _t5("t5-tiny", 128, 2, 2),
    )
}


def make_model(shape: Shape, dtype: torch.dtype, device: torch.device, attention: str | None = None) -> Any:
    """A Hugging Face model of this shape with small random weights, in eval mode and frozen.

    `attention` None leaves the choice to transformers, as one who types `from_pretrained` does.
    """
    import transformers

    torch.manual_seed(0)
    chosen: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    if shape.decodes:
        config = transformers.AutoConfig.for_model(shape.family, **shape.settings)
        made = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype, **chosen)
        return made.to(device).eval().requires_grad_(False)
    model: Any
    with torch.device("meta"):
        if shape.family == "t5":
            config = transformers.T5Config(**shape.settings, **chosen)
            model = transformers.T5ForConditionalGeneration(config)
        else:
            model = transformers.RobertaForMaskedLM(transformers.RobertaConfig(**shape.settings, **chosen))
    model = model.to(dtype).to_empty(device="cpu")
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            is_norm = "norm" in name.lower() and name.endswith("weight")
            tensor.fill_(1.0) if is_norm else tensor.normal_(std=0.02)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if (
                not buffer.is_floating_point()
            ):  # position ids and token types, which `to_empty` left undefined
                ids = (
                    torch.arange(buffer.shape[-1])
                    if "position" in name
                    else torch.zeros(1, dtype=buffer.dtype)
                )
                buffer.copy_(ids.expand_as(buffer))
    model.tie_weights()
    return model.to(device).eval().requires_grad_(False)


def make_backbone(
    shape: Shape, dtype: torch.dtype, device: torch.device, kind: Any = None, attention: str | None = "eager"
) -> Any:
    """Ours, around such a model; `kind` is the class of backbone if it is not the family's own."""
    from prompttransfer.backbones.kernels.host_memory import drop_compiled, keep_heap
    from prompttransfer.backbones.loading import FAMILIES

    model = make_model(shape, dtype, device, attention)
    family = kind or FAMILIES[model.config.model_type]
    backbone = family(model, shape.special, name=shape.name, revision="random", device=device)
    if device.type == "cpu":
        keep_heap()
        drop_compiled(backbone.layer_products)
    return backbone


def operations(model: Any, tokens: float, rows: float) -> float:
    """Floating-point operations of forward and activation-backward passes: 4 x parameters x tokens.

    Parameters are the weight matrices of the layers: the encoder's, and the decoder's keys and values of the encoder,
    for every token (no padding counted); the rest of a decoder for one token a row. Embeddings count nothing.
    """
    everywhere = once = 0
    for name, parameter in model.named_parameters():
        inside = any(part in name for part in (".block.", ".layer.", ".layers.", ".h."))
        if parameter.ndim != 2 or "embed" in name or not inside:
            continue
        if "relative_attention_bias" in name:
            continue
        if name.startswith("decoder.") and not name.endswith(
            ("EncDecAttention.k.weight", "EncDecAttention.v.weight")
        ):
            once += parameter.numel()
        else:
            everywhere += parameter.numel()
    return 4.0 * (everywhere * tokens + once * rows)


def peak_memory(device: torch.device) -> float:
    """Most memory held so far, in GB: of the process on a CPU, for tensors on a GPU (what torch has set aside for them)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def matmul_rate(dtype: torch.dtype, device: torch.device, seconds: float = 3.0) -> tuple[float, float]:
    """Operations a second of this machine's own matrix product: the fastest that was seen, and the fastest median.

    The sizes are those of feed-forward layers and a large square one; the right factor lies as a layer's weight does, or
    the other way round. The first is the fastest of all short windows; the second the median over the windows of that
    size and layout whose median is fastest: what a machine sustains whose units are shared with others.
    """
    sizes = ((2048, 768, 3072), (2048, 3072, 768), (2048, 1024, 4096), (4096, 4096, 4096))
    best = sustained = 0.0
    window = 20 if device.type == "cuda" else 1  # so that a GPU's answer to the host is not what is measured
    for rows, inner, outer in sizes:
        left = torch.randn(rows, inner, device=device).to(dtype)
        weight = torch.randn(outer, inner, device=device).to(dtype)
        for right in (weight.T, weight.T.contiguous()):
            end = clock() + seconds / (2 * len(sizes))
            for _ in range(2):
                left @ right
            synchronize(device)
            rates = []
            while True:
                start = clock()
                for _ in range(window):
                    left @ right
                synchronize(device)
                now = clock()
                rates.append(window * 2 * rows * inner * outer / (now - start))
                if now > end:
                    break
            best, sustained = max(best, *rates), max(sustained, statistics.median(rates))
    return best, sustained


class Probe:
    """What a CPU's matrix product does at this moment, where others share its units and its speed swings."""

    def __init__(self, dtype: torch.dtype, seconds: float = 0.05):
        self.left, self.right = torch.randn(2048, 768).to(dtype), torch.randn(3072, 768).to(dtype)
        self.seconds = seconds

    def rate(self) -> float:
        """Operations a second."""
        start, done = clock(), 0
        while clock() - start < self.seconds:
            self.left @ self.right.T
            done += 1
        return done * 2 * 2048 * 768 * 3072 / (clock() - start)


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
