"""Calls that a GPU has recorded give what calls give that Python launches."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from prompttransfer.backbones.interventions import Vectors
from prompttransfer.backbones.kernels.async_copies import HostCopy, send
from prompttransfer.backbones.kernels.cuda_graphs import MULTIPLE, padded
from prompttransfer.backbones.layouts import find_layout
from prompttransfer.backbones.loading import load_backbone
from prompttransfer.training.loop import BankTraining
from prompttransfer.training.recipes import recipe_for
from prompttransfer.training.train import Job, TrainingOptions, train_adaptations
from tasks.catalog import find_task
from tasks.loading import load_splits

FIRST = find_layout("prompt-first")
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU here")
BACKBONES = ("microworld-roberta", "microworld-t5")


def rows_of(backbone, count=24, task="microworld-sst2"):
    task = find_task(task)
    return backbone.encode(task, load_splits(task, limit_train=64).train[:count], reserved=20)


def results(backbone, batch, scale=0.5):
    """Losses of a batch, and the gradient of their weighted sum in one prompt that all rows share."""
    prompt = scale * torch.randn(1, 20, backbone.width, generator=torch.Generator().manual_seed(0))
    prompt = prompt.to(backbone.device).requires_grad_()
    losses = backbone.loss(Vectors(prompt.expand(batch.rows, -1, -1)), batch)
    (losses * torch.arange(1, batch.rows + 1, device=losses.device)).sum().backward()
    return losses.detach(), prompt.grad


# Without a GPU ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKBONES)
def test_time_padded_to_a_multiple_changes_no_loss(name):
    backbone = load_backbone(name, precision="fp32", device="cpu")
    batch = backbone.batch(rows_of(backbone), layout=FIRST)
    more = padded(batch, length=20, most=None, pad_id=backbone.tokenizer.pad_token_id)
    assert (more.ids.shape[1] + 20) % MULTIPLE == 0 and 0 <= more.ids.shape[1] - batch.ids.shape[1] < MULTIPLE
    for ours, wanted in zip(results(backbone, more), results(backbone, batch), strict=True):
        torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-5)
    none = padded(batch, length=20, most=batch.ids.shape[1] + 20, pad_id=0)
    assert torch.equal(none.ids, batch.ids)  # a model has no more positions than it has


def test_targets_are_padded_with_what_no_loss_counts():
    backbone = load_backbone("microworld-t5", precision="fp32", device="cpu")
    batch = backbone.batch(rows_of(backbone, task="microworld-squad"), layout=FIRST)
    more = padded(batch, length=20, most=None, pad_id=backbone.tokenizer.pad_token_id)
    assert more.targets.shape[1] % MULTIPLE == 0
    torch.testing.assert_close(results(backbone, more), results(backbone, batch), atol=1e-5, rtol=1e-5)


def test_what_transformers_decodes_is_not_recorded():
    t5, roberta = (load_backbone(name, device="cpu") for name in ("microworld-t5", "microworld-roberta"))
    rows = rows_of(t5)
    assert t5.recordable(rows) and roberta.recordable(rows_of(roberta))
    assert not t5.recordable(rows_of(t5, task="microworld-squad"))
    answers = rows[0].answers
    longer = replace(answers, pieces=tuple((*piece, 1) for piece in answers.pieces))
    assert not t5.recordable([replace(rows[0], answers=longer)])
    assert t5.recordable([replace(rows[0], answers=replace(longer, aggregation="first"))])


def test_nothing_is_recorded_on_a_cpu_or_where_modules_must_run_themselves():
    backbone = load_backbone("microworld-roberta", device="cpu")
    assert not backbone.recording
    results(backbone, backbone.batch(rows_of(backbone), layout=FIRST))
    assert backbone._graphs is None
    backbone.device = torch.device("cuda")  # only to be asked
    assert backbone.recording
    with backbone.on("plain"):
        assert not backbone.recording
    assert backbone.recording
    backbone.records = False
    assert not backbone.recording


def test_torchs_norm_is_that_of_t5():
    backbone = load_backbone("microworld-t5", precision="fp32", device="cpu")
    norm = backbone.model.encoder.final_layer_norm
    states = torch.randn(3, 5, backbone.width)
    ours = F.rms_norm(states, norm.weight.shape, norm.weight, norm.variance_epsilon)
    torch.testing.assert_close(ours, norm(states))


def test_values_are_sent_and_read_on_a_cpu_too():
    assert send(torch.tensor([1, 2]), torch.device("cpu")).tolist() == [1, 2]
    assert HostCopy(torch.tensor([0.5, 2.0])).read() == [0.5, 2.0]


# With one --------------------------------------------------------------------------------------------------------


@on_gpu
@pytest.mark.parametrize("checkpoints", [False, True])
@pytest.mark.parametrize("name", BACKBONES)
def test_a_recorded_call_gives_what_a_launched_one_gives(name, checkpoints):
    backbone = load_backbone(name, precision="fp32", device="cuda")
    backbone.checkpoints = checkpoints
    batch = backbone.batch(rows_of(backbone), layout=FIRST)
    recorded, again = results(backbone, batch), results(backbone, batch)
    other = results(backbone, batch, scale=0.1)
    assert backbone._graphs is not None
    backbone.records = False
    for ours, same, wanted in zip(recorded, again, results(backbone, batch), strict=True):
        assert torch.equal(ours, same)
        torch.testing.assert_close(ours, wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(other, results(backbone, batch, scale=0.1), atol=1e-4, rtol=1e-4)


@on_gpu
def test_a_recording_outlives_what_lightning_clears_behind_a_run():
    backbone = load_backbone("microworld-roberta", device="cuda")
    batch = backbone.batch(rows_of(backbone), layout=FIRST)
    before = results(backbone, batch)
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    taken = [torch.full((2**20,), float("nan"), device="cuda") for _ in range(64)]
    after = results(backbone, batch)
    assert len(taken) == 64
    assert all(torch.equal(ours, wanted) for ours, wanted in zip(after, before, strict=True))


class Stop:
    """A progress display that ends the run at a step."""

    def __init__(self, at):
        self.at = at

    def step(self, bank: BankTraining):
        if bank.steps_done == self.at:
            raise RuntimeError("stopped")

    def evaluated(self, bank):
        pass

    def resumed(self, step):
        pass


@on_gpu
@pytest.mark.parametrize("name", BACKBONES)
def test_the_same_seed_gives_the_same_prompt_on_a_gpu_and_so_does_a_killed_run_that_goes_on(name, tmp_path):
    tasks = [find_task(own) for own in ("microworld-sst2", "microworld-mnli")]
    jobs = [Job(task, load_splits(task, limit_train=500, limit_test=50)) for task in tasks]

    def train(**options):
        backbone = load_backbone(name, device="cuda")
        recipe = recipe_for(backbone, steps=30, evaluate_every=15)
        trained = train_adaptations(backbone, jobs, recipe, options=TrainingOptions(**options))
        return [run.adaptation.vectors for run in trained]

    once = train()
    with pytest.raises(RuntimeError, match="stopped"):
        train(state_folder=tmp_path, progress=Stop(20))
    for vectors in (train(), train(state_folder=tmp_path)):
        assert all(torch.equal(ours, wanted) for ours, wanted in zip(vectors, once, strict=True))


@on_gpu
def test_a_loss_that_is_not_finite_ends_its_own_prompt_only_on_a_gpu():
    class Poison(Stop):
        def step(self, bank):
            if bank.steps_done == self.at:
                with torch.no_grad():
                    bank.members[0].prompt.fill_(float("nan"))

    task = find_task("microworld-sst2")
    splits = load_splits(task, limit_train=500, limit_test=50)
    backbone = load_backbone("microworld-roberta", device="cuda")
    recipe = recipe_for(backbone, steps=12, evaluate_every=6)
    options = TrainingOptions(progress=Poison(3))
    hurt, well = train_adaptations(
        backbone, [Job(task, splits, seed) for seed in (0, 1)], recipe, options=options
    )
    assert hurt.ended == "not finite" and hurt.steps == 4 and well.ended == "steps"
    assert torch.isfinite(hurt.adaptation.vectors).all() and torch.isfinite(well.adaptation.vectors).all()
