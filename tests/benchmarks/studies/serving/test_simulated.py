"""The figures that serving is to reach, on the committed latencies: whoever changes a policy sees here what it costs."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from benchmarks.cells.backends import ONNXRUNTIME_CPU
from benchmarks.cells.records import read_records
from benchmarks.studies.serving.__main__ import RESULTS
from benchmarks.studies.serving.simulated import simulated
from slimtrain.base.errors import UserError
from tests.support import ROOT


@functools.cache
def given() -> dict[str, Any]:
    return simulated(ROOT / RESULTS, seconds=6.0, slo_ms=50.0, seed=0)


def test_a_runtime_would_open_five_widths_with_the_ends() -> None:
    assert len(given()["open"]) == 5 and given()["open"][0] == "0.25" and given()["open"][-1] == "1"
    recorded = read_records(ROOT / RESULTS)
    (widest,) = [
        result
        for result in recorded.results
        if (result.cell.name, result.cell.batch, result.cell.backend) == ("us_mobilenet_v1_x1_0", 1, ONNXRUNTIME_CPU)
    ]
    times = sorted(ms for of_round in widest.latency_ms for ms in of_round)
    assert given()["capacity"] == pytest.approx(1e3 / times[len(times) // 2], rel=0.01)


def test_drain_reaches_the_figures() -> None:
    drain = given()["answers"]["drain"]
    assert drain["least_attainment"] >= 0.995
    assert not any(drain["beaten_by"].values())
    assert drain["gain"] >= 0.04


def test_drain_is_the_better_default() -> None:
    """What slackfit fills the slack of the most urgent request with, those behind it lack."""
    drain, slackfit = given()["answers"]["drain"], given()["answers"]["slackfit"]
    assert drain["least_attainment"] > slackfit["least_attainment"] and drain["mean_accuracy"] > slackfit["mean_accuracy"]


def test_a_file_without_the_network_is_refused() -> None:
    with pytest.raises(UserError, match="no results of nothing"):
        simulated(ROOT / RESULTS, 1.0, 50.0, 0, network="nothing")
