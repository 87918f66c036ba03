"""How the embedded backbones are optimised: Muon inside the layers, AdamW elsewhere, float32 copies of bfloat16 weights."""

from __future__ import annotations

import math

import torch
from transformers import T5ForConditionalGeneration

MUON_SCALE = 3.0


def learning_rate(step: int, steps: int, peak: float) -> float:
    """A short climb, then half a cosine."""
    climb = max(1, min(500, steps // 40))
    if step < climb:
        return peak * (step + 1) / climb
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - climb) / max(1, steps - climb))))


class Master:
    """Float32 copies of bfloat16 weights: Muon for the matrices inside the layers, AdamW for tables, biases and norms.

    Muon (Jordan et al. 2024) learned the relational tasks in a fraction of the steps that AdamW alone needed.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.weights = [p for _, p in named]
        self.copies = [p.detach().float().clone() for p in self.weights]
        inside = [
            p.ndim == 2 and ("layer" in name or "block" in name) and "relative" not in name
            for name, p in named
        ]
        matrices = [copy for copy, yes in zip(self.copies, inside, strict=True) if yes]
        rest = [copy for copy, yes in zip(self.copies, inside, strict=True) if not yes]
        tables = [copy for copy in rest if copy.ndim > 1]
        rest = [copy for copy in rest if copy.ndim <= 1]
        self.optimisers = (
            torch.optim.Muon(matrices, lr=1e-3, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(tables, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0),
            torch.optim.AdamW(rest, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0),
        )
        # T5 starts its embeddings at scale 1 and RoBERTa at 0.05; equal relative steps need unequal rates.
        self.scales = (MUON_SCALE, 8.0 if isinstance(model, T5ForConditionalGeneration) else 1.0, 1.0)

    def step(self, lr: float, gradient_scale: float) -> None:
        for weight, copy in zip(self.weights, self.copies, strict=True):
            copy.grad = (
                torch.zeros_like(copy) if weight.grad is None else weight.grad.float() * gradient_scale
            )
            weight.grad = None
        torch.nn.utils.clip_grad_norm_(self.copies, 1.0)
        for optimiser, rate in zip(self.optimisers, (scale * lr for scale in self.scales), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
        with torch.no_grad():
            for weight, copy in zip(self.weights, self.copies, strict=True):
                weight.copy_(copy)
