"""The processes of a run: one, or as many as `torchrun` started. NCCL between GPUs, gloo between CPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from slimtrain.base.errors import ResourceError, UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among `world`, and the device it computes on."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def describe(self) -> str:
        """The device, as a person names it."""
        if self.device.type == "cuda":
            return f"{self.world} x {torch.cuda.get_device_name(self.device)}"
        return f"the CPU ({torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)})"

    def sum(self, tensor: Tensor) -> Tensor:
        """`tensor`, changed in place to its sum over all processes."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def least(self, value: int) -> int:
        """The least of all processes' values."""
        if self.world > 1:
            values = torch.tensor(value, device=self.device)
            dist.all_reduce(values, dist.ReduceOp.MIN)
            return int(values)
        return value

    def gathered(self, value: T) -> list[T]:
        """Every process's plain value, by rank."""
        values = [value] * self.world
        if self.world > 1:
            dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def processes(device: str) -> Iterator[Processes]:
    """Join the run that `torchrun` set up, if it did. `device` is auto, cpu or cuda.

    ResourceError where CUDA is asked for and absent.
    """
    world = _environment("WORLD_SIZE", 1)
    local = _environment("LOCAL_RANK", 0)
    chosen = choose_device(device, local)
    if world == 1:
        yield Processes(0, 1, chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), world, chosen)
    finally:
        dist.destroy_process_group()


def choose_device(device: str, local_rank: int = 0) -> torch.device:
    """`auto`: CUDA where it is there. ResourceError where it is asked for and absent, or has too few devices."""
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        lack = "a torch that was built without CUDA" if torch.version.cuda is None else "no usable GPU or driver"
        raise ResourceError(f"device cuda: {lack} here (torch {torch.__version__}). Check nvidia-smi, or set device=cpu.")
    if local_rank >= torch.cuda.device_count():
        raise ResourceError(
            f"process {local_rank} of this machine has no GPU of its own: {torch.cuda.device_count()} are here. Lower "
            "--nproc-per-node."
        )
    return torch.device("cuda", local_rank)


def _environment(key: str, default: int) -> int:
    text = os.environ.get(key, "")
    try:
        return int(text) if text else default
    except ValueError as error:
        raise UserError(f"{key}={text!r} in the environment: expected a number, as torchrun sets it.") from error
