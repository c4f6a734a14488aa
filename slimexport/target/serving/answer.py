"""What a runtime gives: an answer to a request, and what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from slimexport.target.arrays import Array
from slimexport.target.runners import Given
from slimexport.target.tensors import BATCH, Result


@dataclass(slots=True)  # to make a frozen one takes twice as long
class Answer:
    """What the network gives of one request: logits [classes] of one image [C, H, W], [N, classes] of N; of a network with
    several outputs a dictionary by name. `width` computed it, as the manifest says (a width, or an AutoSlim switch's number;
    `name` where a plan has neither), in a run of `batch` images. `late`: it was served after its deadline."""

    output: Given
    width: float | None
    name: str
    batch: int
    queued_ms: float
    computed_ms: float
    late: bool = False


@dataclass(frozen=True)
class WidthInfo:
    """An open width: its `label`, the `width` of the manifest (or an AutoSlim switch's number, or None), its file's `name`,
    and its accuracy where the manifest knows one."""

    label: str
    width: float | None
    name: str
    accuracy: float | None


@dataclass(frozen=True)
class WidthState:
    """An open width: its label in policies and metrics (`0.5`), its accuracy where the manifest knows one, how many requests
    it answered, and why it is out, or nothing."""

    label: str
    accuracy: float | None
    answered: int
    out: str = ""


@dataclass(frozen=True)
class Snapshot:
    """Counts of requests since a runtime began, and what is now. All that were `submitted` are answered, failed, refused (by
    reason: late, full, closed), cancelled, or still there. `in_time` of the answered met their deadline; `waiting` are
    images."""

    submitted: int
    answered: int
    in_time: int
    failed: int
    refused: Mapping[str, int]
    waiting: int
    widths: tuple[WidthState, ...]
    cancelled: int = 0
    stale: bool = False  # the bundle on disk is no longer what is served
    latencies_ms: Mapping[str, Mapping[int, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """What became of one request: when it ended, on the runtime's clock; which width served it, with how many other images;
    what it took from its submission to its end, and how long before its deadline that was (below 0: after it). `outcome` is
    `answered`, `late` (refused) or `failed`."""

    number: int
    at_s: float
    width: str
    images: int
    batch: int
    queued_ms: float
    computed_ms: float
    latency_ms: float
    slack_ms: float
    outcome: str


def parts(given: Given, results: Sequence[Result], sizes: Sequence[tuple[int, bool]]) -> list[Given]:
    """What a run gives, cut into what belongs to its requests, of so many images; of a single one (True) without the batch.
    ValueError unless it gives all `results`, of the shapes that the manifest says."""
    if len(results) == len(sizes) == 1 and not isinstance(given, dict) and results[0].shape[0] == BATCH:
        size, single = sizes[0]
        if given.shape == (size, *results[0].own_shape):
            return [given[0] if single else given]  # as mostly
    outputs: dict[str, Array] = given if isinstance(given, dict) else {results[0].name: given}
    images = sum(size for size, _ in sizes)
    if outputs.keys() != {result.name for result in results}:
        raise ValueError(f"it gave {', '.join(map(str, outputs))}, expected {', '.join(result.name for result in results)}")
    for result in results:
        expected = (images * result.rows, *result.own_shape)
        if outputs[result.name].shape != expected:
            raise ValueError(f"{result.name} is of {list(outputs[result.name].shape)}, expected {list(expected)}")
    own, start = [], 0
    for size, single in sizes:
        share = {
            result.name: outputs[result.name][start]
            if single and result.rows == 1
            else outputs[result.name][start * result.rows : (start + size) * result.rows]
            for result in results
        }
        own.append(share if len(results) > 1 else share[results[0].name])
        start += size
    return own
