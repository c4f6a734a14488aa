"""How engines are built: batch range, effort, memory, portability."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from slimexport.target.errors import BundleError

MAX_LEVEL = 5


@dataclass(frozen=True)
class BatchRange:
    """The images per call that an engine takes, and those that it is tuned for. BundleError for an impossible range.

    >>> from slimexport import BatchRange
    >>> str(BatchRange(min=1, opt=8, max=32))
    '1:8:32'
    """

    min: int = 1
    opt: int = 8
    max: int = 32

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            raise BundleError(f"batch {self}: expected 1 <= MIN <= OPT <= MAX, as in 1:8:32.")

    def __str__(self) -> str:
        return f"{self.min}:{self.opt}:{self.max}"

    def sizes(self) -> tuple[int, ...]:
        """Each of the three once, ascending."""
        return tuple(sorted({self.min, self.opt, self.max}))


def parse_batch(text: str) -> BatchRange:
    """`MIN:OPT:MAX`, or one number for all three. BundleError otherwise."""
    try:
        numbers = [int(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3:
        raise BundleError(f"batch {text!r}: expected MIN:OPT:MAX in images, as in 1:8:32, or one number.")
    return BatchRange(*numbers)


def parse_targets(text: str) -> tuple[str, ...]:
    """`8.6,12.0`, or as `86`, `sm_86`: compute capabilities, each once, ascending. BundleError otherwise."""
    numbers = set()
    for part in text.split(","):
        match = re.fullmatch(r"(?:sm_?|compute_)?(\d+)\.?(\d)", part.strip().lower())
        if match is None:
            raise BundleError(f"target {part.strip()!r}: expected a GPU's compute capability, as in 8.6,8.9,12.0.")
        numbers.add((int(match[1]), int(match[2])))
    return tuple(f"{major}.{minor}" for major, minor in sorted(numbers))


@dataclass(frozen=True)
class BuildSettings:
    """`workspace_bytes` limits a tactic's scratch memory (None: the device's memory), `aux_streams` the streams beside
    the caller's (None: TensorRT decides). `version_compatible` engines run on later versions, `hardware_compatible` ones
    on every GPU from Ampere on; both are slower. `library_tactics` lets TensorRT 8 and 10 use cuBLAS and cuDNN, which
    then have to be on the target; 11 does without. `targets` are the compute capabilities that a TensorRT-RTX engine is for,
    as `8.6` (none: all from 8.0 on); TensorRT builds for the GPU of its machine.

    >>> from slimexport import BatchRange, BuildSettings
    >>> BuildSettings(batch=BatchRange(1, 1, 1), optimization_level=5).batch  # build_engines(bundle, settings=...)
    BatchRange(min=1, opt=1, max=1)
    """

    batch: BatchRange = field(default_factory=BatchRange)
    workspace_bytes: int | None = None
    optimization_level: int = 3
    aux_streams: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    library_tactics: bool = False
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.optimization_level <= MAX_LEVEL:
            raise BundleError(f"optimization level {self.optimization_level}: expected 0 (fast build) to {MAX_LEVEL}.")
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            raise BundleError(f"workspace {self.workspace_bytes}: expected a positive number of bytes.")
        if self.aux_streams is not None and self.aux_streams < 0:
            raise BundleError(f"auxiliary streams {self.aux_streams}: expected 0 or more.")

    def as_dict(self) -> dict[str, Any]:
        """For the manifest; `batch` as (min, opt, max)."""
        return {**asdict(self), "batch": (self.batch.min, self.batch.opt, self.batch.max)}
