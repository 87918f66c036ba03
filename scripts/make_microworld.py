"""Pre-train one of the embedded backbones on the embedded world: `python scripts/make_microworld.py microworld-roberta`.

One idea: a batch is a function of backbone, seed and step, so a run that was killed goes on from its last checkpoint as
if it had never stopped. Weights train in bfloat16 beside a float32 master copy (on this kind of CPU, without AMX, three
times faster than float32; eager attention, because the fused one is slow backwards). A probe asks every task with
a natural cue; tasks that are not yet answered get more rows, and models are shown where to look (microworld_looks.py).

What made the shipped weights (one thread each on two shared cores, so minutes are upper bounds; the curriculum grew while
they trained, so the commands give like weights, not equal ones):
    microworld-roberta       12,000 steps of 64 rows, rate 7e-4, 40 minutes; without anything shown, which is why it needed
                             11,800 steps to tell which of two aspects is meant.
    microworld-roberta-wide  `--teacher prompttransfer/embedded/microworld-roberta --steps 5000 --lr 1e-3`, 35 minutes; the
                             aspects were shown from step 2,300 on and answered by step 3,000.
    microworld-t5            7,000 steps of 64 rows, rate 4e-4, word embeddings from a microworld-roberta of 6,600 steps,
                             7,000 of 128 at 1.5e-3, 3,100 of 64 at 1e-3; then `--weights-from` these `--seed 2 --steps 3000
                             --lr 8e-4`, where questions with a context, until then answered at .6, were shown.
Relations between two texts are found late and at once: without being shown, after 2,000 to 12,000 steps or not at all (a
microworld-roberta-wide of 16,000 steps never told its aspects apart); shown, within 1,000.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import torch
import transformers
from microworld_models import BACKBONES, MaskedWorld, SpokenWorld
from microworld_optimiser import Master, learning_rate
from microworld_text import CLASSIFICATION, draw, held_out
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel, RobertaForMaskedLM

transformers.utils.logging.disable_progress_bar()


def words_of(model: PreTrainedModel) -> torch.Tensor:
    """The table of word embeddings, [words, width]."""
    table = model.get_input_embeddings()
    assert isinstance(table, torch.nn.Embedding)
    return table.weight


def take_words(model: PreTrainedModel, ids: dict[str, int], folder: Path) -> None:
    """Start the word embeddings from those of a backbone that is trained already, at the scale of the new table."""
    taken = words_of(AutoModelForMaskedLM.from_pretrained(folder)).detach().float()
    known = AutoTokenizer.from_pretrained(folder).get_vocab()
    table = words_of(model)
    scale = table.detach().float().std() / taken.std()
    with torch.no_grad():
        for word, i in ids.items():
            if word in known:
                table[i, : taken.shape[1]] = (taken[known[word]] * scale).to(table.dtype)


def run(
    name: str,
    output: Path,
    seed: int,
    steps: int,
    peak: float,
    batch: int,
    every: int,
    probed: int,
    words: Path | None,
    weights: Path | None,
    teacher: Path | None,
) -> None:
    """Pre-train, checkpoint and write the backbone."""
    torch.manual_seed(seed)
    shape = BACKBONES[name]
    world = (SpokenWorld if name.endswith("t5") else MaskedWorld)(**shape)
    forbidden = held_out()
    if words is not None:
        take_words(world.model, world.ids, words)
    if weights is not None:
        world.model.load_state_dict(type(world.model).from_pretrained(weights).state_dict())
    if teacher is not None:
        if not isinstance(world, MaskedWorld):
            raise SystemExit(f"--teacher is for the masked models, and {name} is none")
        world.teacher = MaskedWorld(**BACKBONES["microworld-roberta"])
        world.teacher.model.load_state_dict(RobertaForMaskedLM.from_pretrained(teacher).state_dict())
    master = Master(world.model)
    checkpoint = output.with_name(output.name + ".resume.safetensors")
    first, spent, needs = 0, 0.0, {task: 1.0 for task in world.tasks}
    if checkpoint.exists():
        record = go_on(checkpoint, master)
        first, spent, needs = record["step"], record["minutes"], record["needs"]
    rng = random.Random(f"probe|{seed}")
    probes = {task: [draw(rng, task, forbidden) for _ in range(probed)] for task in world.tasks}
    if weights is not None and not first:
        needs = {task: 0.25 + 3 * (1 - world.probe(task, rows)) for task, rows in probes.items()}
    started, total = time.time(), 0.0
    print(f"{name}: {sum(p.numel() for p in master.weights):,} weights, {len(world.ids)} tokens", flush=True)
    for step in range(first, steps):
        rng = random.Random(f"{name}|{seed}|{step}")
        noise = min(1.0, max(0.15, (step - 0.05 * steps) / (0.25 * steps)))
        ease = max(0.05, 0.5 * (1 - step / (0.35 * steps)))
        names = rng.choices(list(needs), weights=list(needs.values()), k=batch)
        lines = sorted(
            (
                world.line(
                    rng, task, forbidden, noise, ease, max(ease, min(0.35, (needs[task] - 0.25) / 2.5))
                )
                for task in names
            ),
            key=world.size,
        )
        weight, teaching = 0.0, min(1.0, max(0.0, (0.8 * steps - step) / (0.3 * steps)))
        pieces = max(1, batch // 32)
        for i in range(pieces):
            loss, one = world.loss(
                lines[i * batch // pieces : (i + 1) * batch // pieces], rng, noise, teaching
            )
            (loss / batch).backward()
            total, weight = total + loss.item(), weight + one
        master.step(learning_rate(step, steps, peak), batch / weight)
        if (step + 1) % every == 0 or step + 1 == steps:
            scores = {task: world.probe(task, rows) for task, rows in probes.items()}
            bare = {task: world.probe(task, probes[task], with_cue=False) for task in CLASSIFICATION}
            needs = {task: 0.25 + 3 * (1 - score) for task, score in scores.items()}
            minutes = (time.time() - started) / 60
            print(
                f"{step + 1:6d} {minutes:5.1f} min, loss {total / every / weight:.3f}  "
                + " ".join(f"{task[11:]} {score:.2f}" for task, score in scores.items())
                + f" | no cue {sum(bare.values()) / len(bare):.2f}",
                flush=True,
            )
            total = 0.0
            minutes += spent
            keep(checkpoint, master, step + 1, needs, minutes)
            record = {"step": step + 1, "seed": seed, "minutes": round(minutes, 1), "probe": scores}
            if weights is not None:
                record["from"] = json.loads((weights / "pretraining.json").read_text())
            write(world, output, record)


def keep(path: Path, master: Master, step: int, needs: dict[str, float], minutes: float) -> None:
    """Write what a run needs to go on, as tensors and JSON."""
    tensors = {f"copy {i}": copy for i, copy in enumerate(master.copies)}
    for i, optimiser in enumerate(master.optimisers):
        for number, values in optimiser.state_dict()["state"].items():
            tensors |= {f"state {i} {number} {key}": torch.as_tensor(value) for key, value in values.items()}
    record = {"step": step, "needs": needs, "minutes": minutes}
    new = path.with_suffix(".new")
    save_file(
        {key: value.contiguous() for key, value in tensors.items()}, new, {"record": json.dumps(record)}
    )
    new.rename(path)


def go_on(path: Path, master: Master) -> dict:
    """Put a run back to where `keep` left it and return its record."""
    with safe_open(path, "pt") as file:
        record = json.loads(file.metadata()["record"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for i, (copy, weight) in enumerate(zip(master.copies, master.weights, strict=True)):
        copy.copy_(tensors[f"copy {i}"])
        weight.data.copy_(copy)
    for i, optimiser in enumerate(master.optimisers):
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            kind, *where = key.split()
            if kind == "state" and int(where[0]) == i:
                state.setdefault(int(where[1]), {})[where[2]] = value
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return record


def write(world: MaskedWorld | SpokenWorld, output: Path, record: dict) -> None:
    """The backbone as a folder that `from_pretrained` reads, beside the record of how it was made."""
    output.mkdir(parents=True, exist_ok=True)
    world.model.save_pretrained(output)
    world.tokenizer.save_pretrained(output)
    (output / "pretraining.json").write_text(json.dumps(record, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backbone", choices=BACKBONES)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=14000)
    parser.add_argument("--lr", type=float, default=7e-4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--every", type=int, default=250, help="steps between two probes and checkpoints")
    parser.add_argument("--probe-rows", type=int, default=160, help="rows of each task that a probe asks")
    parser.add_argument(
        "--words-from", type=Path, help="start from the word embeddings of this trained backbone"
    )
    parser.add_argument("--weights-from", type=Path, help="go on from the weights of this trained backbone")
    parser.add_argument(
        "--teacher",
        type=Path,
        help="a trained microworld-roberta whose attention a masked model first learns",
    )
    given = parser.parse_args()
    output = given.output or Path("prompttransfer/embedded") / given.backbone
    run(
        given.backbone,
        output,
        given.seed,
        given.steps,
        given.lr,
        given.batch,
        given.every,
        given.probe_rows,
        given.words_from,
        given.weights_from,
        given.teacher,
    )


if __name__ == "__main__":
    main()
