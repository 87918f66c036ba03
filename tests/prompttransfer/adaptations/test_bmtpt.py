"""Particles of a posterior over source prompts, and a target that begins at their mean and is held near it (BMTPT)."""

import math

import pytest
import torch
from toys import Watcher, label_task, noise, prompt_on, recipe, splits, stop

from prompttransfer.adaptations.adaptation import PROMPT_KEY, same_tensors
from prompttransfer.adaptations.artifacts import load_adaptation, save_adaptation
from prompttransfer.adaptations.methods import parse_method
from prompttransfer.adaptations.methods.particles import stein
from prompttransfer.adaptations.starts import RANDOM, From, start_from
from prompttransfer.training.train import Job, TrainingOptions, train_adaptations
from tasks.errors import UserError

TASK = label_task()
ROWS = splits().train


def test_two_particles_by_hand():
    # |x - y|^2 = 4, h = 4 / log 2, k = 1 / 2; 2 / (h N) = log 2 / 2 / N
    points, gradients = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]])
    push = math.log(2) / 2 / 10
    expected = [[(1 + 3 / 2 + push * 2 / 2) / 2], [(3 + 1 / 2 - push * 2 / 2) / 2]]
    torch.testing.assert_close(stein(points, gradients, 10), torch.tensor(expected))


def test_the_direction_is_that_of_the_paper_with_the_gradient_of_its_kernel():
    points, gradients, rows = noise(5, 7, seed=1), noise(5, 7, seed=2), 20.0
    distances = torch.pdist(points)
    width = distances.median() ** 2 / math.log(5)
    expected = torch.zeros_like(points)
    for i in range(5):
        for j in range(5):
            other = points[j].clone().requires_grad_()
            kernel = torch.exp(-(other - points[i]).square().sum() / width)
            (pushed,) = torch.autograd.grad(kernel, other)
            score = -rows * gradients[j]  # of log p
            expected[i] += (kernel.detach() * score + pushed) / 5
    torch.testing.assert_close(stein(points, gradients, rows), -expected / rows, atol=1e-5, rtol=1e-5)


def test_one_particle_follows_its_gradient_and_particles_in_one_place_follow_the_mean():
    assert torch.equal(stein(noise(1, 4), noise(1, 4, seed=1), 10), noise(1, 4, seed=1))
    same, gradients = noise(1, 4).expand(3, 4), noise(3, 4, seed=1)
    torch.testing.assert_close(stein(same, gradients, 10), gradients.mean(0).expand(3, 4))


def test_particles_of_one_task_move_together_and_others_and_lost_ones_do_not_touch_them(tiny):
    backbone, method = tiny("roberta"), parse_method("particles:length=3,rows=10")
    tasks = (TASK, TASK, TASK, label_task("other"))
    members = [method.started(backbone, task, RANDOM, seed=seed) for seed, task in enumerate(tasks)]
    method.join(members, [0.1] * 4)
    gradients = noise(4, 3, backbone.width, seed=5)
    gradients[2] = math.nan
    for member, gradient in zip(members, gradients, strict=True):
        member.prompt.grad = gradient.clone()
    for member in members:
        member.before_step(1, 9)
    points = torch.stack([member.prompt.detach().flatten() for member in members[:2]])
    wanted = stein(points, gradients[:2].flatten(1), 10).view(2, 3, -1)
    torch.testing.assert_close(torch.stack([member.prompt.grad for member in members[:2]]), wanted)
    assert torch.equal(members[3].prompt.grad, gradients[3])


def test_killed_particles_go_on_to_the_same_prompts(tiny, tmp_path):
    method = parse_method("particles:length=3,rows=10")

    def train(options=None):
        jobs = [Job(TASK, splits(), seed, name=f"toy-s{seed}") for seed in (0, 1)]
        return train_adaptations(tiny("roberta"), jobs, recipe(), method=method, options=options)

    whole = [run.adaptation for run in train()]
    with pytest.raises(RuntimeError):
        train(TrainingOptions(tmp_path, progress=Watcher(3, stop)))
    for one, run in zip(whole, train(TrainingOptions(tmp_path)), strict=True):
        assert same_tensors(one.tensors, run.adaptation.tensors)


@pytest.fixture
def library(tiny, tmp_path):
    """Three prompts of other tasks, one of the target's own, one of a mixture with it; the vectors of the first three."""
    for number, task in enumerate(("a", "b", "c", "toy", "a+toy")):
        made = prompt_on(tiny("roberta"), task=task, seed=number)
        save_adaptation(made, tmp_path / f"library/{number}")
    return tmp_path / "library", torch.stack([noise(3, 16, seed=seed) for seed in range(3)])


def test_a_target_begins_at_the_mean_of_other_tasks_and_pays_for_leaving_it(tiny, library):
    folder, vectors = library
    method = parse_method(f"bmtpt:length=3,sources={folder},weight=2")
    member = method.started(tiny("roberta"), TASK, RANDOM, seed=0, rows=ROWS)
    mean = vectors.mean(0)
    torch.testing.assert_close(member.tensors()[PROMPT_KEY], mean)
    assert member.penalty().item() == 0
    with torch.no_grad():
        member.prompt += 0.5
    variance = vectors.double().var(0).mean()
    expected = 2 / len(ROWS) * -torch.distributions.Normal(mean, variance.sqrt().float()).log_prob(mean + 0.5)
    expected += 2 / len(ROWS) * torch.distributions.Normal(mean, variance.sqrt().float()).log_prob(mean)
    assert member.penalty().item() == pytest.approx(expected.sum().item(), rel=1e-4)
    assert member.notes()["sources"] == ["a-s0", "b-s1", "c-s2"]
    assert method.remarks(tiny("roberta"), ["toy"]) == [
        "left out of the sources where the task is their own: toy-s3, a+toy-s4"
    ]


def test_the_prior_stays_where_training_starts_elsewhere_or_goes_on(tiny, library, tmp_path):
    backbone, (folder, vectors) = tiny("roberta"), library
    method = parse_method(f"bmtpt:length=3,sources={folder}")
    plain = From({PROMPT_KEY: noise(3, 16, seed=9)}, "from:x")
    member = method.started(backbone, TASK, plain, seed=0, rows=ROWS)
    assert same_tensors(member.tensors(), plain.tensors) and member.penalty().item() > 0
    torch.testing.assert_close(member.mean, vectors.mean(0))
    (run,) = train_adaptations(backbone, [Job(TASK, splits())], recipe(), method=method)
    kept = load_adaptation(save_adaptation(run.adaptation, tmp_path / "kept"))
    again = method.started(backbone, TASK, start_from(kept), seed=1, rows=ROWS)
    assert same_tensors(again.tensors(), kept.tensors) and torch.equal(again.mean, member.mean)
    free = parse_method(f"bmtpt:length=3,sources={folder},weight=0").started(backbone, TASK, RANDOM, seed=0)
    assert free.penalty() is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("particles:rows=0", "particles: rows 0: it must be at least 1"),
        ("bmtpt:weight=-1", "bmtpt: weight -1: it must be a number of 0 or more"),
        ("bmtpt:sources=random:x", "bmtpt: sources 'random:x': say how many"),
    ],
)
def test_a_wrong_setting_is_one_line(text, message):
    with pytest.raises(UserError, match=message):
        parse_method(text)


def test_one_source_needs_a_deviation(tiny):
    given = "bmtpt:length=3,sources=random:1"
    with pytest.raises(UserError, match="one source in random:1 has no variance"):
        parse_method(given).started(tiny("roberta"), TASK, RANDOM, seed=0, rows=ROWS)
    member = parse_method(f"{given},deviation=0.5").started(tiny("roberta"), TASK, RANDOM, seed=0, rows=ROWS)
    assert member.variance.item() == pytest.approx(0.25)
