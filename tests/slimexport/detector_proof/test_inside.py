"""A detector's file with its inner values in the open."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest

from slimexport.detector_proof import inside as module
from slimexport.detector_proof.inside import Inside
from slimexport.onnx_files.runner import cpu_session
from slimtrain.models.detector import FASTER, KEYPOINT, MASK
from tests.support.detector_files import detector_file


def test_one_session_is_open_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    file = detector_file(FASTER)
    sessions: list[weakref.ref[Any]] = []
    alive = []

    def watched(*arguments: Any, **named: Any) -> Any:
        alive.append(sum(session() is not None for session in sessions))
        session = whole(*arguments, **named)
        sessions.append(weakref.ref(session))
        return session

    whole = cpu_session
    monkeypatch.setattr(module, "cpu_session", watched)
    inside = Inside(file.model)
    values = inside.run(file.images)
    again = inside.run(file.images[:1])
    rows = values["rows"]
    given = inside.of({"rows": rows}, file.images, ["class_logits"])
    inside.of({"rows": rows}, file.images, ["class_logits"])
    inside.run(file.images)
    assert alive == [0, 0, 0]
    np.testing.assert_allclose(given["class_logits"], values["class_logits"], atol=1e-6)
    assert len(again["rows"]) * len(file.images) == len(rows)


@pytest.mark.parametrize("kind", [FASTER, MASK, KEYPOINT])
def test_in_stages_a_file_gives_what_it_does_at_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = detector_file(kind)
    inside = Inside(file.model)
    whole = inside.run(file.images)
    monkeypatch.setattr(module, "LARGE", 0)
    staged = inside.run(file.images)
    assert staged.keys() == whole.keys() and len(inside._stages) == (4 if kind == FASTER else 6)
    for name in ("objectness0", "rows", "class_logits", "boxes", "scores", "labels", "count", "settled"):
        np.testing.assert_allclose(staged[name], whole[name], rtol=0, atol=1e-3, err_msg=name)
