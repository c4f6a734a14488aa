"""Reasons for what torch raises: memory by class, by CUDA's code, or by what is left, never by torch's words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed
from torch._inductor.exc import InvalidCxxCompiler, TritonMissing

from benchmarks.cells.cell import NotMeasured, OutOfMemory
from benchmarks.machine.host_memory import HostMemory
from benchmarks.runners.torch.errors import LIBRARIES_BYTES, largest_bytes, torch_reasons
from benchmarks.runners.torch.forwards import Compiled, advice, causes
from tests.support.bench_torch_helpers import cell, probes, tiny_network

ALLOCATOR = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."
MIB = 1 << 20


def refused_by_cuda(code: int) -> torch.AcceleratorError:
    error = torch.AcceleratorError("CUDA error: whatever it says")
    error.error_code = code  # type: ignore[attr-defined]
    return error


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What is left of the host's and the GPU's memory, in bytes."""
    bytes_left = {"cpu": 1 << 40, "cuda": 1 << 40}
    monkeypatch.setattr(HostMemory, "left_bytes", lambda self: bytes_left["cpu"])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (bytes_left["cuda"], 1 << 40))
    return bytes_left


def reason(error: BaseException, device: str, needed_bytes: int = MIB) -> NotMeasured:
    """What becomes of an error, whose words are told in one line."""
    with pytest.raises(NotMeasured) as caught, torch_reasons(device, needed_bytes):
        raise error
    assert caught.value.__cause__ is error
    assert "\n" not in str(caught.value)
    assert (str(error).splitlines() or ["MemoryError"])[0] in str(caught.value)
    assert (f"the {'GPU' if device == 'cuda' else 'host'}'s memory" in str(caught.value)) == isinstance(
        caught.value, OutOfMemory
    )
    return caught.value


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nSee ..."), OutOfMemory),
        (MemoryError(), OutOfMemory),
        (refused_by_cuda(2), OutOfMemory),
        (refused_by_cuda(700), NotMeasured),
        (RuntimeError("\"slow_conv2d\" not implemented for 'Half'"), NotMeasured),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_errors_that_have_a_class_or_a_code_are_known_by_it(
    left: dict[str, int], error: Exception, kind: type[NotMeasured], device: str
) -> None:
    assert type(reason(error, device)) is kind


@pytest.mark.parametrize(
    "words", [ALLOCATOR, "CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)", "out of memory", "?"]
)
def test_of_other_errors_what_is_left_decides_and_not_their_words(left: dict[str, int], words: str) -> None:
    for device in ("cpu", "cuda"):
        assert type(reason(RuntimeError(words), device)) is NotMeasured
    left["cpu"], left["cuda"] = MIB - 1, LIBRARIES_BYTES - 1
    for device in ("cpu", "cuda"):
        assert type(reason(RuntimeError(words), device)) is OutOfMemory


def test_a_gpu_that_answers_nothing_more_did_not_run_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def dead() -> Any:
        raise refused_by_cuda(700)

    monkeypatch.setattr(torch.cuda, "mem_get_info", dead)
    assert type(reason(RuntimeError("anything"), "cuda")) is NotMeasured


def test_what_the_hosts_allocator_really_refuses_is_known_by_what_the_host_has() -> None:
    with pytest.raises(OutOfMemory, match="the host's memory does not suffice"), torch_reasons("cpu", 1 << 60):
        torch.empty(1 << 58)
    with pytest.raises(NotMeasured) as caught, torch_reasons("cpu", MIB):  # a network of a megabyte asks for no exabyte
        torch.empty(1 << 58)
    assert type(caught.value) is NotMeasured


def test_a_network_asks_for_its_activations_or_its_weights_at_once() -> None:
    assert largest_bytes(cell(batch=3, activations=1000, params=10)) == 4 * 3000
    assert largest_bytes(cell(batch=3, activations=1000, params=5000)) == 4 * 5000
    assert largest_bytes(cell(batch=2, activations=None, image_size=10)) == 4 * 2 * 64 * 100


def test_mistakes_and_reasons_pass_through() -> None:
    for error in (NotMeasured("why"), AssertionError("a mistake"), KeyError("x")):
        with pytest.raises(type(error)) as caught, torch_reasons("cpu"):
            raise error
        assert caught.value is error


# What the compiler raises stands for something else


def wrapped(inner: Exception) -> BackendCompilerFailed:
    return BackendCompilerFailed(wrapped, BackendCompilerFailed(wrapped, inner, None), None)


def test_the_compilers_errors_stand_for_others() -> None:
    inner = KeyError("x")
    inner.__cause__ = MemoryError()
    error = wrapped(inner)
    assert [type(cause) for cause in causes(error)] == [BackendCompilerFailed, BackendCompilerFailed, KeyError, MemoryError]


@pytest.mark.parametrize(
    ("error", "on_gpu", "said"),
    [
        (InvalidCxxCompiler(), False, "Install g++"),
        (TritonMissing(None), True, "pip install triton"),
        (RuntimeError("whatever Triton says"), True, "Install gcc"),
    ],
)
def test_what_a_compiler_lacks_is_said_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, error: Exception, on_gpu: bool, said: str
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    for raised in (error, wrapped(error)):
        assert said in advice(raised, on_gpu)


def test_other_errors_of_a_compiler_are_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("no such instruction\nmore")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}" if name == "clang" else None)
    assert advice(error, True) == advice(error, False) == "no such instruction"
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setenv("CC", "cc")
    assert advice(error, True) == "no such instruction"


@pytest.mark.parametrize("inner", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError("no room")])
def test_memory_that_runs_out_in_the_compiler_is_memory_that_runs_out(
    monkeypatch: pytest.MonkeyPatch, inner: Exception
) -> None:
    def fails(network: Any, **options: Any) -> Any:
        raise wrapped(inner)

    monkeypatch.setattr(torch, "compile", fails)
    with pytest.raises(OutOfMemory, match="the host's memory does not suffice"):
        Compiled(tiny_network(), torch.from_numpy(probes()))
