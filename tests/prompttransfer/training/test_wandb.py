"""W&B beside the other loggers, offline: one run a training run, and one line where the package is not there."""

from importlib.util import find_spec

import pytest
from toys import label_task, recipe, splits

from prompttransfer.training.run_logs import check_logger, open_logs
from prompttransfer.training.train import Job, TrainingOptions, train_adaptations
from tasks.errors import UserError

INSTALLED = find_spec("wandb") is not None
without = pytest.mark.skipif(INSTALLED, reason="wandb is installed here")
needs = pytest.mark.skipif(
    not INSTALLED, reason="wandb is not installed: pip install 'prompttransfer[wandb]'"
)


@without
def test_without_the_package_it_is_one_line() -> None:
    with pytest.raises(UserError, match=r"pip install 'prompttransfer\[wandb\]'"):
        check_logger("wandb")


@needs
def test_a_run_is_kept_offline_with_every_point_of_its_curve(tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    jobs = [Job(label_task(), splits(), 0, name="toy")]
    for plan in (recipe(), recipe(steps=4)):  # two runs in one process do not run into each other
        options = TrainingOptions(tmp_path, loggers=lambda run: open_logs("wandb", tmp_path, ["toy"], run))
        (run,) = train_adaptations(tiny("roberta"), jobs, plan, options=options)
        assert run.ended == "steps"
    import wandb

    wandb.teardown()  # waits until all is written
    kept = sorted(tmp_path.glob("logs/version_*/wandb/offline-run-*/run-*.wandb"))
    assert len(kept) == 2 and all(path.stat().st_size > 0 for path in kept)
    assert len({path.name for path in kept}) == 2
    assert all(b"prompt0/validation" in path.read_bytes() for path in kept)
