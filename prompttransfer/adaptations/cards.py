"""Model cards: what a stranger has to know of an adaptation, or of a library of them, and how to use it. Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from prompttransfer.adaptations.adaptation import Adaptation, Origin
from prompttransfer.backbones.revisions import is_commit
from tasks.errors import UserError

CONTROLS = ("chance", "no_prompt")
"""What stands beside a score in the record, and is no score itself."""
BESIDE = ("rows", "cut", "step", "value", "metric", "tasks", *CONTROLS)
OF_THE_PROJECT = {"embedded world": "Apache-2.0, text made by this project's own scripts"}
"""Sources of rows that come with the project -> their licence."""


def peft_note(adaptation: Adaptation) -> str:
    """What PEFT makes of an adaptation."""
    if adaptation.head is not None:
        return "PEFT has no place for the head, so it reads this folder without what answers the task; prompttransfer reads both."
    if adaptation.method.stored(adaptation.encoder) is not None:
        return (
            "PEFT reads the vectors, which are made of the numbers here: write them with "
            "`prompttransfer export FOLDER --output OUT --format peft`."
        )
    if adaptation.method.peft_config(family=adaptation.family, tensors=adaptation.tensors) is None:
        return f"PEFT has no method `{adaptation.method.name}`, so it cannot read this folder; prompttransfer can."
    if adaptation.layout == "prompt-first" or adaptation.family == "t5":
        return "PEFT reads this folder and gives the same logits."
    return f"PEFT puts prompts first, so it cannot run layout `{adaptation.layout}`; prompttransfer can."


def card(adaptation: Adaptation, *, licences: Mapping[str, str] | None = None, place: str = "FOLDER") -> str:
    """The model card of an adaptation; `licences` are those of hub data sets by name, `place` is where it is read from."""
    origin = adaptation.origin
    made = "".join(f"\n- made of: {part}" for part in _made_of(origin))
    words = ", ".join(f"{label} = {word}" for label, word in origin.words.items()) or "none (text is written)"
    if adaptation.head is not None:
        words = f"none; a trained head, in `head.safetensors`, tells apart {adaptation.head.told}"
    noted = "".join(
        f"- {key.replace('_', ' ')}: {_quoted(value)}\n" for key, value in adaptation.notes.items()
    )
    if adaptation.embedding is not None:
        step = adaptation.embedded_at
        noted += f"- task embedding: the tensors at step {step}, in `embedding.safetensors`\n"
    if adaptation.has_vectors:
        title, tag = "Soft prompt", "soft-prompt"
        what = f"{adaptation.length} vectors of width {adaptation.width}"
    else:
        title, tag = "Adaptation", adaptation.method.name
        what = f"{sum(tensor.numel() for tensor in adaptation.tensors.values()):,} numbers"
    return f"""---
library_name: peft
base_model: {json.dumps(origin.backbone)}
{_data_sets([adaptation])}tags: [{tag}, prompttransfer]
---
# {title} `{adaptation.name}`

{what} for task `{origin.task}` on `{origin.backbone}` ({origin.revision or "revision unknown"}).

- method: `{adaptation.method}`
- layout: `{adaptation.layout}`; label words: {words}
- start: `{origin.start}`, seed {origin.seed}{made}
- data: {origin.data.get("source", "unknown")}; {licence_line(adaptation, licences)}
{noted}- digest: `{adaptation.digest}`

{score_table([adaptation])}

{SPLITS}

## Use

{usage(adaptation, place)}

{peft_note(adaptation)}
"""


SPLITS = (
    "The test split is the data set's official validation split; the validation split is a seeded part of its training rows, "
    "and selected the checkpoint. Chance is the majority answer; no prompt is the backbone as it is, on the same test rows."
)


def library_card(
    repo: str, found: Sequence[Adaptation], folders: Sequence[str], licences: Mapping[str, str] | None = None
) -> str:
    """The card of a library of adaptations, each in its folder of the repository `repo`."""
    backbones = dict.fromkeys(each.backbone for each in found)
    lines = dict.fromkeys(
        f"- {each.origin.data.get('source', 'unknown source')}: {licence_line(each, licences)}"
        for each in found
    )
    base = "\n".join(f"- {json.dumps(backbone)}" for backbone in backbones)
    return f"""---
library_name: peft
base_model:
{base}
{_data_sets(found)}tags: [prompttransfer]
---
# {repo.rpartition("/")[2]}: {len(found)} adaptations

A folder each, on {", ".join(f"`{backbone}`" for backbone in backbones)}.

{score_table(found)}

{SPLITS}

## Use

```bash
prompttransfer pull {repo} --output library
prompttransfer prompts list library --sort test
prompttransfer evaluate library/{folders[0]} --task {found[0].task}
```

## Data

{chr(10).join(lines)}
"""


def usage(adaptation: Adaptation, place: str = "FOLDER") -> str:
    """How to use an adaptation that lies in a folder, or in a repository of the hub, from a shell and from Python."""
    shared = place != "FOLDER"
    folder = f"library/{adaptation.name}" if shared else place
    pull = f"prompttransfer pull {place} --output library\n" if shared else ""
    text = f"""```bash
{pull}prompttransfer evaluate {folder} --task {adaptation.task}
```"""
    reads = peft_note(adaptation).startswith("PEFT reads this folder")
    if not (reads and is_commit(adaptation.revision)):
        return text
    kind = {"masked-lm": "AutoModelForMaskedLM", "t5": "AutoModelForSeq2SeqLM"}.get(
        adaptation.family, "AutoModelForCausalLM"
    )
    return f"""{text}

```python
from peft import PeftModel
from transformers import {kind}

backbone = {kind}.from_pretrained("{adaptation.backbone}", revision="{adaptation.revision}")
model = PeftModel.from_pretrained(backbone, "{folder}")
```"""


def data_set_of(adaptation: Adaptation) -> str | None:
    """The hub data set that an adaptation was trained on; None for rows from elsewhere."""
    source = str(adaptation.origin.data.get("source", ""))
    return source.removeprefix("hub ").split(" ")[0] if source.startswith("hub ") else None


def licence_line(adaptation: Adaptation, licences: Mapping[str, str] | None = None) -> str:
    """What is known of the licence of the rows."""
    source = str(adaptation.origin.data.get("source", ""))
    known = OF_THE_PROJECT.get(source)
    if known is None and (name := data_set_of(adaptation)) is not None:
        where = f"https://huggingface.co/datasets/{name}"
        found = (licences or {}).get(name)
        known = f"{found}, as its card says ({where})" if found else f"see {where}"
    return f"licence: {known or (licences or {}).get('', 'not stated; ask who shares this')}"


def _data_sets(found: Sequence[Adaptation]) -> str:
    names = sorted({name for each in found if (name := data_set_of(each)) is not None})
    return f"datasets: {json.dumps(names)}\n" if names else ""


def score_table(found: Sequence[Adaptation]) -> str:
    """The scores of adaptations beside their controls, Markdown."""
    rows = [f"| {' | '.join(cells)} |" for each in found for cells in _score_rows(each, named=len(found) > 1)]
    lead = ["adaptation", "task", "method"] if len(found) > 1 else []
    columns = [*lead, "split", "score", "chance", "no prompt", "rows"]
    head = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"
    return "\n".join([head, *(rows or [f"| {' | '.join(['none measured', *[''] * (len(columns) - 1)])} |"])])


def _score_rows(adaptation: Adaptation, *, named: bool) -> list[list[str]]:
    lead = [f"`{adaptation.name}`", adaptation.task, f"`{adaptation.method}`"] if named else []
    rows = []
    for split, value in adaptation.scores.items():
        if not isinstance(value, Mapping):
            rows.append([*lead, split, str(value), "", "", ""])
            continue
        scores = {key: item for key, item in value.items() if key not in BESIDE}
        if "value" in value:
            scores = {str(value.get("metric", "value")): value["value"], **scores}
        said = ", ".join(f"{key} {_number(item)}" for key, item in scores.items())
        if "step" in value:
            said += f" at step {value['step']}"
        rows.append([*lead, split, said, *(_number(value.get(key)) for key in (*CONTROLS, "rows"))])
    return rows


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _made_of(origin: Origin) -> list[str]:
    """What an adaptation is made of that was not trained, a line a part."""
    parts = origin.recipe.get("made_of", ())
    return [
        f"{part['weight']:g} x `{part['name']}` (task `{part['task']}`, digest `{part['digest']}`)"
        for part in parts
    ]


def _quoted(value: Any) -> str:
    """A note as JSON: text of rows may hold anything."""
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def check_shareable(adaptation: Adaptation) -> None:
    """Raise UserError for an adaptation that nobody else could use: its backbone is a folder of this machine."""
    if adaptation.backbone.startswith(("/", ".", "~")):
        raise UserError(
            f"{adaptation.name} was trained on the folder {adaptation.backbone}, which nobody else has: train on a backbone of "
            f"the hub or an embedded one, or share it all the same with --local-backbone"
        )
