"""How a detector's files may end."""

from __future__ import annotations

import pytest

from slimexport.detectors import form
from slimexport.detectors.form import Detecting
from slimtrain.base.errors import UserError
from slimtrain.detection.fixed import whole


def test_ends_are_those_that_there_are_graphs_of() -> None:
    assert form.NMS == whole.NMS
    assert (form.FIXED, form.ONNX, form.NONE, form.TRT) == (whole.FIXED, whole.ONNX, whole.NONE, whole.TRT)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match=r"nms 'fixd': not known \(did you mean 'fixed'"):
        Detecting("fixd")
    for score in (-0.1, 1.0, float("nan")):
        with pytest.raises(UserError, match="score threshold"):
            Detecting(score=score)
    for detections in (0, 10_001):
        with pytest.raises(UserError, match="detections: expected 1 to 10,000"):
            Detecting(detections=detections)
