"""A run as text."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.load.figures import PolicyFigures, beaten, faults, sending_warning
from slimtrain.base.text import table

HEADER = (
    "policy",
    "in time %",
    "per s",
    "accuracy %",
    "width",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "p99.9 ms",
    "late",
    "full",
    "failed",
)


def console(of_policies: Sequence[PolicyFigures]) -> str:
    """A row per policy. `late` and `full` were refused; all percentages are of requests."""
    return table(HEADER, [_row(of_policy) for of_policy in of_policies])


def notes(of_policies: Sequence[PolicyFigures]) -> list[str]:
    """What to doubt, and which policy another one beats in both, attainment and accuracy."""
    said = [line for of_policy in of_policies for line in (faults(of_policy), sending_warning(of_policy)) if line]
    for of_policy in of_policies:
        if better := beaten(of_policy, of_policies):
            names = ", ".join(other.policy for other in better)
            said.append(f"{of_policy.policy}: {names} served more in time, and more accurately.")
    return said


def _row(of_policy: PolicyFigures) -> list[str]:
    accuracy = None if of_policy.mean_accuracy is None else 100 * of_policy.mean_accuracy
    return [
        of_policy.policy,
        f"{100 * of_policy.attainment:.2f}",
        f"{of_policy.goodput:.1f}",
        _number(accuracy, 2),
        _number(of_policy.mean_width, 3),
        *(_number(value, 1) for value in (of_policy.p50_ms, of_policy.p95_ms, of_policy.p99_ms, of_policy.p999_ms)),
        *(f"{number:,}" for number in (of_policy.late, of_policy.full, of_policy.failed + of_policy.lost)),
    ]


def _number(value: float | None, places: int) -> str:
    return "-" if value is None else f"{value:.{places}f}"
