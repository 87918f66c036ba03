"""A tiny model as a GGUF file, in place of the real ones that packages hold."""

import numpy as np
import pytest

WIDTH, HEADS, SHARED, INNER, LAYERS = 32, 4, 2, 64, 2
LETTERS = "abcdefghijklmnopqrstuvwxyzRS:ĠĊ"
PAIRS = (
    ("Ġ", "g"), ("r", "e"), ("Ġg", "re"), ("a", "t"), ("Ġgre", "at"),
    ("Ġ", "t"), ("Ġt", "e"), ("r", "i"), ("b", "l"), ("Ġte", "r"), ("Ġter", "ri"), ("bl", "e"), ("Ġterri", "ble"),
)  # fmt: skip
"""Merges that make one token of ` great` and of ` terrible`."""


def turned(weight, heads):
    """Queries and keys as llama.cpp holds them: the halves of a rotary head interleaved."""
    rows, wide = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, wide).swapaxes(1, 2).reshape(rows, wide)


def write_gguf(path, *, begins=False):
    """A Llama with random weights, the tied table among them; returns the weights by name."""
    gguf = pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    tokens = ["<s>", "</s>", *LETTERS, *("".join(pair) for pair in PAIRS)]
    random = np.random.default_rng(0)
    size, weights = WIDTH // HEADS, {"token_embd.weight": (len(tokens), WIDTH)}
    for layer in range(LAYERS):
        shapes = {
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (SHARED * size, WIDTH),
            "attn_v": (SHARED * size, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_gate": (INNER, WIDTH),
            "ffn_up": (INNER, WIDTH),
            "ffn_down": (WIDTH, INNER),
            "attn_norm": (WIDTH,),
            "ffn_norm": (WIDTH,),
        }
        weights |= {f"blk.{layer}.{name}.weight": shape for name, shape in shapes.items()}
    weights["output_norm.weight"] = (WIDTH,)
    made = {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in weights.items()}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_license("a licence of nobody")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(SHARED)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(size)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
    writer.add_token_merges([" ".join(pair) for pair in PAIRS])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(begins)
    for name, value in made.items():
        heads = {"attn_q": HEADS, "attn_k": SHARED}.get(name.split(".")[-2])
        writer.add_tensor(name, value if heads is None else turned(value, heads))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return made
