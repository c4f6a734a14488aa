"""The files that runtimes are given: every precision of two widths, and what they say, computed literally."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torchvision
from onnx.reference import ReferenceEvaluator

from benchmarks.studies.consumers import files as files_module
from benchmarks.studies.consumers.files import NETWORKS, TRACED, write_files
from tests.support.user_networks import network


@pytest.fixture(autouse=True)
def _one_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "us_mobilenet_v1", (0.25,))
    monkeypatch.setitem(NETWORKS, TRACED, (0.25,))


def evaluated(path: Path, images: Any) -> Any:
    """What a file says, by the onnx package's own evaluator."""
    evaluator: Any = ReferenceEvaluator(str(path))
    return evaluator.run(None, {"input": images})[0]


def test_files_of_every_precision_with_what_they_say(tmp_path: Path) -> None:
    files = write_files(tmp_path, ["us_mobilenet_v1"], 32)
    assert {file.precision for file in files} == {"fp32", "fp16", "bf16", "int8-cpu", "int8", "int8-fp16"}
    assert {(file.network, file.width) for file in files} == {("us_mobilenet_v1", 0.25)}
    assert files[0].label == "us_mobilenet_v1 0.25x fp32"
    images = np.load(files[0].images)
    assert images.shape == (2, 3, 32, 32)
    for file in files:
        expected = np.load(file.expected)
        assert expected.shape == (2, 1000) and np.isfinite(expected).all()
        if file.precision == "fp32":  # of others, operators round as they like
            assert np.abs(expected - evaluated(file.path, images)).max() < 1e-3 * np.abs(expected).max()


def test_a_traced_network_is_among_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "PRECISIONS", ("fp32",))
    monkeypatch.setattr(torchvision.models, "get_model", lambda name: network("plain"))  # a small one in its place
    (file,) = write_files(tmp_path, [TRACED], 16)
    assert onnx.load(file.path).graph.input[0].name == "input"
    images, expected = np.load(file.images), np.load(file.expected)
    assert np.abs(expected - evaluated(file.path, images)).max() < 1e-3 * np.abs(expected).max()
