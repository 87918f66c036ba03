"""Processes: one for each device, all running the same program on shares of the same rows.

They are started on this machine by `run_on` (distributed/launching.py), or by torchrun, SLURM and the other launchers that
Lightning knows; `join` makes them one group through Lightning Fabric. Only the first process prints and writes.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from prompttransfer.distributed.fsdp import shard
from prompttransfer.distributed.placement import SINGLE, Placement
from tasks.errors import MachineError, UserError, unknown

Value = TypeVar("Value")
LAUNCHERS = ("TORCHELASTIC_", "SLURM_", "LSB_", "JSM_", "OMPI_", "PMI_", "PMIX_")
"""How the environment variables of launchers begin."""


@dataclass(frozen=True, eq=False)
class Processes:
    """The processes that work together, and which of them this one is; one alone where nothing else is said."""

    placement: Placement = SINGLE
    rank: int = 0
    fabric: Any = None
    """Lightning's, which made the group; None where this process is alone."""

    @property
    def count(self) -> int:
        """Number of processes."""
        return self.placement.count

    @property
    def first(self) -> bool:
        """Whether this is the one that prints and writes."""
        return self.rank == 0

    def share(self, items: Sequence[Value]) -> list[Value]:
        """Every `count`-th item, so that items in order of length are shared out evenly; may be empty."""
        return list(items[self.rank :: self.count])

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of the tensors of all processes, the same in each; `tensor` itself is overwritten."""
        if self.count > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def gather(self, value: Value) -> list[Value]:
        """The values of all processes in order of rank, the same list in each."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(found, value)
        return found

    def agree(self, value: object, what: str) -> None:
        """Raise a MachineError, in every process, if `value` is not the same in all."""
        found = self.gather(value)
        other = next((rank for rank, own in enumerate(found) if own != found[0]), None)
        if other is not None:
            raise MachineError(f"process {other + 1} of {self.count} {what}")


ALONE = Processes()


def choose_device(device: str) -> torch.device:
    """`auto` is the first GPU where there is one, else the CPU; UserError for what is no device of this machine."""
    chosen = _named_device(device)
    count = DEVICES[chosen.type]()
    if not count:
        raise UserError(
            f"--device {device}: torch sees no {chosen.type} device here; give --device auto or cpu"
        )
    if chosen.index is not None and not 0 <= chosen.index < count:
        raise UserError(f"--device {device}: torch sees {count} {chosen.type} devices here, numbered from 0")
    return chosen


def _named_device(device: str) -> torch.device:
    """The device of that name, whether it is there or not."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        named = torch.device(device)
    except RuntimeError:
        raise unknown("device", device, ("auto", *DEVICES)) from None
    if named.type not in DEVICES:
        raise unknown("device", device, ("auto", *DEVICES))
    return named


DEVICES: dict[str, Callable[[], int]] = {
    "cpu": lambda: 1,
    "cuda": lambda: torch.cuda.device_count(),
    "mps": lambda: int(torch.backends.mps.is_available()),
}
"""Kind of device -> how many of it torch sees here."""


def check_devices(placement: Placement, device: str) -> None:
    """Raise a UserError where this machine has not as many devices of the kind that is asked for."""
    if not placement.several:
        return
    chosen = _named_device(device)
    if chosen.type not in ("cpu", "cuda") or chosen.index is not None:
        raise UserError(
            f"--device {device} with {placement.count} processes: they run on CPUs or on GPUs from the first on, so give "
            f"--device cpu or --device cuda"
        )
    if chosen.type == "cuda" and placement.devices > torch.cuda.device_count():
        raise UserError(
            f"--devices {placement.devices}: torch sees {torch.cuda.device_count()} GPUs here; ask for at most as many, or "
            f"use --device cpu"
        )


def started(placement: Placement) -> bool:
    """Whether the processes of `placement` run already; UserError where others than those were started."""
    launcher = cluster()
    if launcher is None:
        return False
    count = launcher.world_size()
    if count != placement.count or not _laid_out(launcher, placement):
        raise UserError(
            f"{count} processes were started from outside, by torchrun, srun or the like, but --devices "
            f"{placement.devices} on {placement.nodes} machines are {placement.count}: give --devices (processes on each "
            f"machine) and --nodes (machines) as they were started"
        )
    return True


def cluster() -> Any:
    """Lightning's view of the launcher that started this process as one of several; None where none did.

    Whether srun did is read off its own variables: Lightning goes by those of the allocation, which a command in a batch
    script has too, and by the job's name, which is `interactive` inside salloc for what srun starts as well.
    """
    if not any(name.startswith(LAUNCHERS) for name in os.environ):
        return None  # said without importing Lightning, which takes seconds
    from lightning.fabric.plugins import environments as known

    with quiet_lightning():
        if known.TorchElasticEnvironment.detect():  # also inside a job of SLURM
            return known.TorchElasticEnvironment()
        if of_srun():
            return _slurm(known.SLURMEnvironment)
        others = (known.LSFEnvironment, known.MPIEnvironment)
        return next((kind() for kind in others if kind.detect()), None)


def of_srun() -> bool:
    """Whether srun started several processes of this step; an allocation of several tasks alone has started none."""
    return whole_number("SLURM_STEP_NUM_TASKS") > 1 and "SLURM_PROCID" in os.environ


def _slurm(kind: type[Any]) -> Any:
    try:
        return kind(auto_requeue=False)  # the batch script asks for that; a signal stops the command
    except RuntimeError:
        raise UserError(
            f"srun started {os.environ.get('SLURM_NTASKS')} processes without saying how many on each machine: give srun "
            f"--ntasks-per-node, and the same number to --devices"
        ) from None


def _laid_out(launcher: Any, placement: Placement) -> bool:
    """Whether the processes lie on as many machines as the placement says, where the launcher says it."""
    try:
        launcher.validate_settings(placement.devices, placement.nodes)
    except ValueError:
        return False
    return True


def whole_number(variable: str) -> int:
    """The value of an environment variable that counts processes; 1 where it is not set or no number."""
    text = os.environ.get(variable, "1")
    return int(text) if text.isdecimal() else 1


@lru_cache(maxsize=4)
def join(placement: Placement, kind: str) -> Processes:
    """Make this process one of its group, on the `kind` of device ("cpu" or "cuda") that is its own.

    Raises UserError in a process that nobody started as one of several.
    """
    if not placement.several:
        return ALONE
    if not started(placement):
        raise UserError(
            f"a backbone on {placement.count} devices is loaded in {placement.count} processes: give the function that "
            f"loads it to run_on(placement, function)"
        )
    from lightning.fabric import Fabric
    from lightning.fabric.strategies import DDPStrategy, ModelParallelStrategy

    strategy: Any = DDPStrategy()
    if placement.shards:
        strategy = ModelParallelStrategy(shard, data_parallel_size=placement.count, tensor_parallel_size=1)
    with quiet_lightning():
        fabric = Fabric(
            accelerator=kind,
            devices=placement.devices,
            num_nodes=placement.nodes,
            strategy=strategy,
            plugins=[cluster()],
        )
        fabric.launch()
    return Processes(placement, fabric.global_rank, fabric)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's tips out of the output; what matters is said by our own progress."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
