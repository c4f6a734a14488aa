"""The room that int8 files take: at most 0.30 of fp32's, also of the narrowest widths, where names and scales weigh most."""

from __future__ import annotations

import pytest

from slimexport.job import Job
from slimexport.onnx_files.calibration import Calibration
from slimexport.target.precision import files_of
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.costs.cost import CostCounter
from slimtrain.data.images import preprocessing_of
from slimtrain.data.noise import noise_images
from slimtrain.models.published import published_spec
from slimtrain.models.spec import NetworkSpec
from tests.support.run_helpers import network_of
from tests.support.slimtrain_states import PUBLISHED

SIZE = 32  # sizes do not depend on it, nor on the images
MOST = 0.30


@pytest.mark.parametrize("name", PUBLISHED)
def test_int8_files_of_the_narrowest_width_are_at_most_0_30_of_fp32s(name: str) -> None:
    spec = published_spec(name)
    narrowest = min(spec.plans, key=lambda plan: sum(plan.channels.values()))
    if spec.family == "us":  # a dense network of a width is that of one switch: no 31 norms
        spec = NetworkSpec(spec.architecture, "s", (narrowest.width or 0,))
        (narrowest,) = spec.plans
    checkpoint = Checkpoint(f"{name}.pt", None, network_of(spec))
    job = Job(
        checkpoint,
        preprocessing_of(checkpoint, SIZE),
        CostCounter(spec, SIZE),
        noise_images(1, SIZE),
        (*files_of("fp32"), *files_of("int8")),
        Calibration.of([noise_images(2, SIZE)], "max"),
    )
    sizes = {artifact.precision: len(content) for artifact, content, _ in job.emit(narrowest)}
    assert {"int8", "int8-cpu", "int8-fp16"} < sizes.keys()
    shares = {precision: round(size / sizes["fp32"], 4) for precision, size in sizes.items() if precision != "fp32"}
    assert max(shares.values()) <= MOST, shares
    assert min(shares.values()) > 0.25, "weights of 8 bits take a quarter"
