"""What netron shows of a file, by its own modules; the comparison bites on a file that it shows otherwise."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks.studies.consumers import netron


@pytest.fixture
def path(tmp_path: Path) -> Path:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("input", "output")]
    nodes = [helper.make_node("Relu", ["input"], ["a"]), helper.make_node("Neg", ["a"], ["output"])]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:]), ir_version=8), tmp_path / "x.onnx")
    return tmp_path / "x.onnx"


@pytest.mark.skipif(bool(netron.missing()), reason="needs netron and node")
def test_netron_opens_a_file_and_refuses_what_is_none(path: Path) -> None:
    (path.parent / "no.onnx").write_bytes(b"text")
    good, bad = netron.opened([path, path.parent / "no.onnx"])
    assert good == {"format": "ONNX v8", "nodes": 2, "operators": True, "inputs": True, "outputs": True}
    assert set(bad) == {"error"}


@pytest.mark.parametrize(
    ("operators", "outputs", "expected"),
    [
        (["Neg", "Relu"], ["output"], (True, True)),
        (["Relu"], ["output"], (False, True)),
        (["Relu", "Neg"], ["b"], (True, False)),
    ],
)
def test_what_is_shown_is_compared_with_what_is_there(
    path: Path, monkeypatch: pytest.MonkeyPatch, operators: list[str], outputs: list[str], expected: tuple[bool, bool]
) -> None:
    row = {"format": "ONNX v8", "operators": operators, "inputs": ["input"], "outputs": outputs, "metadata": []}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(origin="netron/__init__.py"))
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: SimpleNamespace(stdout=json.dumps(row), returncode=0))
    (shown,) = netron.opened([path])
    assert (shown["operators"], shown["outputs"]) == expected


def test_a_node_that_fails_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(*args: Any, **kwargs: Any) -> Any:
        return SimpleNamespace(stdout="", stderr="SyntaxError: here", returncode=1)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(origin="netron/__init__.py"))
    monkeypatch.setattr(subprocess, "run", failed)
    with pytest.raises(RuntimeError, match="netron ended with 1: SyntaxError: here"):
        netron.opened([path])


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert netron.missing() == "pip install netron"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert netron.missing().startswith("node")
