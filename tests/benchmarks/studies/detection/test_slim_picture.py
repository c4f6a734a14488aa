"""The picture of what slimming buys: both lines begin at the whole, bars are as high as their parts together."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="pip install '.[plots]'")

from matplotlib.text import Text

from benchmarks.studies.detection.slim_picture import slim_figure

ROWS = [
    {"slim": "backbone", "width": 0.5, "macs": 8e9, "ms": 8.0, "parts": {"backbone": 3.0, "FPN": 5.0}},
    {"slim": "backbone", "width": 1.0, "macs": 12e9, "ms": 20.0, "parts": {"backbone": 12.0, "FPN": 8.0}},
    {"slim": "all", "width": 0.5, "macs": 3e9, "ms": 5.0, "parts": {"backbone": 3.0, "FPN": 2.0}},
]


def test_lines_share_the_whole_and_bars_are_of_the_narrowest() -> None:
    figure = slim_figure(ROWS, "800x1344", "320x544", "a GPU", "onnxruntime-cuda")
    macs, latency, parts = figure.axes
    said = " ".join(text.get_text() for text in figure.findobj(Text))
    assert "on a GPU" in said and "onnxruntime-cuda, fp32, batch 1" in said
    for axes, whole, values in ((macs, 12.0, (8.0, 3.0)), (latency, 20.0, (8.0, 5.0))):
        drawn = [np.asarray(line.get_xydata()).tolist() for line in axes.get_lines()]
        assert drawn == [[[0.5, pytest.approx(value)], [1.0, pytest.approx(whole)]] for value in values]
    assert {text.get_text() for text in macs.texts} == {"1.5x", "4x"}
    tops = [max(bar.get_y() + bar.get_height() for bar in bars) for bars in zip(*parts.containers, strict=True)]
    assert tops == [20.0, 8.0, 5.0]
    assert [tick.get_text() for tick in parts.get_xticklabels()] == ["1.0x", "0.5x\nbackbone alone", "0.5x\nall"]
