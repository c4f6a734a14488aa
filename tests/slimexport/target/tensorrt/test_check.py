"""How near an engine must come: its precision's proof, and what its ONNX file reached."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from slimexport.target.precision import Direction
from slimexport.target.reference import Probes
from slimexport.target.tensorrt.check import NOTHING, check_engine, direction_limits
from slimexport.target.verification import Verification


def test_an_int8_engine_is_held_to_what_its_file_reached() -> None:
    cases: list[tuple[Verification, int, tuple[float, float]]] = [
        (NOTHING, 4, (0.99, 0.75)),
        (Verification(status="passed", cosine=0.999, top1_agreement=0.5), 4, (0.989, 0.25)),
        (Verification(status="passed", cosine=1.0), 100, (0.99, 0.99)),
        (Verification(status="passed", cosine=0.9, top1_agreement=0.0), 2, (0.97, 0.0)),
    ]
    for source, probes, limits in cases:
        np.testing.assert_allclose(direction_limits(Direction(), source, probes), limits)


@pytest.mark.parametrize(("flipped", "status"), [(0, "passed"), (1, "passed"), (2, "failed")])
def test_int8_may_choose_another_class_for_one_image(flipped: int, status: str) -> None:
    """Two classes are nearly equal, so that a small rounding changes the choice and hardly the direction."""
    logits = np.tile([1.0, 0.999, -2.0, 0.3], (4, 1)) + np.linspace(0, 0.5, 4)[:, None]
    outputs = logits.copy()
    outputs[:flipped, 1] += 0.01

    class Fixed:
        backend = "tensorrt"

        def __call__(self, images: Any) -> Any:
            return outputs[images[:, 0, 0, 0].astype(int)]

    images = np.tile(np.arange(4, dtype=np.float32)[:, None, None, None], (1, 3, 2, 2))
    source = Verification(status="passed", cosine=0.999, top1_agreement=1.0)
    check = check_engine(Fixed(), Probes.of(images, logits), "int8", [1, 8], source)
    assert check.status == status
    assert check.top1_agreement == 1 - flipped / 4
