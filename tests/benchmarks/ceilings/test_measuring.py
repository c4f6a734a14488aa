"""Ceilings: the fastest of many, at a size that takes long enough, and None with a reason where there is none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.ceilings import copies
from benchmarks.ceilings import measuring as ceilings
from benchmarks.ceilings import onnxruntime as ceilings_onnxruntime
from benchmarks.ceilings import tensorrt as ceilings_tensorrt
from benchmarks.ceilings import torch as ceilings_torch
from benchmarks.ceilings.copies import copy_on_cpu, copy_size
from benchmarks.ceilings.measuring import Ceilings, best, measure_ceilings, samples
from benchmarks.ceilings.probe import Clocked, Copying, noise, require_room
from benchmarks.cells.cell import (
    ONNXRUNTIME_CPU,
    ONNXRUNTIME_CUDA,
    SLIMMABLE,
    TENSORRT,
    TORCH_COMPILE,
    TORCH_EAGER,
    TORCH_GRAPH,
    NotMeasured,
    Options,
)
from benchmarks.onnx_models.tiny import orthogonal
from benchmarks.runners import ort
from slimexport.target.cuda.runtime import Cuda
from tests.support.code_lines import function_lines, lines_run
from tests.support.cuda_fake import L2_CACHE_BYTES, FakeCudart
from tests.support.gpu_fakes import Runtime, fake_onnxruntime
from tests.support.trt_fake import VERSIONS, inventory_of
from tests.support.trt_helpers import Machine, machine

NAMES = ("macs_per_s", "bytes_per_s", "seconds_per_operator")


@dataclass
class Scripted:
    """A probe whose every duration is a test's: `rate` MACs per second, `speed` bytes per second, `each` per operator."""

    rate: float = 1e9
    speed: float = 1e8
    each: float = 1e-5
    call: float = 1e-3
    sizes: tuple[int, ...] = (64, 128, 256, 512, 1024)
    lengths: tuple[int, int] = (10, 50)
    how: Mapping[str, Any] = field(default_factory=lambda: {"library": "scripted"})
    cache: int = 300
    most: int = 10**6  # the largest matrix that there is room for
    noise: tuple[float, ...] = (3.0, 1.0, 2.0)
    asked: list[tuple[str, int]] = field(default_factory=list)

    def _clocked(self, seconds: float) -> Clocked:
        drawn = iter(self.noise * 10_000)
        return lambda: seconds * next(drawn)

    @contextmanager
    def product(self, size: int) -> Iterator[Clocked]:
        self.asked.append(("product", size))
        if size > self.most:
            raise NotMeasured(f"no room for {size}")
        yield self._clocked(size**3 / self.rate)

    @contextmanager
    def copy(self) -> Iterator[Copying]:
        yield Copying(self._clocked(1000 / self.speed), 1000, self.cache)

    @contextmanager
    def chain(self, length: int) -> Iterator[Clocked]:
        self.asked.append(("chain", length))
        yield self._clocked(self.call + length * self.each)


def measured(monkeypatch: pytest.MonkeyPatch, probe: Scripted) -> Ceilings:
    @contextmanager
    def opened(*_: Any) -> Iterator[Scripted]:
        yield probe

    monkeypatch.setattr(ceilings, "open_probe", opened)
    return measure_ceilings("any", "fp32", Options(), seconds=0.001)


def test_the_fastest_sample_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(monkeypatch, Scripted())
    assert found.macs_per_s == pytest.approx(1e9)
    assert found.bytes_per_s == pytest.approx(1e8)
    assert found.seconds_per_operator == pytest.approx(1e-5)  # the cost of a call cancels
    assert "unavailable" not in found.how
    assert found.how["library"] == "scripted"
    assert found.how["bytes_per_s"]["cache_bytes"] == 300
    json.dumps(asdict(found))


def test_the_first_size_that_takes_20_ms_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Scripted()  # 256^3 MACs take 17 ms, 512^3 take 134
    found = measured(monkeypatch, probe)
    assert found.how["macs_per_s"]["size"] == 512
    assert [size for what, size in probe.asked if what == "product"] == [64, 128, 256, 512]


def test_a_device_too_fast_for_the_sizes_gets_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(monkeypatch, Scripted(rate=1e13))
    assert found.how["macs_per_s"]["size"] == 1024
    assert found.macs_per_s == pytest.approx(1e13)


def test_a_device_with_little_memory_gets_the_largest_that_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(monkeypatch, Scripted(rate=1e13, most=200))
    assert found.how["macs_per_s"]["size"] == 128
    assert found.macs_per_s == pytest.approx(1e13)


def test_what_cannot_be_measured_is_none_with_its_reason_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(monkeypatch, Scripted(most=10, each=-1e-6))
    assert (found.macs_per_s, found.seconds_per_operator) == (None, None)
    assert found.bytes_per_s == pytest.approx(1e8)
    assert found.how["unavailable"]["macs_per_s"] == "no room for 64"
    assert "took no longer than 10" in found.how["unavailable"]["seconds_per_operator"]
    assert set(found.how["unavailable"]) == {"macs_per_s", "seconds_per_operator"}


@pytest.mark.parametrize("cache", [1000, 10**6])
def test_a_copy_that_fits_in_the_cache_is_no_ceiling(monkeypatch: pytest.MonkeyPatch, cache: int) -> None:
    found = measured(monkeypatch, Scripted(cache=cache))
    assert found.bytes_per_s is None
    assert "the cache holds" in found.how["unavailable"]["bytes_per_s"]
    assert found.macs_per_s and found.seconds_per_operator


@pytest.mark.parametrize("shape", [(8, 8), (1024, 1024), (1500, 2000)])
def test_noise_is_noise_in_every_row(shape: tuple[int, int]) -> None:
    made = noise(shape)
    assert made.dtype == np.float32 and made.shape == shape
    assert abs(made.mean()) < 0.5 and 0.5 < made.std() < 1.5
    assert len({row.tobytes() for row in made}) == shape[0]
    assert len(np.unique(made)) > 0.9 * min(made.size, 1_000_003)
    assert not np.array_equal(made, noise(shape, 1))


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("inf"), float("nan")])
def test_a_clock_that_gives_no_time_gives_no_ceiling(wrong: float) -> None:
    with pytest.raises(NotMeasured, match="clock"):
        best([wrong])


def test_samples_warm_up_once_and_last_as_long_as_asked() -> None:
    now = [0.0]

    def clocked() -> float:
        now[0] += 1.0
        return now[0]

    assert samples(clocked, 5.0, lambda: now[0]) == [2, 3, 4, 5, 6]
    now[0] = 0.0
    assert samples(clocked, 0.0, lambda: now[0]) == [2, 3, 4]


def test_matrices_leave_most_of_the_memory_free() -> None:
    require_room(25, 100)
    require_room(10**12, None)
    with pytest.raises(NotMeasured, match="three matrices take 2 MiB, and 4 MiB"):
        require_room(2 << 20, 4 << 20)


# ------------------------------------------------------------------------------------------------------------ copies


@pytest.mark.parametrize(
    ("cache", "free", "expected"),
    [
        (1 << 20, None, 64 << 20),
        (100 << 20, None, 200 << 20),
        (100 << 20, 800 << 20, 100 << 20),  # source and target take a quarter of what is free
        (1 << 20, 4097 * 8, 4096),
        (1 << 20, 0, 4096),
    ],
)
def test_a_copy_exceeds_the_cache_twice_where_there_is_room(cache: int, free: int | None, expected: int) -> None:
    assert copy_size(cache, free, 64 << 20) == expected


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_copy_copies_everything_and_counts_bytes_both_ways(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(copies, "LEAST_ON_CPU", 1 << 16)
    monkeypatch.setattr(copies, "cache_bytes", lambda: 5000)
    seen: list[tuple[Any, Any]] = []
    real = np.copyto

    def copyto(to: Any, source: Any) -> None:
        seen.append((to, source))
        real(to, source)

    monkeypatch.setattr(np, "copyto", copyto)
    with copy_on_cpu(threads) as copying:
        assert copying.clocked() > 0
    assert len(seen) == threads
    assert sum(source.nbytes for _, source in seen) * 2 == copying.moved_bytes == 2 << 16
    assert copying.cache_bytes == 5000
    for to, source in seen:
        np.testing.assert_array_equal(to, source)
        assert np.unique(source).size > 1  # noise, not a constant


# ----------------------------------------------------------------------------------------------------------- the CPU


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes at which everything takes milliseconds."""
    monkeypatch.setattr(ceilings_onnxruntime.OnCpu, "sizes", (64, 256))
    monkeypatch.setattr(ceilings_torch, "CPU_SIZES", (64, 256))
    for name in ("LEAST_ON_CPU", "LEAST_ON_GPU"):
        monkeypatch.setattr(copies, name, 1 << 20)
        monkeypatch.setattr(ceilings_torch, name, 1 << 20)
    for module in (copies, ceilings_torch):
        monkeypatch.setattr(module, "cache_bytes", lambda: 1 << 18)


def plausible(found: Ceilings) -> None:
    """The figures are those of the samples that they tell of, and within what any CPU does with one thread, however busy."""
    assert found.macs_per_s is not None and found.bytes_per_s is not None and found.seconds_per_operator is not None
    product, copied, chain = (found.how[name] for name in NAMES)
    assert product["size"] in (64, 256)
    assert found.macs_per_s == pytest.approx(product["size"] ** 3 / (product["best_ms"] / 1e3))
    assert copied["bytes"] > copied["cache_bytes"] == 1 << 18
    assert found.bytes_per_s == pytest.approx(copied["bytes"] / (copied["best_ms"] / 1e3))
    (few, many), (short, long) = chain["operators"], chain["best_ms"]
    assert found.seconds_per_operator == pytest.approx((long - short) / (many - few) / 1e3)
    assert 1e8 < found.macs_per_s < 1e13
    assert 1e7 < found.bytes_per_s < 1e13
    assert 1e-9 < found.seconds_per_operator < 1e-2


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
    with ceilings.open_probe(ONNXRUNTIME_CPU, precision, Options(threads=1)) as probe, probe.product(96) as clocked:
        assert ran == []
        for _ in range(2):
            assert clocked() > 0
    assert len(ran) == 2
    for feed, result in ran:
        a, b = (feed[name].astype(np.float64) for name in ("a", "b"))
        assert a.shape == b.shape == result.shape == (96, 96)
        assert all(matrix.std() > 0.5 and np.unique(matrix).size > 200 for matrix in (a, b))
        np.testing.assert_allclose(result.astype(np.float64), a @ b, rtol=0, atol=0.05 if precision == "fp16" else 1e-4)


def test_what_is_timed_in_torch_is_one_whole_product(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[Any, Any, Any]] = []
    real = torch.mm

    def mm(a: Any, b: Any, out: Any) -> Any:
        real(a, b, out=out)
        ran.append((a.clone(), b.clone(), out.clone()))

    monkeypatch.setattr(torch, "mm", mm)
    with ceilings.open_probe(TORCH_EAGER, "fp32", Options(threads=1)) as probe, probe.product(96) as clocked:
        ran.clear()
        for _ in range(2):
            assert clocked() > 0
    assert len(ran) == 2
    for a, b, result in ran:
        assert a.shape == b.shape == result.shape == (96, 96)
        assert all(matrix.std() > 0.5 and matrix.unique().numel() > 200 for matrix in (a, b))
        torch.testing.assert_close(result.double(), a.double() @ b.double(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_onnxruntime_on_the_cpu(quick: None, precision: str) -> None:
    found = measure_ceilings(ONNXRUNTIME_CPU, precision, Options(threads=1), seconds=0.01)
    plausible(found)
    assert (found.how["device"], found.how["threads"]) == ("cpu", 1)
    assert found.how["library"].startswith("onnxruntime ")


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_onnxruntime_on_the_cpu_has_no_ceiling_where_it_has_no_product(precision: str) -> None:
    found = measure_ceilings(ONNXRUNTIME_CPU, precision, Options(), seconds=0.01)
    assert (found.macs_per_s, found.bytes_per_s, found.seconds_per_operator) == (None, None, None)
    assert set(found.how["unavailable"]) == set(NAMES)


@pytest.mark.parametrize("threads", [1, 2])
def test_onnxruntime_has_the_threads_that_are_measured(monkeypatch: pytest.MonkeyPatch, quick: None, threads: int) -> None:
    seen = []
    real = ort.session_options

    def counted(count: int) -> Any:
        seen.append(count)
        return real(count)

    monkeypatch.setattr(ceilings_onnxruntime, "session_options", counted)
    measure_ceilings(ONNXRUNTIME_CPU, "fp32", Options(threads=threads), seconds=0.001)
    assert set(seen) == {threads}


@pytest.mark.parametrize("backend", [TORCH_EAGER, SLIMMABLE])
def test_torch_on_the_cpu(quick: None, backend: str) -> None:
    before = torch.get_num_threads(), torch.is_inference_mode_enabled()
    found = measure_ceilings(backend, "fp32", Options(threads=1), seconds=0.01)
    plausible(found)
    assert found.how["library"] == f"torch {torch.__version__}"
    assert (torch.get_num_threads(), torch.is_inference_mode_enabled()) == before


def test_torchs_failures_are_reasons_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    real = torch.mm

    def mm(a: Any, b: Any, out: Any = None) -> Any:
        if len(a) > 64:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return real(a, b) if out is None else real(a, b, out=out)

    monkeypatch.setattr(torch, "mm", mm)
    found = measure_ceilings(TORCH_EAGER, "fp32", Options(), seconds=0.001)
    assert found.how["macs_per_s"]["size"] == 64
    assert found.bytes_per_s and found.seconds_per_operator

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(torch, "mm", broken)
    found = measure_ceilings(TORCH_EAGER, "fp32", Options(), seconds=0.001)
    assert set(found.how["unavailable"]) == {"macs_per_s", "seconds_per_operator"}
    assert "no such kernel" in found.how["unavailable"]["macs_per_s"]
    assert found.bytes_per_s


@pytest.mark.parametrize(("backend", "run"), [(TORCH_EAGER, False), (SLIMMABLE, False), (TORCH_COMPILE, True)])
def test_chains_in_torch_run_as_networks_do(monkeypatch: pytest.MonkeyPatch, backend: str, run: bool) -> None:
    compiled: list[Any] = []

    def compiling(function: Any) -> Any:
        compiled.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compiling)
    with ceilings.open_probe(backend, "fp32", Options()) as probe, probe.chain(4) as clocked:
        assert clocked() > 0
    assert bool(compiled) is run
    if run:
        with torch.inference_mode():
            found = compiled[0]().numpy()
            first = found @ np.linalg.inv(np.linalg.matrix_power(orthogonal(), 4))
        assert np.abs(first).max() < 10  # four products with an orthogonal matrix: as large as random values are


@pytest.mark.parametrize(
    ("backend", "precision", "reason"),
    [(TORCH_GRAPH, "fp32", "need a GPU"), (TORCH_EAGER, "int8", "no int8"), (TORCH_EAGER, "tf32", "no tf32 products on cpu")],
)
def test_torch_without_such_a_product_says_so(backend: str, precision: str, reason: str) -> None:
    found = measure_ceilings(backend, precision, Options(), seconds=0.01)
    assert found.macs_per_s is None
    assert reason in found.how["unavailable"]["macs_per_s"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA works here")
@pytest.mark.parametrize(
    ("backend", "device"), [(ONNXRUNTIME_CUDA, "cpu"), (TENSORRT, "cpu"), (TORCH_EAGER, "cuda"), (TORCH_GRAPH, "cuda")]
)
def test_without_a_gpu_nothing_is_guessed(backend: str, device: str) -> None:
    found = measure_ceilings(backend, "fp32", Options(device=device), seconds=0.01)
    assert (found.macs_per_s, found.bytes_per_s, found.seconds_per_operator) == (None, None, None)
    assert all(found.how["unavailable"][name] for name in NAMES)


# --------------------------------------------------------------------------------------------------- made-up devices

TWO_MS = 2e-3  # between two events of the made-up CUDA


def product_or_chain(values: dict[str, Any]) -> dict[str, Any]:
    if "a" in values:
        return {"c": values["a"].astype(np.float32) @ values["b"].astype(np.float32)}
    return {"y": values["x"]}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes for a device with 3 MiB of free memory."""
    for module in (ceilings_onnxruntime, ceilings_tensorrt):
        monkeypatch.setattr(module.OnCuda if module is ceilings_onnxruntime else module.WithTensorRT, "sizes", (16, 32))
    monkeypatch.setattr(copies, "LEAST_ON_GPU", 1 << 16)


@pytest.mark.parametrize(("precision", "kind"), [("fp32", np.float32), ("tf32", np.float32), ("fp16", np.float16)])
def test_onnxruntime_on_cuda(monkeypatch: pytest.MonkeyPatch, tiny: None, precision: str, kind: Any) -> None:
    seen: list[Any] = []

    def model(values: dict[str, Any]) -> dict[str, Any]:
        seen.extend(values.values())
        return product_or_chain(values)

    runtime = Runtime(FakeCudart(), model)
    fake_onnxruntime(monkeypatch, runtime)
    found = measure_ceilings(ONNXRUNTIME_CUDA, precision, Options(), seconds=0.001)
    assert found.macs_per_s == pytest.approx(32**3 / TWO_MS)
    assert found.bytes_per_s == pytest.approx(2 * (1 << 16) / TWO_MS)
    assert found.how["bytes_per_s"]["cache_bytes"] == L2_CACHE_BYTES
    assert found.seconds_per_operator is None  # events are 2 ms apart whatever is between them
    assert not runtime.library.leaks and not runtime.outlived
    assert all(values.dtype == kind and values.std() > 0.5 for values in seen)
    assert {opened[2].get("use_tf32") for opened in runtime.opened[1:]} == {"1" if precision == "tf32" else "0"}


@pytest.mark.parametrize("precision", ["bf16", "int8", "int8-fp16"])
def test_onnxruntime_on_cuda_has_none_in_other_precisions(monkeypatch: pytest.MonkeyPatch, tiny: None, precision: str) -> None:
    fake_onnxruntime(monkeypatch, Runtime(FakeCudart(), product_or_chain))
    found = measure_ceilings(ONNXRUNTIME_CUDA, precision, Options(), seconds=0.001)
    assert found.macs_per_s is None and found.how["unavailable"]["macs_per_s"]


@pytest.mark.parametrize("function", ["cudaMalloc", "cudaMemcpyAsync", "cudaEventElapsedTime"])
def test_a_gpu_that_fails_is_a_reason_and_nothing_leaks(monkeypatch: pytest.MonkeyPatch, tiny: None, function: str) -> None:
    runtime = Runtime(FakeCudart(), product_or_chain)
    fake_onnxruntime(monkeypatch, runtime)
    runtime.library.failing[function] = 2
    found = measure_ceilings(ONNXRUNTIME_CUDA, "fp32", Options(), seconds=0.001)
    assert set(found.how["unavailable"]) == set(NAMES)
    assert "cudaErrorMemoryAllocation" in found.how["unavailable"]["bytes_per_s"]
    assert runtime.library.leaks == []


def product_engines(board: Machine, monkeypatch: pytest.MonkeyPatch, layers: int = 1000) -> list[bytes]:
    """Make the made-up TensorRT build and run tiny models: `a` @ `b` in float32 or float16, by the memory's size."""
    trt, library, parsed = board.trt, board.library, []

    def parse(self: Any, content: bytes) -> bool:
        parsed.append(content)
        return True

    def build(self: Any, network: Any, config: Any) -> Any:
        made = trt.IHostMemory()
        made._content = b"plan"
        return made

    def deserialize(self: Any, plan: bytes) -> Any:
        assert plan == b"plan"
        made = trt.ICudaEngine()
        made.num_layers = layers
        return made

    def create_context(self: Any) -> Any:
        made = trt.IExecutionContext()
        made._addresses = {}
        return made

    def execute(self: Any, stream: int) -> bool:
        addresses = self._addresses
        assert set(addresses) in ({"a", "b", "c"}, {"x", "y"})
        assert all(address in library.memory for address in addresses.values())
        library.streams[stream].append(lambda: None)
        return board.behaviour.runs

    for owner, name, value in (
        (trt.OnnxParser, "parse", parse),
        (trt.Builder, "build_serialized_network", build),
        (trt.Runtime, "deserialize_cuda_engine", deserialize),
        (trt.ICudaEngine, "create_execution_context", create_context),
        (trt.IExecutionContext, "execute_async_v3", execute),
    ):
        assert name in inventory_of(trt)[owner.__name__]
        monkeypatch.setattr(owner, name, value)
    return parsed


@pytest.mark.parametrize("cuda_graph", [True, False])
@pytest.mark.parametrize("version", VERSIONS)
def test_tensorrt(monkeypatch: pytest.MonkeyPatch, tiny: None, version: str, cuda_graph: bool) -> None:
    board = machine(monkeypatch, version)
    parsed = product_engines(board, monkeypatch)
    found = measure_ceilings(TENSORRT, "fp16", Options(cuda_graph=cuda_graph), seconds=0.001)
    assert found.macs_per_s == pytest.approx(32**3 / TWO_MS)
    assert found.bytes_per_s == pytest.approx(2 * (1 << 16) / TWO_MS)
    assert found.how["cuda_graph"] is cuda_graph
    assert found.how["library"] == f"TensorRT {board.trt.__version__}"
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
    found = measure_ceilings(TENSORRT, "fp32", Options(), seconds=0.001)
    assert found.seconds_per_operator is None
    assert found.how["unavailable"]["seconds_per_operator"].startswith("TensorRT fuses 16 products into 3 layers")


@pytest.mark.parametrize(("version", "precision"), [("10.3.0", "int8"), ("8.6.0", "bf16")])
def test_tensorrt_has_no_ceiling_where_it_has_no_product(
    monkeypatch: pytest.MonkeyPatch, tiny: None, version: str, precision: str
) -> None:
    product_engines(machine(monkeypatch, version), monkeypatch)
    found = measure_ceilings(TENSORRT, precision, Options(), seconds=0.001)
    assert found.macs_per_s is None and precision in found.how["unavailable"]["macs_per_s"]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_engine_that_does_not_run_or_is_not_built_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, tiny: None, version: str
) -> None:
    board = machine(monkeypatch, version)
    product_engines(board, monkeypatch)
    board.behaviour.runs = False
    found = measure_ceilings(TENSORRT, "fp32", Options(), seconds=0.001)
    assert "does not run it" in found.how["unavailable"]["macs_per_s"]
    assert found.bytes_per_s
    with monkeypatch.context() as patch:
        patch.setattr(board.trt.IExecutionContext, "set_tensor_address", lambda *_: False)
        found = measure_ceilings(TENSORRT, "fp32", Options(), seconds=0.001)
    assert "does not take an address for a" in found.how["unavailable"]["macs_per_s"]
    monkeypatch.setattr(board.trt.Builder, "build_serialized_network", lambda *_: None)
    found = measure_ceilings(TENSORRT, "fp32", Options(), seconds=0.001)
    assert "builds no fp32 product" in found.how["unavailable"]["macs_per_s"]
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


def test_bfloat16_values_are_the_upper_half_of_floats() -> None:
    bits = ceilings_tensorrt.random_values("bf16", (64, 64), 0)
    assert bits.dtype == np.uint16
    values = (bits.astype(np.uint32) << 16).view(np.float32)
    expected = np.random.default_rng(0).standard_normal((64, 64), np.float32)
    np.testing.assert_allclose(values, expected, rtol=2**-7)


def test_a_copy_on_a_gpu_copies_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "LEAST_ON_GPU", 1 << 16)
    library = FakeCudart()
    with copies.copy_on_gpu(Cuda(library)) as copying:
        assert copying.clocked() == pytest.approx(TWO_MS)
        source, to = library.memory.values()
        assert source == to and len(set(source)) > 200
        assert copying.moved_bytes == 2 << 16
    assert library.leaks == []
