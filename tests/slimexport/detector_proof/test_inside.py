"""A detector's file with its inner values in the open."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest

from slimexport.detector_proof import inside as module
from slimexport.detector_proof.inside import Inside
from slimtrain.models.detector import FASTER
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

    whole = module.cpu_session
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
