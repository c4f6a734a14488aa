"""A detector's bundle served: every answer is what the file of its width gives of these images, whatever ran with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slimexport.target.manifest import read_manifest
from slimexport.target.serving.errors import RequestError
from slimexport.target.serving.runtime import Runtime
from tests.support.exported_detectors import DETECTIONS, assert_alike, given_by, noise
from tests.support.serving_helpers import FOREVER_MS, WAIT


@pytest.mark.parametrize("label", ["0.5", "1"])
def test_answers_are_the_detections_of_the_file_of_their_width(detector_bundle: Path, label: str) -> None:
    batch = noise(3)
    file = next(a.file for a in read_manifest(detector_bundle).artifacts if a.width == float(label))
    expected = given_by(detector_bundle / file, batch)
    assert expected["count"].any(), "there is something to find"
    with Runtime(detector_bundle, policy=f"fixed:{label}", batches=[1, 4]) as runtime:
        several = runtime.submit(batch, FOREVER_MS).result(**WAIT)
        single = runtime.submit(batch[1], FOREVER_MS).result(**WAIT)
    assert (several.name, several.batch, single.name) == (label, 3, label)
    assert isinstance(several.output, dict) and isinstance(single.output, dict)
    assert_alike(several.output, expected)
    assert single.output["boxes"].shape == (DETECTIONS, 4) and single.output["count"].shape == ()
    assert_alike(
        {name: np.asarray(rows)[None] for name, rows in single.output.items()}, given_by(detector_bundle / file, batch[1:2])
    )


@pytest.mark.parametrize("shape", [(3, 96, 96), (3, 32, 32), (1, 64, 64), (2, 3, 64, 96)])
def test_images_of_another_size_are_refused_by_what_they_should_be(detector_bundle: Path, shape: tuple[int, ...]) -> None:
    with Runtime(detector_bundle, widths=[0.5], batches=[1]) as runtime, pytest.raises(RequestError, match="shape") as refused:
        runtime.submit(np.zeros(shape, np.float32))
    assert str(refused.value) == f"an input of shape {list(shape)}, expected [3, 64, 64] or [N, 3, 64, 64]."
