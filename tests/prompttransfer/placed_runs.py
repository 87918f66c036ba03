"""What several processes do in test_placement.py: small trainings under both strategies, and commands.

As a script, started in two processes by torchrun: `placed_runs.py FOLDER BACKBONES COMMANDS`. The test does the same
in one process with `measured`, and compares.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from prompttransfer.distributed.placement import Placement
from tasks.errors import MachineError, UserError

DECODERS = ("llama", "gpt2", "gemma3_text", "opt")
OTHERS = (
    *("distilbert", "albert", "electra", "deberta-v2", "deberta-v3", "modernbert", "mpnet"),
    *("longt5", "longt5-global"),
)
"""Run by the modules of transformers alone; one of each way in which they lay their parts out."""
CASES = (
    ("ddp", "roberta", False),
    *(("fsdp", kind, False) for kind in ("roberta", "bert", "t5", "t5-v1.1")),
    *(("fsdp", kind, True) for kind in ("roberta", "t5")),
    *(("fsdp", kind, False) for kind in (*DECODERS, *OTHERS)),
    ("fsdp", "gpt2", True),
)
"""Strategy, kind of backbone, and whether inner values are computed again."""
SETTINGS = {"lr": 0.005, "batch": 5, "steps": 2, "evaluate_every": 2}
LONGER = {"steps": 6, "evaluate_every": 2}


class Keeper:
    """Copies the state of a run at a step, as a kill would leave it there, and sees where a run goes on."""

    def __init__(self, source: Path | None = None, *targets: Path, at: int = 5):
        self.source, self.targets, self.at = source, targets, at
        self.resumed_at = None

    def step(self, bank):
        if bank.steps_done == self.at:
            for target in self.targets:
                shutil.copytree(self.source, target)

    def evaluated(self, bank):
        pass

    def resumed(self, step):
        self.resumed_at = step


def jobs_for(kind, again):
    """Two prompts of a label task, and once on a T5 one that learns to write."""
    from toys import label_task, question_task, splits

    from prompttransfer.training.train import Job
    from tasks.loading import Splits
    from tasks.task import Example

    jobs = [Job(label_task(), splits(), seed, name=f"s{seed}") for seed in (0, 1)]
    if kind == "t5" and not again:
        rows = tuple(
            Example(f"the {noun} was {word}", f"the {noun} is what", references=(word,))
            for noun in ("film", "food", "room")
            for word in ("cold", "warm", "dull")
        )
        jobs.append(Job(question_task(), Splits(rows, rows[:5], rows, "toy rows", "1"), name="q"))
    return jobs


def measured(kind, place, placement, *, again=False, longer=False, **options):
    """Vectors, learning curves and bytes of weights of one small training."""
    import torch
    from toys import recipe

    from prompttransfer.backbones.loading import load_backbone
    from prompttransfer.training.train import TrainingOptions, train_adaptations

    backbone = load_backbone(str(place), precision="fp32", device="cpu", placement=placement)
    backbone.checkpoints = again
    backbone.tokens_at_once = 120  # several micro-batches a step, some of one row
    plan = recipe(**SETTINGS | (LONGER if longer else {}))
    runs = train_adaptations(backbone, jobs_for(kind, again), plan, options=TrainingOptions(**options))
    vectors = torch.stack([run.adaptation.vectors for run in runs])
    same = backbone.processes.gather([run.adaptation.digest for run in runs])
    assert all(other == same[0] for other in same), "the processes have come to different prompts"
    return {
        "vectors": vectors.tolist(),
        "curves": [
            [(p.step, p.loss, p.score, p.validation_loss) for p in run.adaptation.curve] for run in runs
        ],
        "bytes": backbone.held_bytes,
        "words": backbone.embedding_table().sum().item(),
    }


def interrupted(place, folder, rank):
    """A training whose state at step 5 is kept aside, what goes on from there, and what cannot."""

    def run(state, progress=None):
        found = measured("roberta", place, Placement(2), longer=True, state_folder=state, progress=progress)
        return found["vectors"]

    follower = Keeper()
    kept = [folder / name for name in ("kept", "for-one", "for-first")]
    whole = run(folder / "whole", Keeper(folder / "whole", *kept))
    rest = run(folder / "kept", follower)
    try:
        run(folder / ("nothing-here" if rank else "for-first"))
        line = "went on"
    except MachineError as error:
        line = str(error)
    return {"whole": whole, "rest": rest, "resumed_at": follower.resumed_at, "line": line}


def fail_in_second():
    """One process makes a mistake while the other waits for it."""
    import torch

    torch.distributed.init_process_group("gloo")
    if torch.distributed.get_rank() == 1:
        raise UserError("the second does not like this")
    torch.distributed.barrier()


def add(first, second):
    """A value by way of another process."""
    return first + second


def main(folder, backbones, commands):
    """Every case, then the commands; the first process writes what came out."""
    import torch

    found = {
        f"{strategy} {kind} {again}": measured(kind, backbones[kind], Placement(2, strategy), again=again)
        for strategy, kind, again in CASES
    }
    rank = torch.distributed.get_rank()
    found["interrupted"] = interrupted(backbones["roberta"], folder, rank)
    if rank == 0:
        (folder / "found.json").write_text(json.dumps(found))

    from prompttransfer.cli import main as prompttransfer

    for command in commands:
        try:
            prompttransfer(command)
        except SystemExit as done:
            assert not done.code, command


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3]))
