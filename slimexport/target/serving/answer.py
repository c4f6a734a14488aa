"""What a runtime gives: an answer to a request, and what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from slimexport.target.runners import Given


@dataclass(frozen=True)
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
class WidthState:
    """An open width: its label in policies and metrics (`0.5`), its accuracy where the manifest knows one, how many requests it
    answered, and why it is out, or nothing."""

    label: str
    accuracy: float | None
    answered: int
    out: str = ""


@dataclass(frozen=True)
class Snapshot:
    """Counts since a runtime began, and what is now. `refused` is by reason: late, full, closed. `in_time` of the answered met
    their deadline."""

    submitted: int
    answered: int
    in_time: int
    failed: int
    refused: Mapping[str, int]
    waiting: int
    widths: tuple[WidthState, ...]
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
