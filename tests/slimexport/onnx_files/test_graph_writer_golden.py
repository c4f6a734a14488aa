"""All 86 switches and widths of the ten published networks: exported ONNX in onnxruntime gives the golden logits.

The golden logits (tests/reference/golden) were computed in float64 by code that is not this project's. On the way
every file is put through the full checker and strict shape inference, and its size is held against its weights'.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from slimtrain.costs.cost import CostCounter
from tests.support import TESTS
from tests.support.export_helpers import check_onnx, opened, run_onnx
from tests.support.onnx_writing import plan_onnx

NETWORKS = {
    "s_mobilenet_v1": 4,
    "s_mobilenet_v2": 4,
    "s_resnet50": 4,
    "s_shufflenet": 3,
    "us_mobilenet_v1": 31,
    "us_mobilenet_v2": 27,
    "autoslim_mobilenet_v1": 3,
    "autoslim_mobilenet_v2": 3,
    "autoslim_mnasnet": 3,
    "autoslim_resnet50": 4,
}
OVERHEAD = 120_000  # bytes that a file may have beyond its weights


@dataclass(frozen=True)
class ExportedFile:
    """One exported file next to what it should be."""

    switch: str
    error: float
    top1: bool
    size: int
    params: int
    external: int


@pytest.fixture(scope="module", params=NETWORKS)
def exported(
    request: pytest.FixtureRequest, checkpoint_path: Callable[[str], Path], golden_images: NDArray[Any]
) -> tuple[str, list[ExportedFile]]:
    name: str = request.param
    checkpoint = opened(checkpoint_path(name))
    results, count = [], CostCounter(checkpoint.spec, 224)
    with np.load(TESTS / "reference" / "golden" / f"{name}.npz") as golden:
        assert len(golden.files) == len(checkpoint.spec.plans)
        for plan in checkpoint.spec.plans:
            content = plan_onnx(checkpoint.network, plan, 224).SerializeToString()
            external = sum(tensor.data_location for tensor in check_onnx(content).graph.initializer)
            logits, reference = run_onnx(content, golden_images), golden[str(plan.width)]
            assert logits.dtype == np.float32 and logits.shape == reference.shape
            results.append(
                ExportedFile(
                    str(plan.width),
                    float(np.abs(logits - reference).max() / np.abs(reference).max()),
                    bool((logits.argmax(1) == reference.argmax(1)).all()),
                    len(content),
                    count(plan).params,
                    external,
                )
            )
    return name, results


def test_every_switch_gives_the_golden_logits_to_1e_5_of_their_scale(exported: tuple[str, list[ExportedFile]]) -> None:
    name, results = exported
    assert len(results) == NETWORKS[name]
    assert {result.switch: result.error for result in results if not result.error <= 1e-5} == {}
    assert all(result.top1 for result in results)


def test_every_file_is_one_file_as_large_as_its_weights(exported: tuple[str, list[ExportedFile]]) -> None:
    for result in exported[1]:
        assert 4 * result.params < result.size <= 4 * result.params + OVERHEAD, result
        assert result.external == 0, result


def test_there_are_86_switches() -> None:
    assert sum(NETWORKS.values()) == 86
