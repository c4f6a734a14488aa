"""What is asked of figures, on figures that are made up."""

from __future__ import annotations

import pytest

from benchmarks.load.figures import PolicyFigures
from benchmarks.studies.serving.questions import SETTINGS, Setting, answers, said, shown

FIRST, SECOND = Setting("steady", 0.6), Setting("bursty", 2.4, 8.0)
ASIDE = Setting("poisson", 0.6, judged=False)


def row(policy: str, attainment: float, accuracy: float | None) -> PolicyFigures:
    rest = dict.fromkeys(("p50_ms", "p95_ms", "p99_ms", "p999_ms", "max_ms", "mean_batch", "mean_width"))
    counts = dict.fromkeys(("answered", "in_time", "late", "full", "failed", "lost", "doubled"), 0)
    return PolicyFigures(
        policy,
        requests=1000,
        attainment=attainment,
        goodput=1.0,
        mean_accuracy=accuracy,
        widths={},
        late_sends=0.0,
        send_p99_ms=0.0,
        attainments=(attainment,),
        **rest,  # type: ignore[arg-type]
        **counts,
    )


FIGURES = {
    FIRST: [row("fixed:1", 1.0, 0.72), row("fixed:0.5", 1.0, 0.64), row("fixed:0.25", 1.0, 0.55), row("drain", 0.9999, 0.71)],
    SECOND: [
        row("fixed:1", 0.4, 0.72),
        row("fixed:0.5", 0.99, 0.64),
        row("fixed:0.25", 0.996, 0.55),
        row("drain", 0.997, 0.63),
    ],
    ASIDE: [row("fixed:1", 0.1, 0.72), row("fixed:0.5", 0.1, 0.64), row("fixed:0.25", 0.1, 0.55), row("drain", 0.1, 0.6)],
}


def test_the_best_fixed_width_is_one_that_serves_enough_in_every_judged_trace() -> None:
    given = answers(FIGURES)
    assert (given["best_fixed"], given["best_fixed_accuracy"]) == ("fixed:0.25", pytest.approx(0.55))
    assert given["mean_accuracy"] == pytest.approx(0.67) and given["gain"] == pytest.approx(0.12) and given["gains"]
    assert given["least_attainment"] == 0.997 and given["attains"]
    assert "+12.00 points" in said(given)[-1]


def test_a_width_that_is_better_in_both_is_told_in_every_trace() -> None:
    assert answers(FIGURES)["beaten_by"] == {"steady 0.6": ["fixed:1"], "bursty 2.4, CV2 8": [], "poisson 0.6": []}
    assert "steady 0.6: fixed:1 served more in time, and more accurately, by no more than noise" in said(answers(FIGURES))


def test_one_request_of_a_thousand_is_noise_and_ten_are_not() -> None:
    for attainment, clearly in ((0.999, []), (0.99, ["fixed:1"])):
        figures = {FIRST: [row("fixed:1", 1.0, 0.72), row("drain", attainment, 0.71)]}
        given = answers(figures)
        assert given["beaten_by"] == {"steady 0.6": ["fixed:1"]} and given["clearly_beaten_by"] == {"steady 0.6": clearly}
    assert said(given)[1].endswith("more accurately")


def test_no_width_that_serves_enough_leaves_it_open() -> None:
    few = {SECOND: [row("fixed:1", 0.4, 0.72), row("drain", 0.9, 0.6)]}
    given = answers(few)
    assert given["gain"] is None and not given["gains"] and not given["attains"] and "no fixed width" in said(given)[-1]
    unknown = {FIRST: [row("fixed:1", 1.0, None), row("drain", 1.0, None)]}
    assert answers(unknown)["gain"] is None


def test_a_table_shows_every_policy_on_every_trace() -> None:
    lines = shown(FIGURES).splitlines()
    assert len(lines) == 5 and "bursty 2.4, CV2 8" in lines[0] and lines[4].split()[:3] == ["drain", "99.99", "71.00"]


def test_three_traces_are_judged() -> None:
    assert [(s.kind, s.load, s.cv2) for s in SETTINGS if s.judged] == [
        ("steady", 0.6, 1),
        ("bursty", 1.2, 4),
        ("bursty", 2.4, 8),
    ]
