"""The processes and devices of a run, through accelerate.

One process on a CPU or a GPU, or several that `accelerate launch` has started: each computes
its part of every batch, and the gradients are averaged.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor, nn

from emoser.errors import DeviceError, missing_extra

DEVICES = ("auto", "cpu", "cuda")


def join_processes(device: "str | ProcessGroup") -> "ProcessGroup":
    """The processes of a device, or those that the caller has started."""
    return device if isinstance(device, ProcessGroup) else ProcessGroup(device)


class ProcessGroup:
    """The processes that share a run, and the device of this one."""

    def __init__(self, device: str = "auto") -> None:
        """Join the group on "auto" (a GPU if there is one), "cpu" or "cuda".

        Raises:
            ValueError: If the device is none of these.
            DeviceError: If the device is "cuda" and there is no GPU.
            DependencyError: If accelerate is not installed.
        """
        if device not in DEVICES:
            raise ValueError(f"device is {device!r}, allowed are {', '.join(DEVICES)}")
        if device == "cuda" and not torch.cuda.is_available():
            raise DeviceError("device is 'cuda' and torch sees no GPU; pass device='cpu'")
        try:
            from accelerate import Accelerator, DistributedDataParallelKwargs
        except ImportError as error:
            raise missing_extra("training", "finetune") from error
        # layer drop skips different layers in every process
        handler = DistributedDataParallelKwargs(find_unused_parameters=True)
        self._accelerator: Any = Accelerator(cpu=device == "cpu", kwargs_handlers=[handler])

    @property
    def rank(self) -> int:
        """Index of this process, from 0."""
        return int(self._accelerator.process_index)

    @property
    def count(self) -> int:
        """Number of processes."""
        return int(self._accelerator.num_processes)

    @property
    def first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """The device that this process computes on."""
        return cast("torch.device", self._accelerator.device)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module on this device; with several processes its gradients are averaged."""
        return cast("nn.Module", self._accelerator.prepare_model(module))

    def without_exchange(self, module: nn.Module) -> AbstractContextManager[Any]:
        """A block in which gradients are not averaged yet."""
        return cast("AbstractContextManager[Any]", self._accelerator.no_sync(module))

    def first_alone(self) -> AbstractContextManager[Any]:
        """A block that the first process runs before all others."""
        return cast("AbstractContextManager[Any]", self._accelerator.main_process_first())

    def add(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        return cast("Tensor", self._accelerator.reduce(values, reduction="sum"))

    def gather(self, items: list[Any]) -> list[Any]:
        """The items of all processes, those of the first one first."""
        from accelerate.utils import gather_object

        return cast("list[Any]", gather_object(items))

    def write(self, action: Callable[[], object]) -> None:
        """Run an action in the first process while the others wait."""
        if self.first:
            action()
        self._accelerator.wait_for_everyone()
