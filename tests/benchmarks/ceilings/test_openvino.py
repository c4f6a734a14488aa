"""OpenVINO's ceilings on this CPU: products that are computed whole, in the numbers that are asked for."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.ceilings.measuring import measure_ceilings
from benchmarks.ceilings.openvino import NO_CHAIN, NO_PRODUCT, OnCpu
from benchmarks.cells.backends import BACKENDS, OPENVINO
from benchmarks.cells.cell import Array, NotMeasured, Options

openvino = pytest.importorskip("openvino")


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("fp16", 0.05), ("bf16", 0.5)])
def test_what_is_timed_is_one_whole_product(monkeypatch: pytest.MonkeyPatch, precision: str, tolerance: float) -> None:
    """The tensors that OpenVINO is given and what it gives, multiplied again with numpy."""
    tensors = []
    real = OnCpu._tensor

    def kept(self: OnCpu, matrix: Array) -> object:
        tensors.append(matrix)
        return real(self, matrix)

    monkeypatch.setattr(OnCpu, "_tensor", kept)
    requests = []
    create = openvino.CompiledModel.create_infer_request

    def created(compiled: object) -> object:
        requests.append(create(compiled))
        return requests[-1]

    monkeypatch.setattr(openvino.CompiledModel, "create_infer_request", created)
    with BACKENDS[OPENVINO].open_probe(precision, Options(threads=1)) as probe, probe.product(96) as clocked:
        assert clocked() > 0
    given = requests[0].get_output_tensor().data
    a, b = (_floats(matrix) for matrix in tensors)
    result = _floats(given.view(np.uint16) if precision == "bf16" else given)
    assert result.shape == (96, 96)
    np.testing.assert_allclose(result, a @ b, rtol=0.01, atol=tolerance)


def _floats(matrix: Array) -> Array:
    """Numbers as float64; bfloat16 comes as its bits."""
    if matrix.dtype == np.uint16:
        return (matrix.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return matrix.astype(np.float64)


def test_products_and_copies_are_measured_and_the_rest_says_why_not(quick: None) -> None:
    ceilings = measure_ceilings(OPENVINO, "fp32", Options(threads=1), seconds=0.01)
    assert ceilings.macs_per_s is not None and ceilings.macs_per_s > 1e6
    assert ceilings.bytes_per_s is not None and ceilings.seconds_per_operator is None
    assert ceilings.how["unavailable"] == {"seconds_per_operator": NO_CHAIN}
    assert (ceilings.how["threads"], ceilings.how["precision_hint"]) == (1, "f32")


@pytest.mark.parametrize("precision", ["int8", "int8-cpu", "int8-fp16"])
def test_a_product_of_integers_is_no_ceiling(precision: str) -> None:
    with (
        BACKENDS[OPENVINO].open_probe(precision, Options()) as probe,
        pytest.raises(NotMeasured, match=NO_PRODUCT),
        probe.product(64),
    ):
        pass


def test_cpus_have_no_tf32() -> None:
    with pytest.raises(NotMeasured, match="no TF32"), BACKENDS[OPENVINO].open_probe("tf32", Options()):
        pass
