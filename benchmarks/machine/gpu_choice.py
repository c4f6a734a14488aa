"""Which of the machine's GPUs CUDA calls device 0. NVML and nvidia-smi count all of them, in the order of the bus.

Source: environment variables in CUDA's programming guide. `CUDA_VISIBLE_DEVICES` names indices or UUIDs (beginnings of them),
and the list ends at the first that is none. CUDA counts the fastest GPU first, unless `CUDA_DEVICE_ORDER` is PCI_BUS_ID.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
UUID = re.compile(r"\b(?:GPU|MIG)-[0-9A-Za-z][0-9A-Za-z/-]*")


class NoGpu(Exception):
    """There is no GPU to read, or no way to read it. The message is the reason."""


@dataclass(frozen=True)
class Listed:
    """A GPU of the machine, by its place on the bus."""

    index: int
    uuid: str
    name: str


def choose(listed: Sequence[Listed], device: int, variables: Mapping[str, str]) -> tuple[Listed, bool]:
    """CUDA's device number `device`, and whether that is sure: among different GPUs, CUDA counts the fastest first, and only
    CUDA knows which that is.

    Raises NoGpu where there is none.
    """
    if not listed:
        raise NoGpu("the driver shows no GPU")
    value = variables.get(VISIBLE)
    chosen = list(listed) if value is None else _visible(value, listed)
    if device >= len(chosen):
        hidden = f" ({VISIBLE}={anonymous(value)!r})" if value is not None else ""
        raise NoGpu(f"CUDA has {len(chosen)} of {len(listed)} GPUs{hidden}, so none is device {device}")
    counted = value is None or value.split(",")[device].strip().isdigit()
    alike = len({gpu.name for gpu in listed}) == 1 or variables.get(ORDER) == "PCI_BUS_ID"
    return chosen[device], alike or not counted


def _visible(value: str, listed: Sequence[Listed]) -> list[Listed]:
    """The GPUs that a value of CUDA_VISIBLE_DEVICES shows, in its order."""
    shown: list[Listed] = []
    for entry in map(str.strip, value.split(",")):
        uuid = entry.removeprefix("MIG-").partition("/")[0]  # MIG-GPU-<the GPU's UUID>/1/0
        if entry.isdigit():
            matching = [gpu for gpu in listed if gpu.index == int(entry)]
        elif uuid.startswith("GPU-"):
            matching = [gpu for gpu in listed if gpu.uuid.startswith(uuid)]
        else:  # an instance's own UUID does not tell its GPU, unless there is only one
            matching = list(listed) if entry.startswith("MIG-") else []
        if len(matching) != 1:
            break
        shown += matching
    return shown


def short_hash(uuid: str) -> str:
    """Enough of a hash to tell whether two results come from one GPU, without publishing its UUID."""
    return hashlib.sha256(uuid.encode()).hexdigest()[:12]


def anonymous(value: str) -> str:
    """`value` with every UUID of a GPU replaced by its short hash."""
    return UUID.sub(lambda match: f"{match[0][:3]}-#{short_hash(match[0])}", value)
