"""TensorRT's ceilings on a made-up board."""

from __future__ import annotations

import pytest

from benchmarks.ceilings import tensorrt as ceilings_tensorrt
from benchmarks.ceilings.measuring import measure_ceilings
from benchmarks.cells.backends import TENSORRT
from benchmarks.cells.cell import Options
from tests.support.bench_ceilings import TWO_MS, product_engines
from tests.support.code_lines import function_lines, lines_run
from tests.support.trt_fake import VERSIONS
from tests.support.trt_helpers import machine


@pytest.mark.parametrize("cuda_graph", [True, False])
@pytest.mark.parametrize("version", VERSIONS)
def test_tensorrt(monkeypatch: pytest.MonkeyPatch, tiny: None, version: str, cuda_graph: bool) -> None:
    board = machine(monkeypatch, version)
    parsed = product_engines(board, monkeypatch)
    ceilings = measure_ceilings(TENSORRT, "fp16", Options(cuda_graph=cuda_graph), seconds=0.001)
    assert ceilings.macs_per_s == pytest.approx(32**3 / TWO_MS)
    assert ceilings.bytes_per_s == pytest.approx(2 * (1 << 16) / TWO_MS)
    assert ceilings.how["cuda_graph"] is cuda_graph
    assert ceilings.how["library"] == f"TensorRT {board.trt.__version__}"
    assert ("cudaGraphLaunch" in board.library.calls) is cuda_graph
    assert len(parsed) == 4  # two products, two chains
    flags = board.behaviour.configs[-1]._flags
    assert ("FP16" in flags) is (version == "8.6.0")
    assert board.library.leaks == []


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", False), ("tf32", True)])
def test_tensorrts_fp32_is_not_tf32(monkeypatch: pytest.MonkeyPatch, tiny: None, precision: str, tf32: bool) -> None:
    board = machine(monkeypatch)
    product_engines(board, monkeypatch)
    assert measure_ceilings(TENSORRT, precision, Options(), seconds=0.001).macs_per_s
    assert {"TF32" in config._flags for config in board.behaviour.configs} == {tf32}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_chain_that_tensorrt_fuses_tells_nothing(monkeypatch: pytest.MonkeyPatch, tiny: None, version: str) -> None:
    product_engines(machine(monkeypatch, version), monkeypatch, layers=3)
    ceilings = measure_ceilings(TENSORRT, "fp32", Options(), seconds=0.001)
    assert ceilings.seconds_per_operator is None
    assert ceilings.how["unavailable"]["seconds_per_operator"].startswith("TensorRT fuses 16 products into 3 layers")


@pytest.mark.parametrize(("version", "precision"), [("10.3.0", "int8"), ("8.6.0", "bf16")])
def test_tensorrt_has_no_ceiling_where_it_has_no_product(
    monkeypatch: pytest.MonkeyPatch, tiny: None, version: str, precision: str
) -> None:
    product_engines(machine(monkeypatch, version), monkeypatch)
    ceilings = measure_ceilings(TENSORRT, precision, Options(), seconds=0.001)
    assert ceilings.macs_per_s is None and precision in ceilings.how["unavailable"]["macs_per_s"]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_engine_that_does_not_run_or_is_not_built_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, tiny: None, version: str
) -> None:
    board = machine(monkeypatch, version)
    product_engines(board, monkeypatch)
    board.behaviour.runs = False
    ceilings = measure_ceilings(TENSORRT, "fp32", Options(), seconds=0.001)
    assert "does not run it" in ceilings.how["unavailable"]["macs_per_s"]
    assert ceilings.bytes_per_s
    with monkeypatch.context() as patch:
        patch.setattr(board.trt.IExecutionContext, "set_tensor_address", lambda *_: False)
        ceilings = measure_ceilings(TENSORRT, "fp32", Options(), seconds=0.001)
    assert "does not take an address for a" in ceilings.how["unavailable"]["macs_per_s"]
    monkeypatch.setattr(board.trt.Builder, "build_serialized_network", lambda *_: None)
    ceilings = measure_ceilings(TENSORRT, "fp32", Options(), seconds=0.001)
    assert "builds no fp32 product" in ceilings.how["unavailable"]["macs_per_s"]
    assert board.library.leaks == []


def test_the_tests_of_tensorrts_ceilings_leave_no_line_out(tiny: None) -> None:
    """On stand-ins that refuse what their version lacks, so that no version is asked for what it has not."""
    tests = (test_a_chain_that_tensorrt_fuses_tells_nothing, test_an_engine_that_does_not_run_or_is_not_built_is_a_reason)
    with lines_run(ceilings_tensorrt) as seen:
        for version in VERSIONS:
            for test in tests:
                with pytest.MonkeyPatch.context() as monkeypatch:
                    test(monkeypatch, tiny, version)
            for cuda_graph in (True, False):
                with pytest.MonkeyPatch.context() as monkeypatch:
                    test_tensorrt(monkeypatch, tiny, version, cuda_graph)
        for version, precision in (("10.3.0", "int8"), ("10.3.0", "bf16")):
            with pytest.MonkeyPatch.context() as monkeypatch:
                product_engines(machine(monkeypatch, version), monkeypatch)
                measure_ceilings(TENSORRT, precision, Options(), seconds=0.001)
    left_out = function_lines(ceilings_tensorrt) - seen[ceilings_tensorrt.__name__]
    assert not left_out, f"no test runs the lines {sorted(left_out)}"
