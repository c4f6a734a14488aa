"""What is measured and what comes out of it, in plain values: cells, rounds of raw samples, results.

A *cell* is one network (a file of a bundle, or the slimmable network at its width) on one backend at one batch. A *round* is
iterations of one cell, in one turn or two; a cell has several rounds, with other cells' between them. A cell that
could not be measured is a result too, with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from slimtrain.base.errors import UserError
from slimtrain.base.image_size import ImageSize, as_image_size, sides
from slimtrain.models.spec import IMAGE_CHANNELS

if TYPE_CHECKING:  # numpy takes longer to load than the help text, which names the backends, to print
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"

MEASURED, INTERRUPTED, NOT_MEASURED = "measured", "interrupted", "not measured"


@dataclass(frozen=True)
class Cell:
    """One thing to measure.

    `bundle`: the bundle's folder, by name. `name` and `plan` as in the manifest (`us_mobilenet_v1_x0_5`, `x0_5`); `width` is
    the width, an AutoSlim switch's number, or None; `label` is how tables name it (`0.5x`, `s1`). `file`: the artifact's file;
    for torch backends the fp32 ONNX file whose network they run. `macs`, `activations` (elements that its convolutions and
    linear layers write) and `layers` (how many of them) are per image; the latter two are None for bundles that do not tell.
    `channels` are the images'; `shape` is that of an input that is no image. `accuracy`: {"top1", "images", "data"} or None.
    """

    bundle: str
    network: str
    name: str
    plan: str
    width: float | int | None
    label: str
    file: str
    backend: str
    precision: str
    batch: int
    image_size: ImageSize
    macs: int
    params: int
    size_bytes: int
    activations: int | None = None
    layers: int | None = None
    accuracy: Mapping[str, Any] | None = None
    channels: int = IMAGE_CHANNELS
    shape: tuple[int, ...] | None = None

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Of one image: channels, height, width; of another input its shape."""
        return (self.channels, *sides(self.image_size)) if self.shape is None else self.shape

    @property
    def group(self) -> tuple[str, str, str, int]:
        """What a table shows together: bundle, backend, precision, batch."""
        return self.bundle, self.backend, self.precision, self.batch


@dataclass(frozen=True)
class Timing:
    """One iteration, in seconds. `wall`: from the call until the result is there, by the host's clock. On GPUs also `device`,
    by events around the network's work; `enqueue`, the host's time to queue it; and, where transfers are measured,
    `upload` and `download` by events."""

    wall: float
    device: float | None = None
    enqueue: float | None = None
    upload: float | None = None
    download: float | None = None


KINDS = ("wall", "device", "enqueue", "upload", "download")


@dataclass(frozen=True)
class Round:
    """A round's raw samples in milliseconds, by kind (`wall`, and on GPUs `device`, ...), in the order they were taken;
    `state`: the clocks, power, temperature and load seen during it, where they can be read."""

    samples_ms: Mapping[str, Sequence[float]]
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What came out for a cell. `settings` are the runner's: device, threads, CUDA graph or not, transfers or not.

    `status` is MEASURED, INTERRUPTED (some rounds are missing) or NOT_MEASURED, with `reason` and the `exit_code` that it
    stands for: 1 a wrong output, 2 bad input, 3 something that the machine lacks.
    """

    cell: Cell
    status: str
    reason: str = ""
    rounds: tuple[Round, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    exit_code: int = 0

    @property
    def latency_kind(self) -> str:
        """What `latency_ms` is: `device` where events measured it, else `wall`."""
        return "device" if self.rounds and "device" in self.rounds[0].samples_ms else "wall"

    @property
    def latency_ms(self) -> list[list[float]]:
        """The samples that stand for the network's latency, round by round."""
        return [list(round_.samples_ms[self.latency_kind]) for round_ in self.rounds]

    def as_dict(self) -> dict[str, Any]:
        """For one line of results.jsonl. The channels of color images are left out, as they were before there were others."""
        content = asdict(self)
        if self.cell.channels == IMAGE_CHANNELS:
            del content["cell"]["channels"]
        if self.cell.shape is None:
            del content["cell"]["shape"]
        return content

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> Result:
        """The inverse of `as_dict`. Raises KeyError, TypeError or ValueError for something else."""
        rounds = tuple(Round(**entry) for entry in content["rounds"])
        values = {key: content[key] for key in ("status", "reason", "settings")}
        more = {"warnings": tuple(content["warnings"]), "exit_code": content.get("exit_code", 0)}
        cell = {**content["cell"], "image_size": as_image_size(content["cell"]["image_size"])}
        if "shape" in cell:
            cell["shape"] = tuple(cell["shape"])
        return Result(cell=Cell(**cell), rounds=rounds, **more, **values)


class NotMeasured(UserError):
    """Why a cell has no figure; the rest goes on. `exit_code` 3 where nothing else could be measured either."""

    exit_code = 3


class OutOfMemory(NotMeasured):
    """The device or the host has too little memory for the cell."""


class WrongOutput(NotMeasured):
    """The backend computes something else than the bundle's reference: its speed would be meaningless."""

    exit_code = 1


@dataclass(frozen=True)
class Options:
    """How runners run. `threads`: of a CPU backend. `cuda_graph`: for TensorRT. `transfers`: copies to and from the GPU are
    measured too. `device`: where torch runs, `cpu` or `cuda`. `checkpoint`: the slimmable network's file."""

    threads: int = 1
    cuda_graph: bool = True
    transfers: bool = False
    device: str = "cpu"
    checkpoint: Path | None = None


class CellRunner(Protocol):
    """A cell's network, loaded, with its inputs where the backend reads them; for a `with` block.

    `settings` says how it runs. `run(index)` does one iteration on buffer `index` (modulo their number) and waits for its
    end. `logits(images)` runs the same path on `images`, float32 [batch, C, H, W], and gives float logits [batch, classes],
    or whatever the network gives: several outputs by name.
    """

    settings: Mapping[str, Any]

    def run(self, index: int) -> Timing: ...

    def logits(self, images: Array) -> Any: ...

    def close(self) -> None: ...


class Inputs(Protocol):
    """Random images: `buffers(batch, cache_bytes)` are float32 arrays [batch, C, H, W], at least two and together larger
    than twice `cache_bytes`, so that no cache holds them all; never zeros. `buffers` may share memory, none is written to."""

    def buffers(self, batch: int, cache_bytes: int) -> list[Array]: ...


class Opener(Protocol):
    """Loads a cell's runner. Raises NotMeasured with the reason where it cannot be."""

    def __call__(self, cell: Cell, folder: Path, inputs: Inputs, options: Options) -> CellRunner: ...


def milliseconds(timings: Sequence[Timing]) -> dict[str, list[float]]:
    """Samples by kind, in milliseconds, of the kinds that the first timing has."""
    kinds = [kind for kind in KINDS if getattr(timings[0], kind) is not None] if timings else []
    return {kind: [round(1e3 * getattr(timing, kind), 6) for timing in timings] for kind in kinds}


def median(samples: Sequence[float]) -> float:
    """The median of samples."""
    import numpy as np

    return float(np.median(np.asarray(samples, np.float64)))


def ceiling_key(cell: Cell) -> str:
    """Under which name a run keeps the ceilings for a cell."""
    return f"{cell.backend} {cell.precision}"
