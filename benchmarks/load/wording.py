"""A run as text."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.cells.shares import AP, TOP1
from benchmarks.load.figures import PolicyFigures, beaten, faults, sending_warning
from slimtrain.base.text import table

GOODNESS = {TOP1: "accuracy %", AP: "AP"}  # a share of right answers, or a detector's average precision
HEADER = (
    "policy",
    "in time %",
    "per s",
    GOODNESS[TOP1],
    "width",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "p99.9 ms",
    "late",
    "full",
    "failed",
)


def console(of_policies: Sequence[PolicyFigures], kind: str = TOP1) -> str:
    """A row per policy, whose accuracies are of a `kind`. `late` and `full` were refused; percentages are of requests, but for
    accuracies."""
    header = [GOODNESS[kind] if name == GOODNESS[TOP1] else name for name in HEADER]
    return table(header, [_row(of_policy, kind) for of_policy in of_policies])


def goodness(of_policy: PolicyFigures, kind: str) -> str:
    """How good a policy's answers are, as in `accuracy 71.8 %` or `AP 0.804`; nothing where that is not known."""
    accuracy = of_policy.mean_accuracy
    if accuracy is None:
        return ""
    return f"AP {accuracy:.3f}" if kind == AP else f"accuracy {100 * accuracy:.1f} %"


def notes(of_policies: Sequence[PolicyFigures]) -> list[str]:
    """What to doubt, and which policy another one beats in both, attainment and accuracy."""
    said = [line for of_policy in of_policies for line in (faults(of_policy), sending_warning(of_policy)) if line]
    for of_policy in of_policies:
        if better := beaten(of_policy, of_policies):
            names = ", ".join(other.policy for other in better)
            said.append(f"{of_policy.policy}: {names} served more in time, and more accurately.")
    return said


def _row(of_policy: PolicyFigures, kind: str) -> list[str]:
    accuracy = of_policy.mean_accuracy
    return [
        of_policy.policy,
        f"{100 * of_policy.attainment:.2f}",
        f"{of_policy.goodput:.1f}",
        _number(accuracy, 3) if kind == AP or accuracy is None else _number(100 * accuracy, 2),
        _number(of_policy.mean_width, 3),
        *(_number(value, 1) for value in (of_policy.p50_ms, of_policy.p95_ms, of_policy.p99_ms, of_policy.p999_ms)),
        *(f"{number:,}" for number in (of_policy.late, of_policy.full, of_policy.failed + of_policy.lost)),
    ]


def _number(value: float | None, places: int) -> str:
    return "-" if value is None else f"{value:.{places}f}"
