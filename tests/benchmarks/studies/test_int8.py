"""What the study of int8 says of its rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.studies.int8 import _earlier, table, verdicts
from slimtrain.base.errors import UserError


def row(ratio: float, size: int = 100, **more: Any) -> dict[str, Any]:
    times = {"onnxruntime": {"1": {"ms": 10 * ratio, "ratio": ratio, "quarters": [ratio, ratio]}}}
    return {"bytes": size, "kernels": {"Conv": 2}, "cosine": 0.99, "top1_agreement": 1.0, "times": times, **more}


def rows(ours: float, theirs: tuple[float, float]) -> dict[str, dict[str, Any]]:
    return {
        "fp32": row(1.0, 400, top1=0.9),
        "int8-cpu": row(ours, kernels={"QLinearConv": 2, "QuantizeLinear": 3, "DequantizeLinear": 4}, top1=0.89),
        "QDQ U8S8 min-max": row(theirs[0], top1=0.88),
        "QDQ S8S8 min-max": row(theirs[1], top1=0.88),
    }


def test_our_file_is_held_to_the_best_of_the_others_and_to_fp32() -> None:
    (line,) = verdicts(rows(0.5, (0.6, 0.55)))
    assert line == "onnxruntime, 1 thread: int8-cpu takes 0.91 of QDQ S8S8 min-max, 0.50 of fp32"
    (line,) = verdicts(rows(0.5, (0.48, 0.9)))
    assert line.endswith("takes 1.04 of QDQ U8S8 min-max, 0.50 of fp32: slower than the best")
    (line,) = verdicts(rows(1.2, (1.3, 1.4)))
    assert line.endswith("1.20 of fp32: int8 does not pay")


def test_a_table_has_a_line_for_each_file() -> None:
    measured = rows(0.5, (0.6, 0.55))
    measured["QDQ S8S8 min-max"]["times"] = {}
    _, *lines = table(measured).splitlines()
    assert [line.strip().split("  ")[0] for line in lines] == list(measured)
    assert lines[1].split()[1:] == ["0.250", "0.99000", "100.0%", "7", "5.00", "ms", "(0.50)", "89.00%"]
    assert "not read" in lines[3] and "not read" not in lines[2]


def test_resuming_keeps_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    assert _earlier(path, True) == {} and _earlier(path, False) == {}
    path.write_text(json.dumps({"results": {"net": {}}}))
    assert _earlier(path, True) == {"net": {}} and _earlier(path, False) == {}
    with pytest.raises(UserError, match="says nothing without --json"):
        _earlier(None, True)
