"""Placement: on how many devices a backbone runs, and how they share the work.

    ddp     every device holds the whole backbone and takes a share of the rows
    fsdp    every device also holds only a share of the backbone's weights: for a model too large for one device
    auto    ddp where there are several devices

One process runs for each device (distributed/processes.py). A prompt does not know on how many devices it was trained.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.errors import UserError, unknown

STRATEGIES = ("auto", "ddp", "fsdp")


@dataclass(frozen=True)
class Placement:
    """How many devices share the work, and how."""

    devices: int = 1
    """On each machine."""
    strategy: str = "auto"
    nodes: int = 1
    """Machines."""

    def __post_init__(self) -> None:
        for name, value in (("devices", self.devices), ("nodes", self.nodes)):
            if value < 1:
                raise UserError(f"--{name} {value}: give a number from 1 on")
        if self.strategy not in STRATEGIES:
            raise unknown("strategy", self.strategy, STRATEGIES)
        if self.shards and not self.several:
            raise UserError(
                "--strategy fsdp shares the weights out among devices and needs at least 2: give --devices 2, or leave "
                "--strategy out"
            )

    @property
    def count(self) -> int:
        """Devices in all, one process each."""
        return self.devices * self.nodes

    @property
    def several(self) -> bool:
        """Whether more than one device takes part."""
        return self.count > 1

    @property
    def shards(self) -> bool:
        """Whether the weights are shared out as well."""
        return self.strategy == "fsdp"

    def __str__(self) -> str:
        strategy = "ddp" if self.strategy == "auto" else self.strategy
        return f"{self.count} processes, {strategy}" if self.several else "1 process"


SINGLE = Placement()
"""One device, on which nothing is shared."""
