"""Models timed in the real onnxruntime."""

from __future__ import annotations

import pytest

from benchmarks.cells.backends import TENSORRT
from benchmarks.cells.cell import NotMeasured
from benchmarks.layers.model_timer import TABLE_BACKENDS, Model, ModelTimer
from benchmarks.onnx_models.layer import with_layer, without_layer
from tests.support.bench_models import LAYERS
from tests.support.channel_fakes import START_MS, model_ms


def test_a_real_timer_measures_and_refuses() -> None:
    pytest.importorskip("onnxruntime")
    layer = LAYERS["pointwise"]
    timer = ModelTimer("onnxruntime-cpu", 2, 1)
    models = {"with": Model(7, lambda: with_layer(layer, 24, 40)), "without": Model(7, lambda: without_layer(layer, 24))}
    samples = timer(models, 0.01)
    assert set(samples) == set(models) and all(0 < sample.ms <= sample.high_ms for sample in samples.values())
    assert timer.settings["threads"] == 1 and timer.settings["provider"] == "CPUExecutionProvider"
    with pytest.raises(NotMeasured, match=f"Choose from {', '.join(TABLE_BACKENDS)}"):
        ModelTimer(TENSORRT, 1, 1)(models, 0.01)
    with pytest.raises(NotMeasured, match="bad: "):
        timer({"bad": Model(7, lambda: b"no model")}, 0.01)
    assert model_ms(models["with"].make()) > START_MS
