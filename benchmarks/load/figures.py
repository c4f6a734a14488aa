"""What a run's samples say: pure functions from samples to figures, comparisons and warnings.

A request counts as served in time where it was answered within the SLO of the time at which the trace has it, whenever it was
really sent: a sender that waits for a slow server would otherwise leave out the requests that suffer most (coordinated
omission). One that was refused, failed or lost was not served in time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.load.book import ANSWERED, FAILED, FULL, LATE, LOST, Samples
from slimtrain.base.text import count

PERCENTILES = {"p50_ms": 50.0, "p95_ms": 95.0, "p99_ms": 99.0, "p999_ms": 99.9}
LATE_MS = 1.0
LATE_SHARE = 0.01  # of requests that may be sent later than that before it matters


@dataclass(frozen=True)
class WidthFacts:
    """A width by its label: its size as the manifest gives it, and its accuracy (a share), where they are known."""

    label: str
    width: float | None
    accuracy: float | None


@dataclass(frozen=True)
class PolicyFigures:
    """Of a policy's runs. `attainment`: the share of all requests that was served in time; `goodput`: so many per second.
    `mean_width` and `mean_accuracy` are over those; None where that of a width is not known. Percentiles, interpolated between
    samples, are of the latencies of `answered` requests, late ones included. `widths`: the share of answers by each.
    `late_sends`: the share that was sent more than 1 ms late, `send_p99_ms` how late at the 99th percentile.
    `attainments` of each round."""

    policy: str
    requests: int
    attainment: float
    goodput: float
    mean_width: float | None
    mean_accuracy: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    max_ms: float | None
    answered: int
    in_time: int
    late: int
    full: int
    failed: int
    lost: int
    doubled: int
    mean_batch: float | None
    widths: Mapping[str, float]
    late_sends: float
    send_p99_ms: float
    attainments: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def figures(
    policy: str, rounds: Sequence[Samples], whole: Samples, slo_ms: float, seconds: float, facts: Sequence[WidthFacts]
) -> PolicyFigures:
    """The figures of a policy from its rounds of `seconds` each, which `whole` joins."""
    good = whole.in_time(slo_ms)
    answered = whole.of(ANSWERED)
    latencies = whole.latency_ms[answered]
    by_label = {fact.label: fact for fact in facts}
    known = [by_label.get(label, WidthFacts(label, None, None)) for label in whole.labels]
    shares = _shares(whole, good)
    sent = whole.late_ms[np.isfinite(whole.late_ms)]
    at = {name: float(np.percentile(latencies, share)) if len(latencies) else None for name, share in PERCENTILES.items()}
    return PolicyFigures(
        policy=policy,
        requests=len(whole),
        attainment=float(good.mean()),
        goodput=float(good.sum()) / (seconds * len(rounds)),
        mean_width=_mean([fact.width for fact in known], shares),
        mean_accuracy=_mean([fact.accuracy for fact in known], shares),
        **at,
        max_ms=float(latencies.max()) if len(latencies) else None,
        answered=int(answered.sum()),
        in_time=int(good.sum()),
        late=int(whole.of(LATE).sum()),
        full=int(whole.of(FULL).sum()),
        failed=int(whole.of(FAILED).sum()),
        lost=int(whole.of(LOST).sum()),
        doubled=whole.doubled,
        mean_batch=float(whole.batch[answered].mean()) if answered.any() else None,
        widths=dict(sorted(zip(whole.labels, map(float, _shares(whole, answered)), strict=True))),
        late_sends=float((sent > LATE_MS).mean()) if len(sent) else 0.0,
        send_p99_ms=float(np.percentile(sent, 99)) if len(sent) else 0.0,
        attainments=tuple(float(of_round.in_time(slo_ms).mean()) for of_round in rounds),
    )


def _shares(samples: Samples, which: Any) -> Any:
    """The share of each label in some requests: float64 [labels]."""
    counts = np.bincount(samples.width[which], minlength=len(samples.labels)).astype(np.float64)
    return counts / max(1.0, counts.sum())


def _mean(values: Sequence[float | None], shares: Any) -> float | None:
    """Weighted by shares; None where a value that counts is not known, or none counts."""
    used = [(value, float(share)) for value, share in zip(values, shares, strict=True) if share > 0]
    if not used or any(value is None for value, _ in used):
        return None
    return float(sum(value * share for value, share in used if value is not None))


def sending_warning(of_policy: PolicyFigures) -> str | None:
    """Where requests were sent so late that it is part of what was measured."""
    if of_policy.late_sends <= LATE_SHARE:
        return None
    return (
        f"{of_policy.policy}: {of_policy.late_sends:.1%} of the requests were sent more than {LATE_MS:g} ms late "
        f"({of_policy.send_p99_ms:.1f} ms at p99): the sender does not keep up on this machine. Latencies count from the time "
        "intended, so they contain that. Send less, or to a URL from another machine."
    )


def beaten(of_policy: PolicyFigures, others: Sequence[PolicyFigures]) -> list[PolicyFigures]:
    """Those of `others` that have more attainment and more accuracy, or a larger mean width where accuracy is not known."""

    def good(of: PolicyFigures) -> float:
        value = of.mean_width if of_policy.mean_accuracy is None else of.mean_accuracy
        return -math.inf if value is None else value

    return [other for other in others if other.attainment > of_policy.attainment and good(other) > good(of_policy)]


def faults(of_policy: PolicyFigures) -> str | None:
    """What must never be: requests that came to no end, or to two."""
    wrong = [
        count(number, f"{what} request")
        for number, what in ((of_policy.lost, "lost"), (of_policy.doubled, "doubled"))
        if number
    ]
    return f"{of_policy.policy}: {' and '.join(wrong)}." if wrong else None
