"""From a network to its latency table: what is measured, what is fitted, on operators whose times are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.layers.grid import INPUT, OUTPUT
from benchmarks.layers.run import WHOLE, Grid, LayerMeasurement, TimedDevice, Work, fit_line, run_channels
from benchmarks.onnx_models.network import network_model
from slimtrain.costs.layer_shapes import LayerShape
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import NetworkSpec
from tests.support.channel_fakes import FormulaTimer, layer_ms, model_ms

SMALL = NetworkSpec("mobilenet_v1", "us", (0.25, 0.5), 10, width_range=(0.25, 0.5), stem_stride=1)
DEVICE = TimedDevice("a formula", "onnxruntime-cpu", 1, 2, {"cpu": "a formula"})
GRID = Grid(points=3, unit=8, line=16, duration_s=0.01)
COARSE = Grid(points=2, unit=8, line=4, duration_s=0.01)


@pytest.fixture(scope="module")
def measured() -> LayerMeasurement:
    return run_channels(Work(SMALL, 32, GRID), DEVICE, FormulaTimer())


def test_the_work_that_is_announced_is_done(measured: LayerMeasurement) -> None:
    timer = FormulaTimer()
    work = Work(SMALL, 32, GRID)
    progressed: list[tuple[float, int]] = []
    run_channels(work, DEVICE, timer, progress=lambda doing, done, total: progressed.append((done, total)))
    assert timer.calls[0] == timer.calls[-1] == len(work.plans) == 3
    assert sum(timer.calls[1:-1]) == work.models
    assert progressed[0] == (0, work.models) and progressed[-1] == (work.models, work.models)
    assert [done for done, _ in progressed] == sorted(done for done, _ in progressed)


def test_the_table_holds_each_layer_s_own_time(measured: LayerMeasurement) -> None:
    """To what a probe of other channels takes more or less, and the activation."""
    table = measured.table
    plan = SMALL.plan(0.5)
    for layer, ms in zip(table.layers, table.layers_ms(plan), strict=True):
        assert isinstance(layer, LayerShape)
        if layer.kind == "linear":
            continue
        inp, out = plan.size(layer.inp), plan.size(layer.out)
        inputs, count = (1, out) if layer.kind == "depthwise" else (inp, 1)
        assert ms == pytest.approx(layer_ms(layer.kernel, inputs, out, count, layer.positions) + 5e-4, abs=6e-4), layer.name


def test_steps_are_found_and_used(measured: LayerMeasurement) -> None:
    steps = {(s.line.entry.layer.kind, s.line.axis): s.step for s in measured.staircases if len(s.line.counts) > 8}
    assert steps == {("conv", INPUT): 16, ("conv", OUTPUT): 16, ("depthwise", INPUT): 16, ("linear", INPUT): 32}
    table = measured.table
    for layer, entry in zip(table.layers, table.of_layer, strict=True):
        if layer.alike == ("conv", 1, 1):
            outputs = table.times[entry].outputs
            assert outputs is not None and (table.times[entry].inputs.step, outputs.step) == (16, 16)


def random_plans(count: int) -> list[ChannelPlan]:
    draw = np.random.default_rng(1)
    low, high = SMALL.plan(0.25).channels, SMALL.widest.channels
    return [
        ChannelPlan(f"r{number}", {group: int(draw.choice(range(low[group], high[group] + 1, 8))) for group in low})
        for number in range(count)
    ]


@pytest.mark.parametrize("slower", [1.0, 1.3])
def test_whole_networks_are_predicted(slower: float) -> None:
    """Also where a network takes longer than its layers by themselves."""
    table = run_channels(Work(SMALL, 32, GRID), DEVICE, FormulaTimer(slower=slower)).table
    assert table.factor == pytest.approx(slower, rel=0.02)
    for plan in random_plans(10):
        assert table.cost_ms(plan) == pytest.approx(slower * model_ms(network_model(SMALL, plan, 32)), rel=0.01)


def test_reasons_to_doubt_are_told(measured: LayerMeasurement) -> None:
    assert measured.notes == ()
    noisy = run_channels(Work(SMALL, 32, COARSE), DEVICE, FormulaTimer(noise=0.3))
    assert any("noisy" in note for note in noisy.notes)
    busy = replace(DEVICE, environment={"other_load": 1.3})
    (note,) = run_channels(Work(SMALL, 32, COARSE), busy, FormulaTimer()).notes
    assert note.startswith("other processes kept 1.3 cores busy")
    (note,) = run_channels(Work(SMALL, 32, COARSE), DEVICE, FormulaTimer(slower=2.0)).notes
    assert "2.0" in note and "Measure again" in note


class Drifting(FormulaTimer):
    """Everything takes half as long again once it has been called 20 times."""

    def __call__(self, models, duration_s):  # type: ignore[no-untyped-def]
        samples = super().__call__(models, duration_s)
        late = 1.5 if len(self.calls) > 20 else 1.0
        return {key: replace(sample, ms=late * sample.ms, high_ms=late * sample.high_ms) for key, sample in samples.items()}


def test_a_drift_of_the_machine_is_told() -> None:
    measured = run_channels(Work(SMALL, 32, COARSE), DEVICE, Drifting())
    assert any("drifted: whole networks took +50%" in note for note in measured.notes)
    for network in measured.table.settings[WHOLE]:  # the mean of before and after
        plan = ChannelPlan(network["name"], network["channels"])
        assert network["ms"] == pytest.approx(1.25 * model_ms(network_model(SMALL, plan, 32)))


def test_what_is_recorded(measured: LayerMeasurement) -> None:
    table = measured.table
    assert (table.device, table.backend, table.batch, table.threads) == ({"name": "a formula"}, "onnxruntime-cpu", 1, 2)
    assert table.environment == {"cpu": "a formula"} and table.settings["grid"]["points"] == 3
    for network in table.settings[WHOLE]:
        plan = ChannelPlan(network["name"], network["channels"])
        assert network["ms"] == pytest.approx(model_ms(network_model(SMALL, plan, 32)))
    assert table.network.stem_stride == 1
    table.check_network(SMALL, 32)


def test_differences_below_zero_are_nothing() -> None:
    class Odd(FormulaTimer):
        def __call__(self, models, duration_s):  # type: ignore[no-untyped-def]
            samples = super().__call__(models, duration_s)
            return {key: replace(sample, ms=sample.ms * self.draw.uniform(0.5, 1)) for key, sample in samples.items()}

    taken = []
    table = run_channels(
        Work(SMALL, 32, COARSE), DEVICE, Odd(), taken=lambda purpose, entry, time: taken.append(time.ms)
    ).table
    assert min(taken) < 0 and min(ms for times in table.times for row in times.ms for ms in row) == 0


def test_lines_are_fitted_in_relative_terms() -> None:
    x = [1.0, 4.0, 10.0]
    assert fit_line(x, [0.5 + 2 * place for place in x]) == pytest.approx((0.5, 2))
    assert fit_line([3.0], [6.0]) == (0.0, 2.0)
    assert fit_line([3.0, 3.0], [6.0, 6.0]) == pytest.approx((0.0, 2.0))
    constant, factor = fit_line(x, [-0.5 + place for place in x])
    assert constant == 0 and 0.5 < factor < 1
    y = [1.1, 3.9, 10.4]
    constant, factor = fit_line(x, y)

    def off(a: float, b: float) -> float:
        return sum(((a + b * s) / t - 1) ** 2 for s, t in zip(x, y, strict=True))

    around = [(constant + da, factor + db) for da in (-1e-3, 0, 1e-3) for db in (-1e-3, 0, 1e-3)]
    assert min(around, key=lambda place: off(*place)) == (constant, factor)
