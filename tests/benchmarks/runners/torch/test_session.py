"""A bundle's networks in torch, eager and slimmable: what they compute, what they are refused for, what they leave."""

from __future__ import annotations

import json
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import fx

import slimexport
from benchmarks.cells.backends import SLIMMABLE, TORCH_COMPILE, TORCH_EAGER, TORCH_GRAPH
from benchmarks.cells.cell import NotMeasured, Options, OutOfMemory
from benchmarks.cells.inputs import cache_bytes
from benchmarks.measure.output_check import check_output
from benchmarks.runners.torch.session import read_dense
from tests.support.bench_torch_bundle import WIDTHS, Exported, refused, with_checkpoint
from tests.support.bench_torch_helpers import SIZE, FewImages, NoRoom, cell, gap, open_torch, probes, torch_logits, write_tiny


@pytest.mark.parametrize("backend", [TORCH_EAGER, SLIMMABLE])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_logits_are_the_bundles_reference(exported: Exported, backend: str, batch: int) -> None:
    cells = exported.cells(backend, batch)
    assert [cell_.label for cell_ in cells] == ["0.25x", "0.5x"]
    for cell_ in cells:
        runner = open_torch(cell_, exported.folder, FewImages(), with_checkpoint(exported))
        assert check_output(runner, cell_, exported.reference(cell_)) == ""
        timing = runner.run(7)
        assert timing.wall > 0
        assert (timing.device, timing.enqueue, timing.upload, timing.download) == (None,) * 4
        runner.close()


def test_fp16_files_run_in_fp16(exported: Exported) -> None:
    (cell_, _) = exported.cells(TORCH_EAGER, 2, "fp16")
    assert cell_.file.endswith(".fp16.onnx")
    runner = open_torch(cell_, exported.folder, FewImages(), Options())
    probes, *_ = exported.reference(cell_)
    logits = runner.logits(probes.images[:2])
    assert logits.dtype == np.float32
    assert 1e-4 < gap(logits, probes.expected[0].values[:2]) < 3e-2  # not in fp32, and not wrong
    runner.close()


def test_the_network_of_a_file_is_the_one_that_materialize_gives(exported: Exported) -> None:
    dense = slimexport.materialize(exported.checkpoint, WIDTHS[0])
    assert isinstance(dense, fx.GraphModule)
    read = read_dense(exported.folder / exported.cells(TORCH_EAGER)[0].file, "fp32")
    assert {path: type(module) for path, module in read.named_modules() if "." in path} == {
        path: type(module) for path, module in dense.named_modules() if "." in path
    }
    expected = dict(dense.named_parameters())
    mine = dict(read.named_parameters())
    assert mine.keys() == expected.keys() and all(torch.equal(mine[key], expected[key]) for key in expected)
    assert np.array_equal(torch_logits(read, probes()), torch_logits(dense, probes()))


def test_buffers_rotate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_tiny(tmp_path)
    images = FewImages()
    runner = open_torch(cell(), tmp_path, images, Options())
    seen: list[torch.Tensor] = []
    forward = runner._open[0]
    monkeypatch.setattr(forward, "call", seen.append)
    for index in (0, 1, 2, 3, 7):
        runner.run(index)
    first, *rest = (tensor.data_ptr() for tensor in seen)
    assert rest[2:] == [first, rest[0]]
    assert len({first, *rest}) == 3
    assert all(tensor.shape == (2, 3, SIZE, SIZE) and tensor.is_inference() for tensor in seen)
    assert [batch for batch, _ in images.asked] == [2]
    assert images.asked[0][1] == cache_bytes()
    runner.close()


def test_settings_say_how_it_runs(exported: Exported) -> None:
    (cell_, _) = exported.cells(TORCH_EAGER)
    runner = open_torch(cell_, exported.folder, FewImages(), Options(threads=2, transfers=True))
    assert runner.settings == {
        "device": "cpu",
        "threads": 2,
        "torch": torch.__version__,
        "memory_format": "channels_last",
        "compile": False,
        "cudnn_benchmark": None,
        "tf32": None,
        "cuda_graph": False,
        "transfers": False,  # there are none on a CPU
        "input_buffers": 3,
        "input_bytes": 3 * 2 * 3 * SIZE * SIZE * 4,
        "cache_bytes": cache_bytes(),
    }
    json.dumps(runner.settings)
    runner.close()


def test_threads_are_set_and_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny(tmp_path)
    torch.set_num_threads(1)
    first = open_torch(cell(), tmp_path, FewImages(), Options(threads=2))
    second = open_torch(cell(), tmp_path, FewImages(), Options(threads=3))
    seen: list[int] = []
    for runner in (first, second, first):
        call = runner._open[0].call

        def watching(images: torch.Tensor, call: Any = call) -> Any:
            seen.append(torch.get_num_threads())
            return call(images)

        monkeypatch.setattr(runner._open[0], "call", watching)
        runner.run(0)
        monkeypatch.undo()
    assert seen == [2, 3, 2]
    first.close()
    second.run(0)
    assert torch.get_num_threads() == 3
    second.close()
    assert torch.get_num_threads() == 1


def test_what_fails_to_open_leaves_the_threads_alone(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    (tmp_path / "tiny.onnx").write_bytes(b"not a network")
    with pytest.raises(NotMeasured, match=r"tiny\.onnx: onnx cannot read it"):
        open_torch(cell(), tmp_path, FewImages(), Options(threads=2))
    assert torch.get_num_threads() == 1


def test_a_closed_runner_holds_nothing(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    runner = open_torch(cell(), tmp_path, FewImages(), Options())
    forward, buffers = (weakref.ref(runner._open[0]), weakref.ref(runner._open[1].buffers))
    runner.close()
    runner.close()
    assert (forward(), buffers()) == (None, None)
    with pytest.raises(AssertionError, match="closed"):
        runner.run(0)


def test_gradients_and_modes_of_the_caller_are_untouched(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    runner = open_torch(cell(), tmp_path, FewImages(), Options())
    runner.run(0)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    runner.close()


def test_what_no_torch_can_run_is_refused_before_it_is_read(tmp_path: Path) -> None:
    refused(cell(backend=TORCH_GRAPH), tmp_path, Options(), "CUDA graphs need a GPU")
    refused(cell(precision="tf32"), tmp_path, Options(), "TF32 is a GPU's")
    refused(cell(precision="int8"), tmp_path, Options(), "not in int8")
    refused(cell(precision="int8", backend=TORCH_COMPILE), tmp_path, Options(), "not in int8")
    refused(cell(precision="fp16", backend=SLIMMABLE), tmp_path, Options(), "the slimmable network", "not in fp16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("backend", [TORCH_EAGER, TORCH_COMPILE, TORCH_GRAPH, SLIMMABLE])
def test_a_gpu_that_is_not_there(backend: str, tmp_path: Path) -> None:
    refused(cell(backend=backend), tmp_path, Options(device="cuda"), "finds no GPU here")


def test_a_file_of_another_type_or_kind(tmp_path: Path) -> None:
    write_tiny(tmp_path, precision="fp16")
    refused(cell(), tmp_path, Options(), "tiny.onnx", "torch.float16", "expected those of fp32")
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [])), tmp_path / "tiny.onnx")
    refused(cell(), tmp_path, Options(), "has 0 inputs and 0 outputs")


def test_memory_that_does_not_suffice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny(tmp_path)
    with pytest.raises(OutOfMemory, match="host's memory"):
        open_torch(cell(), tmp_path, NoRoom(), Options())
    runner = open_torch(cell(activations=1 << 58), tmp_path, FewImages(), Options())
    forward = runner._open[0]
    monkeypatch.setattr(forward, "call", lambda images: torch.empty(1 << 58))  # what the allocator really does
    calls: list[Callable[[], Any]] = [lambda: runner.run(0), lambda: runner.logits(probes())]
    for act in calls:
        with pytest.raises(OutOfMemory, match="host's memory does not suffice"):
            act()
    runner.close()


def test_what_torch_does_not_run_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny(tmp_path)
    runner = open_torch(cell(), tmp_path, FewImages(), Options())
    monkeypatch.setattr(runner._open[0], "call", lambda images: images.reshape(-1, 7))
    with pytest.raises(NotMeasured, match=r"torch .* does not run it on cpu: shape") as info:
        runner.run(0)
    assert type(info.value) is NotMeasured
    runner.close()


def test_torch_that_does_not_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in ("session", "onnx_to_torch"):
        monkeypatch.delitem(sys.modules, f"benchmarks.runners.torch.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    refused(cell(), tmp_path, Options(), "needs onnx", "pip install onnx")
