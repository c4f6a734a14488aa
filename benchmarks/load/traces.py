"""When requests are sent: seconds from the beginning, ascending. Drawn from a seed, or read from a file.

Rates are requests per second, over the whole of a trace on the average:

* `steady`: evenly spaced.
* `poisson`: a Poisson process, the independent decisions of many users.
* `bursty`: a third of the rate is a Poisson process; two thirds are a renewal process whose intervals are gamma distributed
  with mean 1 / (2/3 rate) and squared coefficient of variation CV2 (variance over squared mean; 1 would be Poisson again). It
  is stationary: its first interval is what is left of one that began before the trace, so that the mean rate is the asked one
  from the beginning.
* `step`: a Poisson process of half the rate in the first and the last third of the time, of twice the rate between.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells.cell import Array
from slimtrain.base.errors import UserError, nearest
from slimtrain.base.untrusted.opening import read_text
from slimtrain.base.untrusted.quoting import quoted, reason

STEADY, POISSON, BURSTY, STEP = KINDS = ("steady", "poisson", "bursty", "step")
FILE = "file"
BASE_SHARE = 1 / 3  # of a bursty trace's rate that is Poisson
LOW, HIGH = 0.5, 2.0  # of the rate, outside and within a step
CV2 = 4.0
MOST_REQUESTS = 2_000_000
MOST_SECONDS = 86_400.0
MOST_BYTES = 64 << 20
MOST_CV2 = 1e4


@dataclass(frozen=True)
class Trace:
    """`times_s` float64 [N], ascending, within `seconds`. `settings`: what it was drawn with, or the file that it is from."""

    kind: str
    times_s: Array
    seconds: float
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.times_s)

    @property
    def rate(self) -> float:
        """Requests per second, on the average, as it was drawn."""
        return len(self.times_s) / self.seconds

    def as_dict(self) -> dict[str, Any]:
        """All but the times."""
        return {"kind": self.kind, "seconds": self.seconds, "requests": len(self), "rate": self.rate, **self.settings}


def draw(kind: str, rate: float, seconds: float, seed: int = 0, cv2: float = CV2) -> Trace:
    """A trace of one of KINDS. UserError for another kind, and for numbers that no trace has."""
    if kind not in KINDS:
        raise UserError(f"trace {kind!r}: not known{nearest(kind, KINDS)}. Available: {', '.join(KINDS)}, or a file of times.")
    check_span(seconds)
    if not 0 < rate * seconds <= MOST_REQUESTS:
        raise UserError(
            f"a trace of {rate:g} requests per second over {seconds:g} s: expected 1 to {MOST_REQUESTS:,} requests. Choose "
            "another load, or another time."
        )
    if not 0 < cv2 <= MOST_CV2:
        raise UserError(f"--cv2 {cv2:g}: expected a number above 0, at most {MOST_CV2:g}, as in 4.")
    draw_numbers = np.random.default_rng(seed)
    processes: dict[str, Callable[[], Array]] = {
        STEADY: lambda: (np.arange(math.floor(rate * seconds)) + 0.5) / rate,
        POISSON: lambda: poisson(rate, seconds, draw_numbers),
        BURSTY: lambda: bursty(rate, seconds, cv2, draw_numbers),
        STEP: lambda: _step(rate, seconds, draw_numbers),
    }
    settings = {"seed": seed, "asked_rate": rate, **({"cv2": cv2} if kind == BURSTY else {})}
    times = processes[kind]()
    if not len(times):
        raise UserError(f"a trace of {rate:g} requests per second over {seconds:g} s has no request. Choose a longer time.")
    return Trace(kind, times, seconds, settings)


def check_span(seconds: float) -> None:
    """UserError for a time that no trace takes."""
    if not 0 < seconds <= MOST_SECONDS:
        raise UserError(f"--seconds {seconds:g}: expected a time above 0, at most a day, as in 30.")


def poisson(rate: float, seconds: float, draw_numbers: np.random.Generator) -> Array:
    """Times of a Poisson process: their number is Poisson distributed, and they are uniform."""
    return np.sort(draw_numbers.uniform(0, seconds, draw_numbers.poisson(rate * seconds)))


def renewals(rate: float, seconds: float, cv2: float, draw_numbers: np.random.Generator) -> Array:
    """Times of a stationary renewal process with gamma intervals of mean 1 / rate and a squared coefficient of variation."""
    shape, scale = 1 / cv2, cv2 / rate
    # The interval that holds the beginning is drawn by its length, which is a gamma of a shape one larger; it began anywhere
    # in it (equilibrium distribution: Cox, Renewal Theory, 1962, 5.2).
    first = draw_numbers.gamma(shape + 1, scale) * draw_numbers.uniform()
    times = [np.array([first])]
    while times[-1][-1] < seconds:
        intervals = draw_numbers.gamma(shape, scale, max(16, math.ceil(0.2 * rate * seconds)))
        times.append(times[-1][-1] + np.cumsum(intervals))
    whole = np.concatenate(times)
    return whole[whole < seconds]


def bursty(rate: float, seconds: float, cv2: float, draw_numbers: np.random.Generator) -> Array:
    """A Poisson process and bursts, as the module says."""
    base = poisson(BASE_SHARE * rate, seconds, draw_numbers)
    return np.sort(np.concatenate([base, renewals((1 - BASE_SHARE) * rate, seconds, cv2, draw_numbers)]))


def _step(rate: float, seconds: float, draw_numbers: np.random.Generator) -> Array:
    third = seconds / 3
    parts = [number * third + poisson(share * rate, third, draw_numbers) for number, share in enumerate((LOW, HIGH, LOW))]
    return np.concatenate(parts)


def read_trace(path: Path, seconds: float | None = None, rate: float | None = None) -> Trace:
    """The times in a file, a number of seconds a line, ascending; they count from the first. With `rate` they are stretched to
    so many a second on the average; `seconds` cuts off what comes later. UserError for anything else."""
    try:
        text = read_text(path, MOST_BYTES)
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: not there. Give one of {', '.join(KINDS)}, or a file with a time in seconds a line."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({reason(error)}). Give a file with a time in seconds a line.") from error
    times: list[float] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        times.append(_time(path, number, line, times[-1] if times else -math.inf))
        if len(times) > MOST_REQUESTS:
            raise UserError(f"{path}: has more than {MOST_REQUESTS:,} times. Give a part of it.")
    if len(times) < 2 or times[-1] == times[0]:
        raise UserError(f"{path}: has {len(times)} times, expected two different ones or more, a line each.")
    whole = np.array(times) - times[0]
    # what comes after the last is taken to be an interval like the others, so that a rate has its meaning
    span = whole[-1] * len(whole) / (len(whole) - 1)
    if rate is not None:
        if not 0 < rate < math.inf:
            raise UserError(f"a rate of {rate:g} requests per second: expected a number above 0.")
        stretched = len(whole) / rate / span
        whole, span = whole * stretched, span * stretched
    if seconds is not None:
        check_span(seconds)
        whole, span = whole[whole < seconds], min(span, seconds)
    if span > MOST_SECONDS:
        raise UserError(f"{path}: is of {span:,.0f} s, expected at most a day. Cut it with --seconds.")
    return Trace(FILE, whole, float(span), {"file": path.name, "asked_rate": rate})


def _time(path: Path, number: int, line: str, before: float) -> float:
    try:
        value = float(line) if len(line) < 64 else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{path}, line {number}: {quoted(line.strip())} is no time. Expected a number of seconds a line.")
    if value < before:
        raise UserError(f"{path}, line {number}: {value:g} is before the {before:g} of the line above it. Sort the times.")
    return value
