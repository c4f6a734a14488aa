"""onnxruntime's ceilings: on this CPU, and on a made-up GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.ceilings import onnxruntime as ceilings_onnxruntime
from benchmarks.ceilings.measuring import measure_ceilings
from benchmarks.cells.backends import BACKENDS, ONNXRUNTIME_CPU, ONNXRUNTIME_CUDA
from benchmarks.cells.cell import Options
from benchmarks.runners import ort
from tests.support.bench_ceilings import NAMES, TWO_MS, plausible, product_or_chain
from tests.support.cuda_fake import L2_CACHE_BYTES, FakeCudart
from tests.support.gpu_fakes import Runtime, fake_onnxruntime


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_what_is_timed_in_onnxruntime_is_one_whole_product(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    """Computed again with numpy: no figure of a product that is smaller, or that the session has folded away."""
    ran: list[tuple[dict[str, Any], Any]] = []
    real = ort.open_session

    def opened(*args: Any) -> Any:
        session = real(*args)

        def run(names: Any, feed: dict[str, Any]) -> Any:
            ran.append((feed, session.run(names, feed)[0]))

        return SimpleNamespace(run=run)

    monkeypatch.setattr(ceilings_onnxruntime, "open_session", opened)
    with BACKENDS[ONNXRUNTIME_CPU].open_probe(precision, Options(threads=1)) as probe, probe.product(96) as clocked:
        assert ran == []
        for _ in range(2):
            assert clocked() > 0
    assert len(ran) == 2
    for feed, result in ran:
        a, b = (feed[name].astype(np.float64) for name in ("a", "b"))
        assert a.shape == b.shape == result.shape == (96, 96)
        assert all(matrix.std() > 0.5 and np.unique(matrix).size > 200 for matrix in (a, b))
        np.testing.assert_allclose(result.astype(np.float64), a @ b, rtol=0, atol=0.05 if precision == "fp16" else 1e-4)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_onnxruntime_on_the_cpu(quick: None, precision: str) -> None:
    ceilings = measure_ceilings(ONNXRUNTIME_CPU, precision, Options(threads=1), seconds=0.01)
    plausible(ceilings)
    assert (ceilings.how["device"], ceilings.how["threads"]) == ("cpu", 1)
    assert ceilings.how["library"].startswith("onnxruntime ")


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_onnxruntime_on_the_cpu_has_no_ceiling_where_it_has_no_product(precision: str) -> None:
    ceilings = measure_ceilings(ONNXRUNTIME_CPU, precision, Options(), seconds=0.01)
    assert (ceilings.macs_per_s, ceilings.bytes_per_s, ceilings.seconds_per_operator) == (None, None, None)
    assert set(ceilings.how["unavailable"]) == set(NAMES)


@pytest.mark.parametrize("threads", [1, 2])
def test_onnxruntime_has_the_threads_that_are_measured(monkeypatch: pytest.MonkeyPatch, quick: None, threads: int) -> None:
    counts: list[int] = []
    real = ort.open_session

    def opened(*args: Any) -> Any:
        session = real(*args)
        counts.append(session.get_session_options().intra_op_num_threads)
        return session

    monkeypatch.setattr(ceilings_onnxruntime, "open_session", opened)
    measure_ceilings(ONNXRUNTIME_CPU, "fp32", Options(threads=threads), seconds=0.001)
    assert len(counts) >= 3 and set(counts) == {threads}


@pytest.mark.parametrize(("precision", "kind"), [("fp32", np.float32), ("tf32", np.float32), ("fp16", np.float16)])
def test_onnxruntime_on_cuda(monkeypatch: pytest.MonkeyPatch, tiny: None, precision: str, kind: Any) -> None:
    seen: list[Any] = []

    def model(values: dict[str, Any]) -> dict[str, Any]:
        seen.extend(values.values())
        return product_or_chain(values)

    runtime = Runtime(FakeCudart(), model)
    fake_onnxruntime(monkeypatch, runtime)
    ceilings = measure_ceilings(ONNXRUNTIME_CUDA, precision, Options(), seconds=0.001)
    assert ceilings.macs_per_s == pytest.approx(32**3 / TWO_MS)
    assert ceilings.bytes_per_s == pytest.approx(2 * (1 << 16) / TWO_MS)
    assert ceilings.how["bytes_per_s"]["cache_bytes"] == L2_CACHE_BYTES
    assert ceilings.seconds_per_operator is None  # events are 2 ms apart whatever is between them
    assert not runtime.library.leaks and not runtime.outlived
    assert all(values.dtype == kind and values.std() > 0.5 for values in seen)
    assert {opened[2].get("use_tf32") for opened in runtime.opened[1:]} == {"1" if precision == "tf32" else "0"}


@pytest.mark.parametrize("precision", ["bf16", "int8", "int8-fp16"])
def test_onnxruntime_on_cuda_has_none_in_other_precisions(monkeypatch: pytest.MonkeyPatch, tiny: None, precision: str) -> None:
    fake_onnxruntime(monkeypatch, Runtime(FakeCudart(), product_or_chain))
    ceilings = measure_ceilings(ONNXRUNTIME_CUDA, precision, Options(), seconds=0.001)
    assert ceilings.macs_per_s is None and ceilings.how["unavailable"]["macs_per_s"]


@pytest.mark.parametrize("function", ["cudaMalloc", "cudaMemcpyAsync", "cudaEventElapsedTime"])
def test_a_gpu_that_fails_is_a_reason_and_nothing_leaks(monkeypatch: pytest.MonkeyPatch, tiny: None, function: str) -> None:
    runtime = Runtime(FakeCudart(), product_or_chain)
    fake_onnxruntime(monkeypatch, runtime)
    runtime.library.failing[function] = 2
    ceilings = measure_ceilings(ONNXRUNTIME_CUDA, "fp32", Options(), seconds=0.001)
    assert set(ceilings.how["unavailable"]) == set(NAMES)
    assert "cudaErrorMemoryAllocation" in ceilings.how["unavailable"]["bytes_per_s"]
    assert runtime.library.leaks == []
