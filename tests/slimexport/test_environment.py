"""`--env` says what is installed and what that makes possible; nothing that is missing is an error."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable

import pytest

from slimexport.environment import PACKAGES, describe
from slimexport.target.runners import onnxruntime_package
from slimtrain.base.packages import EXTRAS


def without(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    real: Callable[[str], str] = importlib.metadata.version

    def version(package: str) -> str:
        if package in missing:
            raise importlib.metadata.PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_every_installed_package_has_a_line_with_its_version() -> None:
    lines = describe().splitlines()
    for package in ("torch", "onnx", "numpy", "click"):
        assert f"{package} {importlib.metadata.version(package)}" in lines
    assert any(line.startswith(("onnxruntime ", "onnxruntime-gpu ")) for line in lines)
    assert "CPUExecutionProvider" in describe()


def test_a_missing_package_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, *PACKAGES)
    lines = describe().splitlines()
    assert "torch: not installed" in lines
    assert "tensorrt: not installed" in lines


def test_every_extra_says_what_is_missing_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("yaml", "torch", "sklearn"):
        monkeypatch.setitem(sys.modules, module, None)
    lines = [line for line in describe().splitlines() if line.startswith("to ")]
    assert len(lines) == len(EXTRAS)
    by_purpose = dict(line.removeprefix("to ").split(": ", 1) for line in lines)
    assert by_purpose["verify a bundle and predict with it"] == "everything is installed"
    assert by_purpose["train and export"].startswith("torch, PyYAML missing: pip install 'slimmable-deploy[full]'")
    assert by_purpose["train and test on the digits"].startswith("scikit-learn missing: ")


def test_torch_is_not_asked_and_tensorrt_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    lines = describe().splitlines()
    assert sum(line.startswith("GPU for engines: ") for line in lines) == 1
    libraries = ("TensorRT ", "TensorRT-RTX ", "no engines: ", "no TensorRT-RTX engines: ")
    assert sum(line.startswith(libraries) for line in lines) == 2


def test_without_onnxruntime_the_command_that_installs_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert f"pip install {onnxruntime_package()}" in describe()
