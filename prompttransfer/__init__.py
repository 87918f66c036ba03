"""prompttransfer: train soft prompts on frozen language models, reuse them across tasks and across models.

Importing this package is light; what is heavy (torch, transformers) is imported when it is first used. The verbs of
the command line are functions of the same names here: `train`, `evaluate`, `transfer`, `compare`, ...
"""

from __future__ import annotations

import importlib
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

# Of tqdm, in a notebook; no bar of it is shown here.
warnings.filterwarnings("ignore", message="IProgress not found")

_WHERE = {
    "Backbone": "prompttransfer.backbones.base",
    "load_backbone": "prompttransfer.backbones.loading",
    "Adaptation": "prompttransfer.adaptations.adaptation",
    "soft_prompt": "prompttransfer.adaptations.prompts",
    "load_adaptation": "prompttransfer.adaptations.artifacts",
    "save_adaptation": "prompttransfer.adaptations.artifacts",
    "parse_method": "prompttransfer.adaptations.methods",
    "parse_start": "prompttransfer.adaptations.starts",
    "Encoding": "prompttransfer.backbones.layouts",
    "Job": "prompttransfer.training.train",
    "train_adaptations": "prompttransfer.training.train",
    "Placement": "prompttransfer.distributed.placement",
    "run_on": "prompttransfer.distributed.launching",
    "recipe_for": "prompttransfer.training.recipes",
    "TransferMatrix": "prompttransfer.transfers.matrix",
    "zero_shot": "prompttransfer.transfers.zero_shot",
    "tune": "prompttransfer.transfers.tuning",
    "capture": "prompttransfer.neurons.capture",
    "read_activations": "prompttransfer.neurons.capture",
    "save_states": "prompttransfer.neurons.states",
    "load_states": "prompttransfer.neurons.states",
    "masking_curve": "prompttransfer.neurons.masking",
    "overlap": "analysis.neurons",
    "predict_transfer": "analysis.prediction",
    "demo": "prompttransfer.cli.demo",
    "demo_real": "prompttransfer.cli.demo_real",
    "train": "prompttransfer.cli.train",
    "evaluate": "prompttransfer.cli.evaluate",
    "transfer": "prompttransfer.cli.transfer",
    "compare": "prompttransfer.cli.compare",
    "correlate": "prompttransfer.cli.correlate",
    "recommend": "prompttransfer.cli.recommend",
    "predict": "prompttransfer.cli.predict",
    "report": "prompttransfer.cli.report",
    "leaderboard": "prompttransfer.cli.leaderboard",
    "push": "prompttransfer.cli.sharing",
    "pull": "prompttransfer.cli.sharing",
}

__all__ = [*_WHERE, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'prompttransfer' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def _check_siblings() -> None:
    """The house is four top-level packages; a stranger's `tasks.py` in front of ours would break it obscurely."""
    home = Path(__file__).resolve().parent.parent
    for name in ("tasks", "projectors", "analysis"):
        spec = find_spec(name)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found != home / name:
            raise ImportError(
                f"prompttransfer needs its own package {name!r} at {home / name}, but Python finds "
                f"{found or 'none'}: run from another folder, or rename what shadows it"
            )


_check_siblings()
