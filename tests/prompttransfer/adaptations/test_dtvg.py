"""Task vectors of sources regrouped while a target's own is learned."""

import pytest
import torch
from toys import Watcher, changed, label_task, noise, prompt_on, recipe, splits, stop

from prompttransfer.adaptations.adaptation import PROMPT_KEY, same_tensors
from prompttransfer.adaptations.artifacts import load_adaptation, save_adaptation
from prompttransfer.adaptations.methods import parse_method
from prompttransfer.adaptations.methods.dtvg import grouped
from prompttransfer.adaptations.starts import RANDOM, From, start_from
from prompttransfer.training.train import Job, TrainingOptions, train_adaptations
from tasks.errors import UserError

TASK = label_task()


def unit(*values):
    """Task vectors [3, 16] whose mean row has these first values."""
    row = torch.zeros(16)
    row[: len(values)] = torch.tensor(values)
    return row.repeat(3, 1)


def library(folder, tiny, added, **fields):
    """Prompts of a folder to which training added these task vectors, each on a start of its own."""
    for number, (name, tau) in enumerate(added.items()):
        start = noise(3, 16, seed=number)
        made = changed(prompt_on(tiny("roberta"), task=name), vectors=start + tau, initial=start, name=name)
        save_adaptation(changed(made, **fields), folder / name)
    return folder


def method_on(folder, **settings):
    more = "".join(f",{name}={value}" for name, value in settings.items())
    return parse_method(f"dtvg:length=3,sources={folder}{more}")


@pytest.fixture
def member(tiny, tmp_path):
    """Around four task vectors: two that agree, one against the first, one against the target."""
    added = {"a": unit(2, 1), "b": unit(1, 0.5), "c": unit(-0.5, 3), "d": unit(-1, -1)}
    return method_on(library(tmp_path / "library", tiny, added)).member(
        tiny("roberta"), TASK, start="random", seed=0
    )


def test_sources_are_taken_by_similarity_while_they_agree():
    among = [[4, 2, -3, 1], [2, 4, 1, 0], [-3, 1, 4, 0], [1, 0, 0, 4]]
    assert grouped([0.5, 0.4, 0.3, -1.0], among) == [
        0,
        1,
    ]  # 2 is at -3 + 1 of the group, 3 is not like the target
    assert grouped([0.1, 0.4, 0.3, 0.2], among) == [1, 2]  # 0 is at 2 - 3, 3 at 0 + 0
    assert grouped([0.0, -1.0, 0.0, 0.0], among) == []


def test_the_group_is_chosen_behind_a_step_and_mixed_by_its_weights(member):
    start = member.begin.clone()
    assert torch.equal(member.tensors()[PROMPT_KEY], start)
    with torch.no_grad():
        member.own += unit(1, 0.2)
        member.own_weight.fill_(2.0)
        member.weights.copy_(torch.tensor([[0.5, 0.25, 9.0, 9.0]]))
    member.after_step(1, 2)
    # sim to the target: a 2.2, b 1.1, c .1, d -1.2; c is at -1 + 3 > 0 of a, and at -.5 + 1.5 > 0 of b
    assert member.group.tolist() == [1, 1, 1, 0]
    with torch.no_grad():
        member.own[:, 1] = -0.2
    member.after_step(2, 2)  # now c is at -1.1
    assert member.group.tolist() == [1, 1, 0, 0]
    expected = start + 2 * unit(1, -0.2) + 0.5 * unit(2, 1) + 0.25 * unit(1, 0.5)
    torch.testing.assert_close(member.tensors()[PROMPT_KEY], expected)
    notes = member.notes()
    assert notes["group"] == {"a": 0.5, "b": 0.25}
    assert notes["share_of_steps"] == {"a": 1.0, "b": 1.0, "c": 0.5, "d": 0.0}


def test_coefficients_have_a_rate_of_their_own_and_only_those_in_the_group_learn(member):
    assert member.rates() == {"own_weight": 0.1, "weights": 0.1}
    with torch.no_grad():
        member.own += unit(1, -0.2)
    member.after_step(1, 1)
    member.vectors().sum().backward()
    assert member.weights.grad[0, 0] != 0 and member.weights.grad[0, 2:].tolist() == [0, 0]
    assert {name for name, _ in member.named_parameters()} == {"own", "own_weight", "weights"}


def test_what_was_trained_is_a_plain_prompt_that_goes_on_with_its_parts(tiny, tmp_path):
    backbone = tiny("roberta")
    method = method_on(
        library(tmp_path / "library", tiny, {"a": noise(3, 16, seed=5), "b": noise(3, 16, seed=6)})
    )

    def train(options=None, **fields):
        jobs = [Job(TASK, splits(), seed, name=f"toy-s{seed}", **fields) for seed in (0, 1)]
        return train_adaptations(backbone, jobs, recipe(), method=method, options=options)

    whole = [run.adaptation for run in train()]
    with pytest.raises(RuntimeError):
        train(TrainingOptions(tmp_path, progress=Watcher(3, stop)))
    for one, run in zip(whole, train(TrainingOptions(tmp_path)), strict=True):
        assert same_tensors(one.tensors, run.adaptation.tensors) and one.notes == run.adaptation.notes
    kept = load_adaptation(save_adaptation(whole[0], tmp_path / "kept"))
    assert kept.has_vectors and set(kept.notes["share_of_steps"]) == {"a", "b"}
    again = method.started(backbone, TASK, start_from(kept), seed=3)
    assert same_tensors(again.tensors(), kept.tensors)
    plain = {PROMPT_KEY: noise(3, 16)}
    assert same_tensors(method.started(backbone, TASK, From(plain, "from:x"), seed=0).tensors(), plain)


def test_a_source_of_the_target_s_own_task_is_left_out(tiny, tmp_path):
    backbone = tiny("roberta")
    method = method_on(library(tmp_path, tiny, {"toy": unit(2, 1), "a": unit(1, 0.5), "b": unit(-1)}))
    plain = From({PROMPT_KEY: noise(3, 16)}, "from:x")
    for start in (RANDOM, plain):
        member = method.started(backbone, TASK, start, seed=0)
        torch.testing.assert_close(member.sources, torch.stack([unit(1, 0.5), unit(-1)]))
        assert list(member.notes()["share_of_steps"]) == ["a", "b"]
    assert len(method.outline(backbone, TASK).sources) == 2
    assert len(method.started(backbone, label_task("other"), RANDOM, seed=0).sources) == 3
    assert method.remarks(backbone, ["toy"]) == ["left out of the sources where the task is their own: toy"]


@pytest.mark.parametrize(
    ("added", "fields", "message"),
    [
        ({"a": unit(1)}, {"initial": None}, "the start of 'a' in .* is not known"),
        ({"a": unit(1)}, {"backbone": "elsewhere", "revision": "x"}, "was trained on elsewhere"),
        ({"a": unit(1)}, {"layout": "after-bos"}, "under layout 'after-bos'"),
        (
            {"a": unit(1)},
            {"length": 2},
            "the sources in .* have 3 vectors, the target's own 2: use --length 3",
        ),
        ({}, {}, "no prompt in"),
        ({"toy": unit(1)}, {}, "dtvg: every source in .* is of toy itself: give prompts of other tasks"),
    ],
)
def test_sources_that_do_not_fit_are_one_line(tiny, tmp_path, added, fields, message):
    length = fields.pop("length", 3)
    (tmp_path / "library").mkdir()
    folder = library(tmp_path / "library", tiny, added, **fields)
    method = parse_method(f"dtvg:length={length},sources={folder}")
    with pytest.raises(UserError, match=message):
        method.started(tiny("roberta"), TASK, Job(TASK, splits()).start, seed=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dtvg:sources=random:x", "dtvg: sources 'random:x': say how many"),
        ("dtvg:ratio=0", "dtvg: ratio 0: it must be a number above 0"),
    ],
)
def test_a_wrong_setting_is_one_line(text, message):
    with pytest.raises(UserError, match=message):
        parse_method(text)
    with pytest.raises(UserError, match="dtvg needs source prompts"):
        parse_method("dtvg").check_complete()
