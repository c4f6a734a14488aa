"""Which width computes the next batch, and how many images it takes: pure functions of what waits and of what everything
costs.

This file stands alone, on the standard library: a Triton repository gets a copy of it. A policy is called with the images that
wait, the milliseconds until the most urgent of them is due, and the latencies; it gives a width, by its number in
`Latencies.widths`, and a batch. Policies know nothing of clocks, queues or networks, so they can be simulated, and tested
against a brute-force definition.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

NEAR = 1.1  # batches that take at most so many times the best one's time for all that waits are as good: the smallest is taken
SHARE = 0.8  # drain: of the slack that a run may take where not all that waits can be served in time; the rest is for noise
FILL = 0.8  # slackfit: latencies within this share of the longest that fits are one bucket


@dataclass(frozen=True)
class Latencies:
    """Milliseconds that a run takes, at a percentile: `ms[width][batch]`, widths from the narrowest, which is the fastest, to
    the widest, batches of images ascending. `filled`: a run of fewer images is one of the next larger batch."""

    widths: tuple[str, ...]
    batches: tuple[int, ...]
    ms: tuple[tuple[float, ...], ...]
    filled: bool = False
    _quickest: dict[int, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.widths or not self.batches or list(self.batches) != sorted(set(self.batches)) or self.batches[0] < 1:
            raise ValueError(f"widths {self.widths}, batches {self.batches}: expected some, batches ascending from 1")
        if len(self.ms) != len(self.widths) or any(len(row) != len(self.batches) for row in self.ms):
            raise ValueError("expected milliseconds for every batch of every width")

    @property
    def largest(self) -> int:
        """The most images that a run takes."""
        return self.batches[-1]

    def of(self, width: int, images: int) -> float:
        """Of one run with so many images, at most `largest`: on the line between the measured batches beside it, or as
        the larger one."""
        row = self.ms[width]
        place = bisect_left(self.batches, images)
        if place == len(self.batches):
            raise ValueError(f"a run of {images} images, the largest is {self.largest}")
        if place == 0 or self.filled or self.batches[place] == images:
            return row[place]
        low, high = self.batches[place - 1], self.batches[place]
        share = (images - low) / (high - low)
        return row[place - 1] + share * (row[place] - row[place - 1])

    def quickest(self, images: int) -> float:
        """Of one run with so many images, at the width that takes least; a request asks it when it comes and when it runs."""
        known = self._quickest.get(images)
        if known is None:
            known = self._quickest[images] = min(self.of(width, images) for width in range(len(self.widths)))
        return known

    def of_all(self, width: int, images: int, batch: int) -> float:
        """Of as many runs as serve `images`, `batch` at a time."""
        whole, rest = divmod(images, batch)
        return whole * self.of(width, batch) + (self.of(width, rest) if rest else 0.0)


class Choice(NamedTuple):
    """A width, by its number in `Latencies.widths`, and the most images that its run takes."""

    width: int
    batch: int


Policy = Callable[[int, float, Latencies], Choice]


def fixed(width: int) -> Policy:
    """Always one width, at the largest batch that the most urgent image leaves time for: what a server without slimmable
    networks does."""

    def choose(waiting: int, slack_ms: float, latencies: Latencies) -> Choice:
        return Choice(width, _largest_within(width, waiting, slack_ms, latencies))

    return choose


def drain(waiting: int, slack_ms: float, latencies: Latencies) -> Choice:
    """The widest that serves all that waits before the most urgent of it is due; the narrowest where none does.

    Of batches that take about as long for all of it the smallest is taken: the sooner a run ends, the sooner what came
    meanwhile is looked at. Where no width serves all of it the batch uses a share of the slack only: otherwise every run would
    be one that is late if it takes any longer than the table says.
    """
    for width in range(len(latencies.widths) - 1, -1, -1):
        batch, total = _quickest(width, waiting, latencies)
        if total <= slack_ms:
            return Choice(width, batch)
    return Choice(0, _largest_within(0, waiting, SHARE * slack_ms, latencies))


def slackfit(waiting: int, slack_ms: float, latencies: Latencies) -> Choice:
    """Of the runs that end before the most urgent image is due, those that take nearly the longest; of these the one that
    serves most, and then the widest (SlackFit: SuperServe, NSDI 2025, arXiv 2312.16733)."""
    fitting = [
        (latencies.of(width, batch), Choice(width, batch))
        for width in range(len(latencies.widths))
        for batch in _useful(waiting, latencies)
        if latencies.of(width, batch) <= slack_ms
    ]
    if not fitting:
        return Choice(0, min(waiting, latencies.largest))
    longest = max(ms for ms, _ in fitting)
    bucket = [choice for ms, choice in fitting if ms >= FILL * longest]
    return max(bucket, key=lambda choice: (choice.batch, choice.width))


POLICIES: dict[str, Policy] = {"drain": drain, "slackfit": slackfit}
FIXED = "fixed"
DEFAULT = "drain"
NAMES = (*POLICIES, f"{FIXED}:WIDTH")


def named_policy(name: str, widths: Sequence[str]) -> Policy:
    """A policy by its name: one of `POLICIES`, or `fixed:0.5` for one of `widths`, also as another text of that number, as is
    1.0 of 1. ValueError otherwise."""
    if name in POLICIES:
        return POLICIES[name]
    kind, _, width = name.partition(":")
    if kind == FIXED and (places := [index for index, label in enumerate(widths) if _same(label, width)]):
        return fixed(places[0])
    if kind == FIXED:
        raise ValueError(f"policy {name!r}: width {width or 'none'!r} is not open. Open are {', '.join(widths)}.")
    raise ValueError(f"policy {name!r}: not known. Available: {', '.join(NAMES)}.")


def _same(label: str, width: str) -> bool:
    """Whether two texts name one width."""
    try:
        return label == width or float(label) == float(width)
    except ValueError:  # a plan's name
        return False


def _useful(waiting: int, latencies: Latencies) -> list[int]:
    """The batches that can be filled, and the one that takes all that waits."""
    return [*(batch for batch in latencies.batches if batch < waiting), min(waiting, latencies.largest)]


def _quickest(width: int, waiting: int, latencies: Latencies) -> tuple[int, float]:
    """The smallest batch whose time for all that waits is nearly the least, and that time."""
    if waiting == 1:  # as mostly, where there is time
        return 1, latencies.of(width, 1)
    totals = [(batch, latencies.of_all(width, waiting, batch)) for batch in dict.fromkeys(_useful(waiting, latencies))]
    least = min(total for _, total in totals)
    return next((batch, total) for batch, total in totals if total <= NEAR * least)


def _largest_within(width: int, waiting: int, slack_ms: float, latencies: Latencies) -> int:
    """The most images whose run ends in time, of the measured batches; 1 where none does."""
    fitting = [batch for batch in _useful(waiting, latencies) if latencies.of(width, batch) <= slack_ms]
    return max(fitting, default=1)
