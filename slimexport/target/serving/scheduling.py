"""What runs next, without threads or clocks: the queue, the policy and the latencies, given the time.

The runtime holds one under a lock; a simulation holds one beside a clock of its own, so that what is simulated is what serves.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from slimexport.target.serving.correcting import Corrected
from slimexport.target.serving.policy import Choice, Latencies, Policy, drain
from slimexport.target.serving.requests import Request, Waiting

log = logging.getLogger(__name__)

REFUSE, SERVE = LATE = ("refuse", "serve")
OVERHEAD_MS = 0.3  # from the end of a run until its answer is where it was asked for


@dataclass(frozen=True)
class Run:
    """`requests` for the width of number `width`; `slack_ms` is what the policy was asked with."""

    width: int
    requests: tuple[Request, ...]
    slack_ms: float

    @property
    def images(self) -> int:
        return sum(request.size for request in self.requests)


class Scheduler:
    """`late`: whether a request that cannot meet its deadline is refused, or served at the narrowest width."""

    def __init__(self, corrected: Corrected, policy: Policy, late: str = REFUSE) -> None:
        self.corrected, self.policy, self.late = corrected, policy, late
        self.waiting = Waiting()
        self._complained = False

    @property
    def latencies(self) -> Latencies:
        return self.corrected.now()

    def hopeless(self, request: Request, now_s: float) -> bool:
        """Whether no width computes a request in time, were it to run now, alone."""
        latencies = self.latencies
        quickest = min(latencies.of(width, request.size) for width in range(len(latencies.widths)))
        return 1e3 * (request.due_s - now_s) < quickest + OVERHEAD_MS

    def next(self, now_s: float) -> tuple[Run | None, Sequence[Request]]:
        """The run that is to begin now, None where nothing waits; and the requests that are refused, as they would be late."""
        late: list[Request] = []
        while (head := self.waiting.head()) is not None:
            if self.late == SERVE or not self.hopeless(head, now_s):
                break
            if (taken := self.waiting.take_head()) is not None:
                late.append(taken)
        if head is None:
            return None, late
        slack_ms = 1e3 * (head.due_s - now_s) - OVERHEAD_MS
        choice = self._choose(slack_ms)
        requests = tuple(self.waiting.take(choice.batch))
        return (Run(choice.width, requests, slack_ms) if requests else None), late

    def _choose(self, slack_ms: float) -> Choice:
        """The policy's choice, or, where a user's own fails, which is said once, that of `drain`."""
        latencies, waiting = self.latencies, self.waiting.images
        try:
            width, batch = self.policy(waiting, slack_ms, latencies)
            if not (0 <= width < len(latencies.widths) and 1 <= batch):
                raise ValueError(f"chose width {width} of {len(latencies.widths)} and a batch of {batch}")
        except Exception as error:  # a user's function: a service goes on
            if not self._complained:
                log.exception("the policy failed (%s); drain is used where it does", error)
                self._complained = True
            return drain(waiting, slack_ms, latencies)
        return Choice(int(width), min(int(batch), latencies.largest))
