"""Architectures: the modules that map a source model's prompt [.., length_s, width_s] to a target's [.., length_t, width_t].

The flattened perceptron is Su et al. 2022 (arXiv 2111.06719, section 4, `AE_1_layer_mutiple_100` in the authors' code);
the token-wise maps are the cheap ones, the low-rank map grows with its rank alone. Where a map works token by token
and the lengths differ, every target token reads the source token at the same relative place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tasks.errors import UserError, unknown

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "leaky-relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
}


@dataclass(frozen=True)
class Shape:
    """What goes in, [source_length, source_width], and what comes out, [target_length, target_width]."""

    source_length: int
    source_width: int
    target_length: int
    target_width: int

    def __post_init__(self) -> None:
        if min(self.source_length, self.source_width, self.target_length, self.target_width) < 1:
            raise UserError(f"a projector needs lengths and widths of at least 1, given {self}")

    @property
    def source_size(self) -> int:
        return self.source_length * self.source_width

    @property
    def target_size(self) -> int:
        return self.target_length * self.target_width

    def __str__(self) -> str:
        return f"{self.source_length} x {self.source_width} -> {self.target_length} x {self.target_width}"


@dataclass(frozen=True)
class Architecture:
    """The name of an architecture and its sizes; `hidden` is the perceptrons', `rank` the low-rank map's,
    `words` the number of shared words that a search-based map keeps."""

    name: str = "mlp"
    hidden: int = 768
    rank: int = 64
    activation: str = "leaky-relu"
    words: int = 0
    standardise: bool = False
    bias: bool = True
    """Whether `linear` adds a vector: what a bias learns is a constant prompt, so a map without one cannot collapse."""

    def __post_init__(self) -> None:
        if self.name not in (*ARCHITECTURES, *OF_WORDS):
            raise unknown("architecture", self.name, ARCHITECTURES)
        if self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)
        if self.hidden < 1 or self.rank < 1:
            raise UserError(
                f"hidden and rank must be at least 1, given hidden {self.hidden} and rank {self.rank}"
            )


class FlatMlp(nn.Module):
    """Flatten -> Linear(L_s d_s, hidden) -> activation -> Linear(hidden, L_t d_t) -> reshape -> LayerNorm(d_t)."""

    def __init__(self, shape: Shape, architecture: Architecture) -> None:
        super().__init__()
        self.shape = shape
        self.inward = nn.Linear(shape.source_size, architecture.hidden)
        self.activation = ACTIVATIONS[architecture.activation]()
        self.outward = nn.Linear(architecture.hidden, shape.target_size)
        self.norm = nn.LayerNorm(shape.target_width)

    def forward(self, source: Tensor) -> Tensor:
        hidden = self.activation(self.inward(source.flatten(-2)))
        return self.norm(
            self.outward(hidden).unflatten(-1, (self.shape.target_length, self.shape.target_width))
        )


class TokenLinear(nn.Module):
    """One linear map for every token: Linear(d_s, d_t)."""

    def __init__(self, shape: Shape, architecture: Architecture) -> None:
        super().__init__()
        self.shape = shape
        self.map = nn.Linear(shape.source_width, shape.target_width, bias=architecture.bias)

    def forward(self, source: Tensor) -> Tensor:
        return self.map(same_place(source, self.shape.target_length))


class TokenMlp(nn.Module):
    """One perceptron for every token: Linear(d_s, hidden) -> activation -> Linear(hidden, d_t)."""

    def __init__(self, shape: Shape, architecture: Architecture) -> None:
        super().__init__()
        self.shape = shape
        self.inward = nn.Linear(shape.source_width, architecture.hidden)
        self.activation = ACTIVATIONS[architecture.activation]()
        self.outward = nn.Linear(architecture.hidden, shape.target_width)

    def forward(self, source: Tensor) -> Tensor:
        return self.outward(self.activation(self.inward(same_place(source, self.shape.target_length))))


class LowRank(nn.Module):
    """A linear map of the flattened prompt through `rank` numbers: rank (L_s d_s + L_t d_t) + L_t d_t parameters."""

    def __init__(self, shape: Shape, architecture: Architecture) -> None:
        super().__init__()
        self.shape = shape
        self.inward = nn.Linear(shape.source_size, architecture.rank, bias=False)
        self.outward = nn.Linear(architecture.rank, shape.target_size)

    def forward(self, source: Tensor) -> Tensor:
        flat = self.outward(self.inward(source.flatten(-2)))
        return flat.unflatten(-1, (self.shape.target_length, self.shape.target_width))


class Constant(nn.Module):
    """The control that a projector has to beat: one learned target prompt, whatever comes in."""

    def __init__(self, shape: Shape, architecture: Architecture) -> None:
        super().__init__()
        self.prompt = nn.Parameter(torch.randn(shape.target_length, shape.target_width) * 0.02)

    def forward(self, source: Tensor) -> Tensor:
        return self.prompt.expand(*source.shape[:-2], *self.prompt.shape)


class Standardised(nn.Module):
    """A map between deviations: mean_t + scale_t * map((P - mean_s) / scale_s).

    Means are per token and dimension over the fitting prompts, scales are one number a side, so the map starts
    from prompts of unit size on both sides and its output, when it has learned nothing, is the mean prompt.
    """

    source_mean: Tensor
    source_scale: Tensor
    target_mean: Tensor
    target_scale: Tensor

    def __init__(self, inner: nn.Module, shape: Shape) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("source_mean", torch.zeros(shape.source_length, shape.source_width))
        self.register_buffer("source_scale", torch.ones(()))
        self.register_buffer("target_mean", torch.zeros(shape.target_length, shape.target_width))
        self.register_buffer("target_scale", torch.ones(()))

    def measure(self, source: Tensor, target: Tensor) -> None:
        """Take the means and scales of `source` [n, L_s, d_s] and `target` [n, L_t, d_t]."""
        for side, vectors in (("source", source), ("target", target)):
            mean = vectors.mean(0)
            spread = (vectors - mean).square().mean().sqrt()
            scale = spread if spread > 0 else vectors.square().mean().sqrt().clamp_min(1e-6)
            getattr(self, f"{side}_mean").copy_(mean)
            getattr(self, f"{side}_scale").copy_(scale)

    def forward(self, source: Tensor) -> Tensor:
        return self.target_mean + self.target_scale * self.inner(
            (source - self.source_mean) / self.source_scale
        )


ARCHITECTURES: dict[str, Callable[[Shape, Architecture], nn.Module]] = {
    "mlp": FlatMlp,
    "linear": TokenLinear,
    "token-mlp": TokenMlp,
    "low-rank": LowRank,
    "constant": Constant,
}


OF_WORDS = ("combination", "anchors")
"""What methods that only look shared words up call their maps; they are not built here."""


def build(architecture: Architecture, shape: Shape, *, seed: int = 0) -> nn.Module:
    """The module, with weights drawn from `seed` (torch's default initialisation), the caller's generator untouched."""
    if architecture.name not in ARCHITECTURES:
        raise unknown("architecture", architecture.name, ARCHITECTURES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = ARCHITECTURES[architecture.name](shape, architecture)
    return Standardised(module, shape) if architecture.standardise else module


def same_place(vectors: Tensor, length: int) -> Tensor:
    """[.., L, d] -> [.., length, d]: each token is the one at the same relative place, so norms stay as they are."""
    given = vectors.shape[-2]
    if given == length:
        return vectors
    places = ((torch.arange(length, dtype=torch.float64) + 0.5) * given / length).floor().long()
    return vectors[..., places.to(vectors.device), :]


def set_output_scale(module: nn.Module, scale: float) -> None:
    """Let a map that ends in a LayerNorm start at the target's scale (its rms) and not at 1."""
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            nn.init.constant_(part.weight, scale)


@dataclass(frozen=True)
class Size:
    """Parameters, and bytes of memory in float32: to apply the map, and to fit it (gradient and two moments)."""

    parameters: int

    @property
    def apply_bytes(self) -> int:
        return 4 * self.parameters

    @property
    def fit_bytes(self) -> int:
        return 16 * self.parameters

    def __str__(self) -> str:
        return (
            f"{self.parameters:,} parameters; {self.apply_bytes / 2**30:.2f} GiB to apply, "
            f"{self.fit_bytes / 2**30:.2f} GiB to fit"
        )


def size(architecture: Architecture, shape: Shape) -> Size:
    """The size of the module, found without taking its memory (built on torch's meta device)."""
    with torch.device("meta"):
        module = build(architecture, shape)
    return Size(sum(parameter.numel() for parameter in module.parameters()))
