"""A task's part of a shared prompt as a small file: back bit for bit, and what is refused."""

from __future__ import annotations

import pytest
import torch
from toys import label_task, prompt_on, recipe, splits

from prompttransfer.adaptations.adaptation import same_tensors
from prompttransfer.adaptations.artifacts import record
from prompttransfer.adaptations.methods import parse_method
from prompttransfer.adaptations.parts import read_part, write_parts
from prompttransfer.training.train import Job, train_adaptations
from tasks.errors import UserError


@pytest.fixture
def trained(tiny):
    jobs = [Job(label_task(name), splits()) for name in ("one", "two")]
    plan = recipe(steps=2, evaluate_every=2)
    return [
        run.adaptation
        for run in train_adaptations(tiny("roberta"), jobs, plan, method=parse_method("mpt:length=3"))
    ]


def test_parts_are_read_back_bit_for_bit(trained, tmp_path):
    small, shared = write_parts(trained, tmp_path)
    alike = torch.equal(trained[0].encoder["shared"], trained[1].encoder["shared"])
    assert len(shared) == (1 if alike else 2)
    for path, each in zip(small, trained, strict=True):
        found = read_part(path)
        assert same_tensors(found.tensors, each.tensors) and same_tensors(found.encoder, each.encoder)
        assert record(found) == record(each)
        assert found.initial is None


def test_a_part_says_which_shared_prompt_it_is_of(trained, tmp_path):
    (small, _), shared = write_parts(trained, tmp_path)
    for path in shared:
        path.unlink()
    with pytest.raises(UserError, match="does not lie beside it"):
        read_part(small)


def test_only_tasks_of_mpt_have_parts(tiny, tmp_path):
    with pytest.raises(UserError, match="'toy-s0' is of method prompt"):
        write_parts([prompt_on(tiny("roberta"))], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_damaged_part_is_one_line(trained, tmp_path):
    (small, _), _ = write_parts(trained, tmp_path)
    content = bytearray(small.read_bytes())
    content[-3] ^= 1
    small.write_bytes(bytes(content))
    with pytest.raises(UserError, match="changed after it was written") as error:
        read_part(small)
    assert "\n" not in str(error.value)
