"""Closed-form projectors: what two models call the same words tells how to carry a prompt, with no label and no prompt.

The rows of the two embedding tables for the words both vocabularies hold whole are pairs (E_s, E_t); a map that
carries the words is taken to carry the prompt. After prompt recycling (Lester et al. 2022, arXiv 2208.05577) and
orthogonal Procrustes (Schoenemann 1966). Embeddings [words, width], float32 in, float64 inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from projectors.architectures import Architecture, Shape, TokenLinear, TokenMlp, build, same_place
from tasks.errors import UserError


@dataclass(frozen=True)
class SharedWords:
    """The words two vocabularies both hold whole, with their embeddings: source [n, d_s], target [n, d_t]."""

    words: tuple[str, ...]
    source: Tensor
    target: Tensor

    def __post_init__(self) -> None:
        if not len(self.words) == len(self.source) == len(self.target):
            raise UserError(
                f"shared words need one row a side: {len(self.words)} words, {len(self.source)} source and "
                f"{len(self.target)} target rows"
            )
        if len(self.words) < 2:
            raise UserError(
                f"the two vocabularies share {len(self.words)} whole words and a label-free projector needs at least 2: "
                "fit by distance or task from a random start, which need no shared words"
            )


def whole_words(vocabulary: dict[str, int]) -> dict[str, int]:
    """Token text -> id, of the tokens that are a whole word after a space, whatever marks that in this vocabulary.

    Byte-level BPE marks a word's start with U+0120, SentencePiece with U+2581; WordPiece marks the pieces that do
    not start one (`##`); a word-level vocabulary marks nothing. Marks are stripped; only letters are kept.
    """
    for mark in ("\u0120", "\u2581"):
        marked = {token[1:]: index for token, index in vocabulary.items() if token.startswith(mark)}
        if len(marked) > 0.1 * len(vocabulary):
            return {word: index for word, index in marked.items() if word.isalpha()}
    return {token: index for token, index in vocabulary.items() if token.isalpha()}


def shared_words(
    source_vocabulary: dict[str, int],
    source_table: Tensor,
    target_vocabulary: dict[str, int],
    target_table: Tensor,
) -> SharedWords:
    """Match the whole words of two vocabularies (case kept), by source id.

    The lowest ids come first: BPE and SentencePiece number tokens by merge order, which is nearly frequency.
    """
    source, target = whole_words(source_vocabulary), whole_words(target_vocabulary)
    words = tuple(word for word, _ in sorted(source.items(), key=lambda item: item[1]) if word in target)
    return SharedWords(
        words,
        source_table[[source[word] for word in words]].float() if words else source_table[:0],
        target_table[[target[word] for word in words]].float() if words else target_table[:0],
    )


def least_squares(shared: SharedWords, shape: Shape) -> TokenLinear:
    """`vocabulary` (v2v-lin): W = argmin |E_s W - E_t|, P_t = P_s W; the least-norm W where words are few."""
    weight = torch.linalg.lstsq(shared.source.double(), shared.target.double(), driver="gelsd").solution
    return token_linear(shape, weight)


def procrustes(shared: SharedWords, shape: Shape) -> TokenLinear:
    """`procrustes`: P_t = s (P_s - m_s) R + m_t with R = U V^T of the centred E_s^T E_t, the rotation that fits best.

    Widths may differ: R then has orthonormal rows or columns. s = tr(S) / |E_s R|^2 is the best single scale.
    """
    source, target = shared.source.double(), shared.target.double()
    source_mean, target_mean = source.mean(0), target.mean(0)
    centred = source - source_mean
    left, singular, right = torch.linalg.svd(centred.T @ (target - target_mean), full_matrices=False)
    rotation = left @ right
    scale = singular.sum() / (centred @ rotation).square().sum().clamp_min(1e-12)
    weight = scale * rotation
    return token_linear(shape, weight, target_mean - source_mean @ weight)


def token_linear(shape: Shape, weight: Tensor, bias: Tensor | None = None) -> TokenLinear:
    """A per-token linear map with given weight [d_s, d_t] and bias [d_t], or none."""
    module = TokenLinear(shape, Architecture("linear", bias=bias is not None))
    with torch.no_grad():
        module.map.weight.copy_(weight.T)
        if bias is not None:
            module.map.bias.copy_(bias)
    return module


def vocabulary_mlp(
    shared: SharedWords,
    shape: Shape,
    *,
    hidden: int | None = None,
    activation: str = "relu",
    seed: int = 0,
    epochs: int = 25,
    batch: int = 50,
    lr: float = 3e-4,
) -> TokenMlp:
    """`vocabulary-mlp` (v2v-nn): W2 ReLU(W1 x + b1) + b2 on word pairs, hidden 4 d_t, Adam 3e-4, squared error.

    Tables are divided by their rms first and the factors folded into the weights afterwards: an embedding of
    standard deviation 0.02 would otherwise not leave the start in 25 epochs. More epochs fit the words better and
    carry prompts worse: a prompt lies outside the words' range.
    """
    architecture = Architecture("token-mlp", hidden=hidden or 4 * shape.target_width, activation=activation)
    module = build(architecture, shape, seed=seed)
    assert isinstance(module, TokenMlp)
    source_scale, target_scale = (side.square().mean().sqrt() for side in (shared.source, shared.target))
    source, target = shared.source / source_scale, shared.target / target_scale
    optimiser = torch.optim.Adam(module.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(source), generator=generator).split(batch):
            predicted = module.outward(module.activation(module.inward(source[rows])))
            loss = (predicted - target[rows]).square().sum(-1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        module.inward.weight.div_(source_scale)
        module.outward.weight.mul_(target_scale)
        module.outward.bias.mul_(target_scale)
    return module


FEW_WORDS = 2
"""Words a vector is said in: of 1, 2, 4 and 16, one and two did best on two targets of the embedded world."""


class Combination(nn.Module):
    """`combination` (lin-comb): write each prompt vector as a combination of source words, say it in target words.

    With every word free, the least-norm solution x of E_s^T x = P_s^T gives P_t = x^T E_t = P_s pinv(E_s) E_t, which
    is exactly `vocabulary` once the words span the width. So `per_token` limits how many words a vector may use,
    found greedily (orthogonal matching pursuit, Pati et al. 1993): the combination becomes a short phrase. The fewer
    the better, down to two (`FEW_WORDS`): what many words cancel out in one model they do not in the other.
    """

    source_words: Tensor
    target_words: Tensor

    def __init__(self, shape: Shape, words: int, per_token: int) -> None:
        super().__init__()
        self.shape, self.per_token = shape, per_token
        self.register_buffer("source_words", torch.zeros(words, shape.source_width))
        self.register_buffer("target_words", torch.zeros(words, shape.target_width))

    def forward(self, source: Tensor) -> Tensor:
        tokens = same_place(source, self.shape.target_length)
        chosen, weights = pursue(tokens.flatten(0, -2), self.source_words, self.per_token)
        carried = (weights.unsqueeze(-1) * self.target_words[chosen]).sum(1)
        return carried.unflatten(0, tokens.shape[:-1])


def combination(shared: SharedWords, shape: Shape, *, per_token: int = FEW_WORDS) -> Combination:
    """The module of `combination` over these shared words."""
    if per_token < 1:
        raise UserError(f"a combination needs at least 1 word a token, given {per_token}")
    per_token = min(per_token, len(shared.words), shape.source_width)
    module = Combination(shape, len(shared.words), per_token)
    module.source_words.copy_(shared.source)
    module.target_words.copy_(shared.target)
    return module


def pursue(vectors: Tensor, words: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Orthogonal matching pursuit of [n, d] over words [w, d]: ids [n, count] and weights [n, count].

    Each round takes the word with the largest cosine to what is left and solves all weights again.
    """
    vectors, words = vectors.double(), words.double()
    directions = words / words.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    residual = vectors
    chosen = torch.empty(len(vectors), 0, dtype=torch.long, device=vectors.device)
    weights = torch.empty(len(vectors), 0, dtype=torch.float64, device=vectors.device)
    for _ in range(count):
        agreement = (residual @ directions.T).abs().scatter(1, chosen, -1.0)
        chosen = torch.cat([chosen, agreement.argmax(1, keepdim=True)], 1)
        basis = words[chosen].transpose(1, 2)
        weights = (torch.linalg.pinv(basis) @ vectors.unsqueeze(-1)).squeeze(-1)
        residual = vectors - (basis @ weights.unsqueeze(-1)).squeeze(-1)
    return chosen, weights.float()
