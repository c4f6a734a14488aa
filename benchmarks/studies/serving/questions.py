"""The traces that serving is judged on, and what is asked of a policy's figures on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from benchmarks.load.figures import PolicyFigures, beaten
from benchmarks.load.traces import BURSTY, POISSON, STEADY
from slimexport.target.serving.policy import DEFAULT, FIXED
from slimtrain.base.text import table

ATTAINMENT = 0.995  # of requests, in every trace
POINTS = 0.04  # of accuracy, over the traces together


@dataclass(frozen=True)
class Setting:
    """A trace: its kind, its load as a share of the widest's capacity, its CV2. `judged`: whether it is one of the three that
    the figures are asked of."""

    kind: str
    load: float
    cv2: float = 1.0
    judged: bool = True

    @property
    def title(self) -> str:
        return f"{self.kind} {self.load:g}" + (f", CV2 {self.cv2:g}" if self.kind == BURSTY else "")


SETTINGS = (
    Setting(STEADY, 0.6),
    Setting(POISSON, 0.6, judged=False),
    Setting(BURSTY, 1.2, 4.0),
    Setting(BURSTY, 2.4, 8.0),
)


def answers(by_setting: Mapping[Setting, Sequence[PolicyFigures]], policy: str = DEFAULT) -> dict[str, Any]:
    """Of a policy: its least attainment in a judged trace; which fixed widths have more attainment and more accuracy, trace by
    trace, and which of them by more than noise; and by how much its mean accuracy over the judged traces beats that of the
    best fixed width, of those that serve ATTAINMENT in every one of them, None where none does or an accuracy is not known."""
    judged = {setting: rows for setting, rows in by_setting.items() if setting.judged}
    own = {setting: _row(rows, policy) for setting, rows in by_setting.items()}
    beaten_by = {
        setting.title: [better.policy for better in beaten(own[setting], [row for row in rows if _is_fixed(row)])]
        for setting, rows in by_setting.items()
    }
    clearly = {
        setting.title: [row.policy for row in rows if row.policy in beaten_by[setting.title] and _clear(row, own[setting])]
        for setting, rows in by_setting.items()
    }
    means = {name: _mean(judged, name) for name in _fixed_in_all(judged)}
    best = max(((value, name) for name, value in means.items() if value is not None), default=None)
    mine = _mean(judged, policy)
    gain = None if best is None or mine is None else mine - best[0]
    least = min(own[setting].attainment for setting in judged)
    return {
        "policy": policy,
        "least_attainment": least,
        "attains": least >= ATTAINMENT,
        "beaten_by": beaten_by,
        "clearly_beaten_by": clearly,
        "mean_accuracy": mine,
        "best_fixed": None if best is None else best[1],
        "best_fixed_accuracy": None if best is None else best[0],
        "gain": gain,
        "gains": gain is not None and gain >= POINTS,
    }


def said(given: Mapping[str, Any]) -> list[str]:
    """The answers as sentences."""
    lines = [f"{given['policy']}: at least {100 * given['least_attainment']:.2f} % in time in every judged trace"]
    for title, names in given["beaten_by"].items():
        if names:
            clear = "" if given["clearly_beaten_by"][title] else ", by no more than noise"
            lines.append(f"{title}: {', '.join(names)} served more in time, and more accurately{clear}")
    if given["gain"] is None:
        lines.append(f"no fixed width serves {100 * ATTAINMENT:g} % in time in all of them, or accuracies are not known")
    else:
        lines.append(
            f"mean accuracy {100 * given['mean_accuracy']:.2f} %, the best fixed width that serves {100 * ATTAINMENT:g} % in "
            f"time in all of them is {given['best_fixed']} with {100 * given['best_fixed_accuracy']:.2f} %: "
            f"{100 * given['gain']:+.2f} points"
        )
    return lines


def shown(by_setting: Mapping[Setting, Sequence[PolicyFigures]]) -> str:
    """A row per policy; of every trace the share in time and the accuracy, in percent."""
    settings = list(by_setting)
    policies = [row.policy for row in by_setting[settings[0]]]
    rows = []
    for policy in policies:
        cells = [_row(by_setting[setting], policy) for setting in settings]
        rows.append([policy, *(f"{100 * of.attainment:.2f} {_percent(of.mean_accuracy)}" for of in cells)])
    return table(["policy", *(setting.title for setting in settings)], rows)


def _clear(better: PolicyFigures, other: PolicyFigures) -> bool:
    """Whether an attainment is higher by more than two standard errors of the difference of two shares."""
    share = (better.attainment * better.requests + other.attainment * other.requests) / (better.requests + other.requests)
    error = math.sqrt(share * (1 - share) * (1 / better.requests + 1 / other.requests))
    return better.attainment - other.attainment > 2 * error


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _row(rows: Sequence[PolicyFigures], policy: str) -> PolicyFigures:
    return next(row for row in rows if row.policy == policy)


def _is_fixed(row: PolicyFigures) -> bool:
    return row.policy.startswith(f"{FIXED}:")


def _fixed_in_all(judged: Mapping[Setting, Sequence[PolicyFigures]]) -> list[str]:
    """The fixed widths that serve enough in every trace."""
    rows = next(iter(judged.values()))
    names = [row.policy for row in rows if _is_fixed(row)]
    return [name for name in names if all(_row(rows, name).attainment >= ATTAINMENT for rows in judged.values())]


def _mean(judged: Mapping[Setting, Sequence[PolicyFigures]], policy: str) -> float | None:
    values = [_row(rows, policy).mean_accuracy for rows in judged.values()]
    return None if any(value is None for value in values) else fmean(value for value in values if value is not None)
