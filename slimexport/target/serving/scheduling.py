"""What runs next, without threads or clocks: the queue, the policy and the latencies, given the time.

The runtime holds one under a lock; a simulation holds one beside a clock of its own, so that what is simulated is what serves.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field

from slimexport.target.serving.correcting import Corrected
from slimexport.target.serving.policy import FIXED, NAMES, POLICIES, Choice, Policy, drain, named_policy
from slimexport.target.serving.requests import Request, Waiting

log = logging.getLogger(__name__)

REFUSE, SERVE = LATE = ("refuse", "serve")
TRIAL_S, TRIAL_REFUSALS = 1.0, 8  # without a run, and refused since, before one is served all the same
OVERHEAD_MS = 0.3  # from the end of a run until its answer is where it was asked for


@dataclass(slots=True)  # to make a frozen one takes twice as long
class Run:
    """`requests` for the width of number `width`; `slack_ms` is what the policy was asked with. A `trial` is made although it
    should be late, as everything was refused."""

    width: int
    requests: tuple[Request, ...]
    slack_ms: float
    trial: bool = False
    images: int = field(init=False)

    def __post_init__(self) -> None:
        requests = self.requests
        self.images = requests[0].size if len(requests) == 1 else sum([request.size for request in requests])


class Scheduler:
    """`policy`: a name, or a function. `late`: whether a request that cannot meet its deadline is refused, or served at the
    narrowest width."""

    def __init__(self, corrected: Corrected, policy: str | Policy, late: str = REFUSE) -> None:
        self._corrected, self.late = corrected, late
        self.latencies = corrected.now()  # as they are now
        self.waiting = Waiting()
        self._every = self.latencies.widths  # those that are out too
        self._refusals, self._ran_s = 0, float("inf")  # since the last run, and when that was
        self.policy = policy

    @property
    def policy(self) -> str | Policy:
        """As it was set. ValueError, when it is, for a name that is none, or of a width that is not open."""
        return self._policy

    @policy.setter
    def policy(self, policy: str | Policy) -> None:
        self._choose_by = policy_of(policy, self.latencies.widths)
        self._policy: str | Policy = policy
        self._complained = False

    def take_out(self, width: int) -> None:
        """Choose among the other widths. In the place of a fixed one that is out serves the widest that is not wider, or else
        the narrowest."""
        self._corrected = self._corrected.without(width)
        self.latencies = self._corrected.now()
        labels = self.latencies.widths
        if isinstance(self._policy, str) and not _is_open(self._policy, labels):
            out = next(number for number, label in enumerate(self._every) if _is_open(self._policy, [label]))
            narrower = [label for label in labels if self._every.index(label) < out]
            instead = (narrower or labels[:1])[-1]
            log.warning("policy %s: width %s serves in the place of %s, which is out", self._policy, instead, self._every[out])
            self._choose_by = policy_of(f"{FIXED}:{instead}", labels)
        else:
            self._choose_by = policy_of(self._policy, labels)

    def hopeless(self, request: Request, now_s: float) -> bool:
        """Whether no width computes a request in time, were it to run now, alone."""
        return 1e3 * (request.due_s - now_s) < self.latencies.quickest(request.size) + OVERHEAD_MS

    def refuses(self, request: Request, now_s: float) -> bool:
        """Whether a request is not served any more. Where all are refused and nothing runs, one is served now and then: only
        runs correct latencies that were measured while the machine was busier."""
        if self.late != REFUSE or request.trial or not self.hopeless(request, now_s):
            return False
        self._refusals, self._ran_s = self._refusals + 1, min(self._ran_s, now_s)
        request.trial = self._refusals > TRIAL_REFUSALS and now_s - self._ran_s >= TRIAL_S
        if request.trial:
            self._refusals, self._ran_s = 0, now_s
        return not request.trial

    def overfull(self, now_s: float) -> bool:
        """Whether more waits than the narrowest width serves before the last of it is due: some will be late, whatever runs.

        The most urgent is refused then, until the rest can be served. Without that what is served is what is nearly late
        already, one by one, as there is no time for more; half of it ends late, and the work was for nothing."""
        if self.late == SERVE or len(self.waiting) < 2:  # one that waits alone is hopeless, or not
            return False
        latencies, waiting = self.latencies, self.waiting.images
        quickest = min(latencies.of_all(0, waiting, batch) for batch in latencies.batches)
        return 1e3 * (self.waiting.last_due_s - now_s) < quickest + OVERHEAD_MS

    def empty_in_s(self) -> float:
        """When the narrowest width has served what waits."""
        return self.latencies.of_all(0, self.waiting.images, self.latencies.largest) / 1e3

    def next(self, now_s: float) -> tuple[Run | None, Sequence[Request]]:
        """The run that is to begin now, None where nothing waits; and the requests that are refused, as they, or others that
        wait behind them, would be late."""
        late: list[Request] = []
        while (head := self.waiting.head()) is not None:
            alone = head.size == self.waiting.images
            if not (self.refuses(head, now_s) or (not alone and self.overfull(now_s))):
                break
            if (taken := self.waiting.take_head()) is not None:
                late.append(taken)
        if head is None:
            return None, late
        width, batch, slack_ms, trial = self._plan(head, self.waiting.images, now_s)
        requests = tuple(self.waiting.take(batch))
        if not requests:
            return None, late
        self._refusals, self._ran_s = 0, now_s
        return Run(width, requests, slack_ms, trial), late

    def alone(self, request: Request, now_s: float) -> Run:
        """The run of a request that is not refused, and that nothing waits beside: `next` of a queue of it alone."""
        width, _, slack_ms, trial = self._plan(request, request.size, now_s)
        self._refusals, self._ran_s = 0, now_s
        return Run(width, (request,), slack_ms, trial)

    def _plan(self, head: Request, waiting: int, now_s: float) -> tuple[int, int, float, bool]:
        """Width, most images, slack, and whether it is a trial, of the run of `head`, where so many images wait."""
        slack_ms = 1e3 * (head.due_s - now_s) - OVERHEAD_MS
        if trial := head.trial and self.hopeless(head, now_s):
            choice = Choice(0, head.size)
        elif self.late == SERVE and self.hopeless(head, now_s):
            choice = self._late_choice(waiting)
        else:
            choice = self._choose(waiting, slack_ms)
        width = self._for_whole(head, choice, slack_ms) if head.size > choice.batch else choice.width
        return width, choice.batch, slack_ms, trial

    def ran(self, run: Run, ms: float) -> None:
        """A run took so long: the latencies follow."""
        learn = self._corrected.tried if run.trial else self._corrected.seen
        learn(run.width, run.images, ms)
        self.latencies = self._corrected.now()
        self.latencies.quickest(1)  # which the next request asks when it comes: it is known then

    def _for_whole(self, head: Request, choice: Choice, slack_ms: float) -> int:
        """The width of a run of a request that has more images than the policy, which counts images, means to run: of drain
        and slackfit the widest up to the chosen one that is in time with all of them."""
        if not isinstance(self._policy, str) or self._policy not in POLICIES:
            return choice.width
        latencies = self.latencies
        return next((width for width in range(choice.width, 0, -1) if latencies.of(width, head.size) <= slack_ms), 0)

    def _choose(self, waiting: int, slack_ms: float) -> Choice:
        """The policy's choice, or, where a user's own fails, which is said once, that of `drain`."""
        latencies = self.latencies
        if isinstance(self._policy, str):  # one of ours
            return self._choose_by(waiting, slack_ms, latencies)
        try:
            width, batch = map(operator.index, self._choose_by(waiting, slack_ms, latencies))
            if not (0 <= width < len(latencies.widths) and batch >= 1):
                raise ValueError(f"chose width {width} of {len(latencies.widths)} and a batch of {batch}")
            return Choice(width, min(batch, latencies.largest))
        except Exception as error:  # a user's function: a service goes on
            if not self._complained:
                log.exception("the policy failed (%s); drain is used where it does", error)
                self._complained = True
            return drain(waiting, slack_ms, latencies)

    def _late_choice(self, waiting: int) -> Choice:
        """Of a head that is late whatever is done: the narrowest, with as many as it takes, so that fewer will be."""
        return Choice(0, min(waiting, self.latencies.largest))


def policy_of(policy: str | Policy, widths: Sequence[str]) -> Policy:
    """A policy's function. ValueError for a name that is none, or of a width that is not among `widths`."""
    if callable(policy):
        return policy
    if not isinstance(policy, str):
        raise ValueError(f"policy {policy!r}: expected one of {', '.join(NAMES)}, or a function.")
    return named_policy(policy, widths)


def _is_open(policy: str, widths: Sequence[str]) -> bool:
    try:
        named_policy(policy, widths)
    except ValueError:
        return False
    return True
