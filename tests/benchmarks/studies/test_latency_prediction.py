"""`python -m benchmarks.studies.latency_prediction` on operators whose times are known: networks, figures, refusals."""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from benchmarks.layers.model_timer import Model, Sample
from benchmarks.layers.run import WHOLE, Grid, TimedDevice, Work, run_channels
from benchmarks.onnx_models.network import network_model
from benchmarks.studies import latency_prediction
from benchmarks.studies.latency_prediction import errors, networks, predict, result_lines, unseen_plans
from slimtrain.base.errors import UserError
from slimtrain.costs.cost import CostCounter
from slimtrain.costs.latency_table import LatencyTable, LatencyTableError, write_latency_table
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.published import published_spec
from slimtrain.models.spec import NetworkSpec
from tests.support import ROOT
from tests.support.channel_fakes import FormulaTimer, model_ms

SPEC = NetworkSpec("mobilenet_v1", "us", (0.25, 0.5), 10, width_range=(0.25, 0.5), stem_stride=1)
GRID = Grid(points=3, unit=8, line=12, duration_s=0.01)


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return run_channels(Work(SPEC, 32, GRID), TimedDevice("a formula", "onnxruntime-cpu", 1, 1), FormulaTimer()).table


def test_plans_had_no_part_in_the_table_and_differ(table: LatencyTable) -> None:
    plans = unseen_plans(SPEC, table, 10, seed=0)
    seen = [network["channels"] for network in table.settings[WHOLE]]
    assert all(dict(plan.channels) not in seen for plan in plans)
    assert len({plan.name for plan in plans}) == len(plans)
    mixed = [plan for plan in plans if plan.name.startswith("random")]
    assert len(mixed) == 10 and len(set(mixed)) == 10
    low, high = SPEC.plan(0.25).channels, SPEC.widest.channels
    for plan in mixed:
        assert all(low[group] <= count <= high[group] for group, count in plan.channels.items())
        assert SPEC.plan_from_channels("p", dict(plan.channels)) == plan
    assert unseen_plans(SPEC, table, 10, seed=0) == plans
    assert unseen_plans(SPEC, table, 10, seed=1)[-1] != plans[-1]
    shares = [np.mean([plan.channels[group] / high[group] for plan in mixed]) for group in list(high)[4:]]
    assert 0.55 < float(np.mean(shares)) < 0.95  # spread over the range, not at an end of it


def test_groups_that_are_never_slimmed_stay() -> None:
    spec = published_spec("us_mobilenet_v2", 10)
    measured = run_channels(Work(spec, 32, Grid(2, 8, 2, 0.01)), TimedDevice("a", "onnxruntime-cpu", 1, 1), FormulaTimer())
    for plan in unseen_plans(spec, measured.table, 3, seed=0):
        assert spec.plan_from_channels("p", dict(plan.channels)) == plan


def test_a_table_that_no_plan_fits_is_told(table: LatencyTable) -> None:
    wide = replace(SPEC, switches=(0.25, 1.5), width_range=(0.25, 1.5))
    with pytest.raises(UserError, match="Give --random 0"):
        unseen_plans(wide, table, 3, seed=0)


def test_known_times_are_predicted_and_better_than_by_macs(table: LatencyTable) -> None:
    plans = unseen_plans(SPEC, table, 8, seed=0)
    times = {plan.name: model_ms(network_model(SPEC, plan, 32)) for plan in plans}
    measured = {name: Sample(time, time) for name, time in times.items()}
    result = predict(SPEC, table, plans, measured)
    assert result["table"]["largest_error"] < 0.01 < result["macs_only"]["mean_absolute_error"]
    assert result["table"]["rank_correlation"] > 0.99
    count = CostCounter(SPEC, 32)
    for plan, row in zip(plans, result["networks"], strict=True):
        assert row["macs"] == count(plan).macs and row["table_ms"] == table.cost_ms(plan)
    macs, ms = [row["macs"] for row in result["networks"]], [row["macs_only_ms"] for row in result["networks"]]
    assert np.allclose(np.polyval(np.polyfit(macs, ms, 1), macs), ms)  # a line
    text = result_lines(result)
    assert "the table: off by 0." in text and "MACs alone: off by" in text and all(plan.name in text for plan in plans)


def test_errors_are_relative_to_what_was_measured() -> None:
    figures = errors([1.1, 1.8, 4.0], [1.0, 2.0, 4.0])
    assert figures["mean_absolute_error"] == pytest.approx(0.2 / 3)
    assert figures["largest_error"] == pytest.approx(0.1) and figures["rank_correlation"] == 1
    assert errors([3.0, 2.0, 1.0], [1.0, 2.0, 3.0])["rank_correlation"] == -1
    assert errors([1.0, 1.0], [1.0, 2.0])["rank_correlation"] is None


def test_networks_that_can_be_are_exported(tmp_path: Path) -> None:
    spec = published_spec("us_mobilenet_v1")
    random = ChannelPlan("random_1", {**spec.plan(0.25).channels, "features.2": 40, "features.9": 136})
    plans = [spec.plan(0.3), random]
    models = networks(spec, 32, plans, tmp_path)
    for plan in plans:
        model = onnx.load_model_from_string(models[plan.name].make())
        assert model.producer_name == "slimexport"
        weights = [list(tensor.dims) for tensor in model.graph.initializer if len(tensor.dims) == 4]
        stem, *rest = [dims for dims in weights if dims[1] != 1]
        assert stem == [plan.channels["features.0"], 3, 3, 3]
        assert [dims[0] for dims in rest] == [plan.channels[f"features.{i}"] for i in range(1, 14)]


def test_networks_that_have_no_norms_for_a_plan_are_written(tmp_path: Path) -> None:
    spec = published_spec("autoslim_mobilenet_v2", 10)
    plan = ChannelPlan("p", {group: count - count % 8 or 8 for group, count in spec.plans[0].channels.items()})
    model = onnx.load_model_from_string(networks(spec, 32, [plan], tmp_path)["p"].make())
    assert model.producer_name != "slimexport" and not list(tmp_path.iterdir())


def arguments(**changed: Any) -> argparse.Namespace:
    values: dict[str, Any] = {
        **{"network": "us_mobilenet_v1", "image_size": 32, "backend": "onnxruntime-cpu", "batch": 1, "threads": 1},
        **{"points": 2, "duration": 0.01, "network_duration": 0.01, "random": 2, "seed": 0, "table": None, "save_table": None},
    }
    return argparse.Namespace(**{**values, **changed})


@pytest.fixture
def formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency_prediction, "ModelTimer", lambda backend, batch, threads: FormulaTimer())
    monkeypatch.setattr(
        latency_prediction,
        "this_device",
        lambda backend, batch, threads: TimedDevice("a formula", backend, batch, threads, {"cpu": "a formula"}),
    )
    monkeypatch.setattr(latency_prediction, "networks", written)


def written(spec: NetworkSpec, size: int, plans: list[ChannelPlan], folder: Path) -> dict[str, Model]:
    """All networks written, none exported."""
    return {plan.name: Model(size, functools.partial(network_model, spec, plan, size)) for plan in plans}


@pytest.mark.usefixtures("formula")
def test_a_saved_table_gives_the_same_figures(tmp_path: Path) -> None:
    first = latency_prediction.run(arguments(save_table=tmp_path / "t.json"))
    again = latency_prediction.run(arguments(table=tmp_path / "t.json"))
    assert first["networks"] == again["networks"] and first["table"] == again["table"]
    assert first["environment"] == {"cpu": "a formula"} and first["command"].startswith(
        "python -m benchmarks.studies.latency_prediction"
    )
    assert json.loads(json.dumps(first, allow_nan=False))["network"]["name"] == "us_mobilenet_v1"
    for wrong in ({"batch": 2}, {"image_size": 64}, {"network": "us_mobilenet_v2"}):
        with pytest.raises(LatencyTableError):
            latency_prediction.run(arguments(table=tmp_path / "t.json", **wrong))


@pytest.mark.usefixtures("formula")
def test_a_table_of_another_device_is_refused(table: LatencyTable, tmp_path: Path) -> None:
    write_latency_table(tmp_path / "t.json", replace(table, device={"name": "another"}))
    with pytest.raises(LatencyTableError):
        latency_prediction.run(arguments(table=tmp_path / "t.json"))


def test_a_module_is_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency_prediction, "ModelTimer", lambda backend, batch, threads: FormulaTimer())
    monkeypatch.setattr(latency_prediction, "this_device", lambda *settings: TimedDevice("a formula", *settings))
    result = latency_prediction.run(arguments(network="tests.support.traced_search:build", image_size=16, points=3))
    assert result["network"]["name"] == "us_build" and len(result["networks"]) >= 2 + 4
    assert result["table"]["mean_absolute_error"] < 0.1  # of steps that three counts do not show
    for row in result["networks"]:
        assert row["macs"] > 0 and set(row["channels"]) == {"stem.0", "block.0.0", "fc1", "a.0", "b.0"}


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--network", "us_mobilnet_v1"], "did you mean"), (["--table", "absent.json"], "absent.json: cannot be read")],
)
def test_a_user_s_mistake_is_one_message(words: list[str], message: str) -> None:
    command = [sys.executable, "-m", "benchmarks.studies.latency_prediction", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
