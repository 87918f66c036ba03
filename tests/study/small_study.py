"""A study of two tiny backbones and three tasks of its own, in a folder: seconds to run, every kind of cell in it."""

import json
import random
from pathlib import Path

TEXT = """
study: small
backbones: [near, far]
tasks: [films.yaml, songs.yaml, pairs.yaml]
seeds: [0, 1]
data: data
limit-test: 12
recipe: {steps: 4, batch: 4, length: 3, evaluate-every: 2}
transfers:
  initialisation: {sources: all, steps: 2, evaluate-every: 1}
projectors:
  - source: near
    target: far
    fitting: [films.yaml, pairs.yaml]
    unseen: [songs.yaml]
    steps: 3
    initialisation: {steps: 2, evaluate-every: 1}
indicators:
  similarity: [C_average]
  neurons: [ON]
report: {title: A small study}
"""

TASKS = {
    "films": "type: sentiment\nkind: sentence\nwords: {bad: terrible, good: great}\n",
    "songs": "type: sentiment\nkind: sentence\nwords: {bad: terrible, good: great}\n",
    "pairs": 'type: nli\nkind: pair\nwords: {"no": ["no"], "yes": ["yes"]}\n',
}
GOOD, BAD, THINGS = (
    ("fresh", "warm", "sweet", "bright"),
    ("dull", "cold", "grim", "sour"),
    ("film", "plot", "song", "book"),
)


def row(task, generator):
    """One row whose answer can be read off its words."""
    label = generator.randrange(2)
    words = GOOD if label else BAD
    said = f"the {generator.choice(THINGS)} was very {generator.choice(words)} and {generator.choice(words)}"
    if task == "pairs":
        return {"text_a": said, "text_b": f"it is {generator.choice(words)}", "label": ("no", "yes")[label]}
    return {"text": said, "label": ("bad", "good")[label]}


def write_rows(folder, task, *, seed=0, train=40, test=16):
    """`folder/<task>/{train,validation}.jsonl`, the same for the same seed."""
    place = folder / "data" / task
    place.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("validation", test)):
        generator = random.Random(f"{task} {split} {seed}")
        lines = [json.dumps(row(task, generator)) for _ in range(count)]
        (place / f"{split}.jsonl").write_text("\n".join(lines) + "\n")


def write_study(folder: Path, backbone_folder, text: str = TEXT) -> Path:
    """The study's file with everything that it names beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, kind, width in (("near", "roberta", 16), ("far", "bert", 24)):
        if not (folder / name).exists():
            (folder / name).symlink_to(backbone_folder(kind, width))
    for task, lines in TASKS.items():
        (folder / f"{task}.yaml").write_text(f"name: {task}\n{lines}")
        write_rows(folder, task)
    path = folder / "study.yaml"
    path.write_text(text)
    return path
