"""Folding: a LoRA-like adaptation in the weights of its model, written as a folder that transformers and this project load.

The backbone's own folder is never touched; its weights in memory change and come back (merging.py). What is not weights is
copied as it lies there, so that tokenizer and configuration stay those that the adaptation was trained with.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from prompttransfer.adaptations.adaptation import Adaptation
from prompttransfer.adaptations.merging import merged
from prompttransfer.adaptations.running import bank_of, check_on
from prompttransfer.backbones.base import Backbone
from prompttransfer.backbones.locating import locate
from prompttransfer.files import atomic_folder, write_json

MARKER = "folded.json"
"""The record of what was folded into a model's folder."""
WEIGHTS = (".safetensors", ".bin", ".safetensors.index.json", ".bin.index.json")


def save_folded(backbone: Backbone, adaptation: Adaptation, folder: Path) -> Path:
    """Write the model of `backbone` with `adaptation` in its weights to `folder`, in the backbone's type; returns it.

    The backbone has to run on the plain engine, whose weights stand each for itself. Raises UserError for an adaptation of
    another backbone, or one that does more than change linear maps.
    """
    check_on(
        adaptation,
        backbone,
        layout=adaptation.layout,
    )
    adaptation.method.check_fits(backbone, adaptation.tensors, adaptation.name)
    home = Path(locate(backbone.name, None)[0])
    record = {
        "name": adaptation.name,
        "method": str(adaptation.method),
        "task": adaptation.task,
        "digest": adaptation.digest,
        "backbone": backbone.name,
        "revision": backbone.revision,
        "dtype": str(backbone.dtype).removeprefix("torch."),
    }
    with merged(backbone, bank_of(backbone, [adaptation])), atomic_folder(folder, marker=MARKER) as temporary:
        backbone.model.save_pretrained(temporary)
        for path in sorted(home.iterdir()):
            if path.is_file() and not path.name.endswith(WEIGHTS):
                shutil.copyfile(path, temporary / path.name)
        _say_dtype(temporary / "config.json", record["dtype"])
        write_json(temporary / MARKER, record)
    return folder


def _say_dtype(config: Path, dtype: str) -> None:
    """Let the configuration say the type of the weights beside it, and all else as it was."""
    from tasks.documents import read_json_object

    values = read_json_object(config, "model configuration", any_number=True)
    values.pop("torch_dtype", None)
    write_json(config, {**values, "dtype": dtype})
