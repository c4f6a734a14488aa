"""torch's ceilings on this CPU: whole products, and chains that run as networks do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.ceilings.measuring import measure_ceilings
from benchmarks.cells.backends import BACKENDS, SLIMMABLE, TORCH_COMPILE, TORCH_EAGER, TORCH_GRAPH
from benchmarks.cells.cell import Options
from benchmarks.onnx_models.tiny import orthogonal
from tests.support.bench_ceilings import plausible


def test_what_is_timed_in_torch_is_one_whole_product(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[Any, Any, Any]] = []
    real = torch.mm

    def mm(a: Any, b: Any, out: Any) -> Any:
        real(a, b, out=out)
        ran.append((a.clone(), b.clone(), out.clone()))

    monkeypatch.setattr(torch, "mm", mm)
    with BACKENDS[TORCH_EAGER].open_probe("fp32", Options(threads=1)) as probe, probe.product(96) as clocked:
        ran.clear()
        for _ in range(2):
            assert clocked() > 0
    assert len(ran) == 2
    for a, b, result in ran:
        assert a.shape == b.shape == result.shape == (96, 96)
        assert all(matrix.std() > 0.5 and matrix.unique().numel() > 200 for matrix in (a, b))
        torch.testing.assert_close(result.double(), a.double() @ b.double(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("backend", [TORCH_EAGER, SLIMMABLE])
def test_torch_on_the_cpu(quick: None, backend: str) -> None:
    before = torch.get_num_threads(), torch.is_inference_mode_enabled()
    ceilings = measure_ceilings(backend, "fp32", Options(threads=1), seconds=0.01)
    plausible(ceilings)
    assert ceilings.how["library"] == f"torch {torch.__version__}"
    assert (torch.get_num_threads(), torch.is_inference_mode_enabled()) == before


def test_torchs_failures_are_reasons_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    real = torch.mm

    def mm(a: Any, b: Any, out: Any = None) -> Any:
        if len(a) > 64:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return real(a, b) if out is None else real(a, b, out=out)

    monkeypatch.setattr(torch, "mm", mm)
    ceilings = measure_ceilings(TORCH_EAGER, "fp32", Options(), seconds=0.001)
    assert ceilings.how["macs_per_s"]["size"] == 64
    assert ceilings.bytes_per_s and ceilings.seconds_per_operator

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(torch, "mm", broken)
    ceilings = measure_ceilings(TORCH_EAGER, "fp32", Options(), seconds=0.001)
    assert set(ceilings.how["unavailable"]) == {"macs_per_s", "seconds_per_operator"}
    assert "no such kernel" in ceilings.how["unavailable"]["macs_per_s"]
    assert ceilings.bytes_per_s


@pytest.mark.parametrize(("backend", "run"), [(TORCH_EAGER, False), (SLIMMABLE, False), (TORCH_COMPILE, True)])
def test_chains_in_torch_run_as_networks_do(monkeypatch: pytest.MonkeyPatch, backend: str, run: bool) -> None:
    compiled: list[Any] = []

    def compiling(function: Any) -> Any:
        compiled.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compiling)
    with BACKENDS[backend].open_probe("fp32", Options()) as probe, probe.chain(4) as clocked:
        assert clocked() > 0
    assert bool(compiled) is run
    if run:
        with torch.inference_mode():
            product = compiled[0]().numpy()
            first = product @ np.linalg.inv(np.linalg.matrix_power(orthogonal(), 4))
        assert np.abs(first).max() < 10  # four products with an orthogonal matrix: as large as random values are


@pytest.mark.parametrize(
    ("backend", "precision", "reason"),
    [(TORCH_GRAPH, "fp32", "need a GPU"), (TORCH_EAGER, "int8", "no int8"), (TORCH_EAGER, "tf32", "no tf32 products on cpu")],
)
def test_torch_without_such_a_product_says_so(backend: str, precision: str, reason: str) -> None:
    ceilings = measure_ceilings(backend, precision, Options(), seconds=0.01)
    assert ceilings.macs_per_s is None
    assert reason in ceilings.how["unavailable"]["macs_per_s"]
