"""Running files with onnxruntime, and saying what to install where it is missing or broken."""

from __future__ import annotations

import importlib.util
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from slimexport.target import runners
from slimexport.target.backends import CUDA
from slimexport.target.errors import BundleError, MissingBackend
from slimexport.target.runners import OnnxRuntimeRunner, onnxruntime_package, open_on_cuda, require_onnxruntime
from tests.support.bundle_helpers import artifact
from tests.support.export_helpers import conv
from tests.support.onnx_writing import module_onnx


def test_a_runner_takes_images_and_gives_logits_of_any_batch(tmp_path: Path) -> None:
    layer = conv(3, 2, 1)
    layer.load_state_dict({"weight": torch.ones(2, 3, 1, 1), "bias": torch.tensor([0.25, -1.5])})
    network = nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    (tmp_path / "x.onnx").write_bytes(module_onnx(network, 4).SerializeToString())
    runner = OnnxRuntimeRunner(tmp_path / "x.onnx")
    assert runner.backend == "onnxruntime-cpu"
    for batch in (1, 5):
        logits = runner(np.zeros((batch, 3, 4, 4), np.float32))
        assert logits.shape == (batch, 2)
        np.testing.assert_allclose(logits, [[0.25, -1.5]] * batch, rtol=1e-6)


def test_threads_and_how_they_wait_are_as_asked_for(tmp_path: Path) -> None:
    """By onnxruntime's own word; what is computed is the same."""
    network = nn.Sequential(conv(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    (tmp_path / "x.onnx").write_bytes(module_onnx(network, 16).SerializeToString())
    images = np.random.default_rng(0).normal(size=(4, 3, 16, 16)).astype(np.float32)
    usual = OnnxRuntimeRunner(tmp_path / "x.onnx")
    runner = OnnxRuntimeRunner(tmp_path / "x.onnx", threads=1, spinning=False)
    options = runner.session.get_session_options()
    assert options.intra_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert usual.session.get_session_options().intra_op_num_threads == 0, "as many as it takes"
    np.testing.assert_allclose(runner(images), usual(images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("content", [b"", b"text", b"\x08\x08"])
def test_a_file_that_does_not_load_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"x\.onnx: onnxruntime does not load it"):
        OnnxRuntimeRunner(tmp_path / "x.onnx")


@pytest.mark.parametrize(
    ("machine", "system", "package"),
    [
        ("x86_64", "linux", "onnxruntime-gpu"),
        ("AMD64", "win32", "onnxruntime-gpu"),
        ("aarch64", "linux", "onnxruntime"),
        ("arm64", "darwin", "onnxruntime"),
        ("x86_64", "darwin", "onnxruntime"),
    ],
)
def test_the_package_to_install_is_the_one_that_has_a_wheel_there(
    monkeypatch: pytest.MonkeyPatch, machine: str, system: str, package: str
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(sys, "platform", system)
    assert onnxruntime_package() == package


def test_where_onnxruntime_is_missing_the_command_that_installs_it_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingBackend, match=r"not installed.*pip install onnxruntime.*--no-verify") as error:
        require_onnxruntime()
    assert error.value.exit_code == 3
    monkeypatch.undo()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingBackend, match="not installed"):
        require_onnxruntime()


def test_where_onnxruntime_is_broken_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libsomething.so: cannot open')")
    monkeypatch.delitem(sys.modules, "onnxruntime")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingBackend, match=r"does not load \(libsomething"):
        require_onnxruntime()


def test_the_module_that_comes_back_is_onnxruntime() -> None:
    module: Any = require_onnxruntime()
    assert "CPUExecutionProvider" in module.get_available_providers()


def test_a_run_looks_for_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That takes longer than a small network does."""
    path = tmp_path / "a.onnx"
    path.write_bytes(module_onnx(nn.Sequential(conv(3, 4), nn.Flatten()), 8).SerializeToString())
    runner = OnnxRuntimeRunner(path)
    monkeypatch.setattr("slimexport.target.runners.require_module", lambda *_, **__: pytest.fail("it was looked for"))
    assert len(runner(np.zeros((1, 3, 8, 8), np.float32))) == 1


def test_a_file_is_proven_on_a_gpu_without_trying_all_algorithms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(runners, "OnnxRuntimeRunner", lambda path, **options: asked.append(options))
    open_on_cuda(tmp_path / "x.onnx", artifact())
    assert (asked[0]["device"], asked[0]["tuning"]) == (CUDA, False)
