"""The table of what runs a bundle's files: every row names something that is there, and nothing is loaded to read it."""

from __future__ import annotations

import inspect

import pytest

from slimexport.target.backends import BACKENDS, DEFAULT, FORMATS, Backend, backend_for, format_of, load
from slimexport.target.precision import PRECISIONS
from tests.support.export_helpers import python

ROWS = pytest.mark.parametrize("row", BACKENDS.values(), ids=list(BACKENDS))


@ROWS
def test_what_a_row_names_is_there(row: Backend) -> None:
    assert row.format in FORMATS and format_of(row.name) == row.format
    opener = load(row.opener)
    assert list(inspect.signature(opener).parameters)[:2] == ["path", "artifact"]
    assert all(isinstance(row.cannot_run(precision), str) for precision in PRECISIONS)


def test_the_first_of_a_format_runs_it_by_default() -> None:
    assert [backend_for(form) for form in FORMATS] == ["onnxruntime-cpu", "tensorrt", "tensorrt-rtx"]
    assert DEFAULT == "onnxruntime-cpu"


def test_what_a_cpu_of_onnxruntime_cannot_run_is_told_and_openvino_runs_all() -> None:
    assert BACKENDS["onnxruntime-cpu"].cannot_run("fp32") == ""
    assert "kernels for bf16" in BACKENDS["onnxruntime-cpu"].cannot_run("bf16")
    lacking = [precision for precision in PRECISIONS if BACKENDS["onnxruntime-cuda"].cannot_run(precision)]
    assert lacking == ["bf16"], "an H200 said so of onnxruntime 1.31"
    assert not any(BACKENDS["openvino"].cannot_run(precision) for precision in PRECISIONS)


def test_the_table_needs_no_library() -> None:
    done = python("import slimexport.target.backends", without=("onnxruntime", "openvino", "tensorrt", "numpy"))
    assert done.returncode == 0, done.stderr
