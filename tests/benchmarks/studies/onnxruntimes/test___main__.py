"""The study of onnxruntime's versions: environments, what runs in one, and its table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks.studies.consumers.files import NetworkFile
from benchmarks.studies.onnxruntimes import __main__ as study


@pytest.fixture
def file(tmp_path: Path) -> NetworkFile:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("input", "output")]
    graph = helper.make_graph([helper.make_node("Neg", ["input"], ["output"])], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "x.onnx")
    images = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "expected.npy", -1.1 * images)
    return NetworkFile("net", 1.0, "fp32", tmp_path / "x.onnx", tmp_path / "images.npy", tmp_path / "expected.npy")


def test_an_environment_runs_all_files_and_says_what_is_off_and_what_does_not_run(file: NetworkFile) -> None:
    lost = NetworkFile("net", 1.0, "fp16", file.path.with_name("no.onnx"), file.images, file.expected)
    result = study.outcomes(Path(sys.executable), [file, lost])
    assert result["numpy"] == np.__version__ and result["onnxruntime"].startswith("1.")
    good, bad = result["rows"]
    assert good["max_rel_error"] == pytest.approx(1 / 11, rel=1e-3) and good["top1_agreement"] == 1 and good["ms"] > 0
    assert (good["network"], good["precision"]) == ("net", "fp32") and "no.onnx" in bad["error"]


def test_an_environment_that_breaks_is_a_row(file: NetworkFile, tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'no module' >&2\nexit 1\n")
    broken.chmod(0o755)
    assert study.outcomes(broken, [file]) == {"error": "no module"}


def test_old_versions_get_an_old_numpy_and_what_is_there_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Any] = []

    def failed(words: Any) -> str:
        ran.append(words)
        return "ERROR: No matching distribution" if "pip" in words and "onnxruntime==1.17.*" in words else ""

    monkeypatch.setattr(study, "_failed", failed)
    python = study.environment_of(tmp_path, "1.16")
    assert python == tmp_path / "1.16" / "bin" / "python"
    assert "onnxruntime==1.16.*" in ran[1] and "numpy<2" in ran[1]
    assert study.environment_of(tmp_path, "1.17") == "ERROR: No matching distribution"
    study.environment_of(tmp_path, "1.19")
    assert "numpy" in ran[-2] and "numpy<2" not in ran[-2]
    python.parent.mkdir(parents=True)
    python.touch()
    ran.clear()
    assert study.environment_of(tmp_path, "1.16") == python and len(ran) == 1


def test_the_table_has_a_line_for_each_version() -> None:
    rows = [
        {"precision": "fp32", "max_rel_error": 1e-6},
        {"precision": "fp32", "max_rel_error": 2e-6},
        {"precision": "int8", "error": "no kernel"},
        {"precision": "bf16", "max_rel_error": None},
    ]
    text = study.summary({"1.16": {"onnxruntime": "1.16.3", "rows": rows}, "1.32": {"error": "no such version"}})
    assert [" ".join(line.split()) for line in text.splitlines()] == [
        "onnxruntime fp32 int8 bf16 why not",
        "1.16.3 2 of 2, 2.0e-06 0 of 1 1 of 1, not finite no kernel",
        "1.32 - - - no such version",
    ]
