"""The table of backends: every row is whole, what it names is there, and one more row is all that another backend takes."""

from __future__ import annotations

import inspect
import string
from dataclasses import fields, replace
from pathlib import Path

import pytest

from benchmarks.cells.backends import ALWAYS, BACKENDS, CPU, CUDA, NEVER, WITH_FILES, Backend
from benchmarks.cells.cell import NotMeasured, Options
from benchmarks.cells.plan_cells import choose_backends, open_bundle
from benchmarks.cells.records import read_records
from benchmarks.cli import main
from slimexport.target.backends import FORMATS, load
from tests.support.bench_backend import MACS_PER_S, MADE_UP
from tests.support.export_helpers import python
from tests.support.trt_helpers import write_bundle

ROWS = pytest.mark.parametrize("row", BACKENDS.values(), ids=list(BACKENDS))
OPTIONS = {field.name for field in fields(Options)}


@pytest.fixture
def invented(monkeypatch: pytest.MonkeyPatch) -> Backend:
    monkeypatch.setitem(BACKENDS, MADE_UP.name, MADE_UP)
    return MADE_UP


@ROWS
def test_every_row_is_whole(row: Backend) -> None:
    assert BACKENDS[row.name] is row
    assert row.title and row.packages
    assert row.format in FORMATS and row.device in ("", CPU, CUDA) and row.auto in (NEVER, ALWAYS, WITH_FILES)
    assert set(row.settings) <= OPTIONS
    assert ("device" in row.settings) == (row.device == "")  # somebody says where it runs, and nobody twice
    assert bool(row.probe) != bool(row.no_probe)
    assert {name for _, name, _, _ in string.Formatter().parse(row.no_files) if name} <= {"folder", "asked"}
    assert not (row.needs_gpu and row.device)


@ROWS
def test_what_a_row_names_is_there(row: Backend) -> None:
    assert list(inspect.signature(row.load_runner()).parameters) == ["cell", "path", "inputs", "options"]
    if row.probe:
        assert list(inspect.signature(load(row.probe)).parameters) == ["precision", "options"]


@ROWS
def test_a_backend_is_given_what_it_honours_and_the_rest_as_it_is_by_default(row: Backend) -> None:
    given = Options(threads=7, cuda_graph=False, transfers=True, device=CUDA, checkpoint=Path("a.pt"))
    for name in OPTIONS:
        expected = given if name in row.settings else Options()
        assert getattr(row.honoured(given), name) == getattr(expected, name)
    assert row.device_of(given) == (row.device or CUDA) and row.device_of(Options()) == (row.device or CPU)


def test_the_table_needs_no_library() -> None:
    code = "from benchmarks.cells.backends import BACKENDS\nassert len(BACKENDS) >= 7"
    done = python(code, without=("torch", "onnx", "onnxruntime", "openvino", "tensorrt"))
    assert done.returncode == 0, done.stderr


def test_a_missing_package_is_a_reason_that_names_it(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "net")
    code = (
        "from pathlib import Path\nfrom benchmarks.cells.backends import BACKENDS, CUDA\n"
        "from benchmarks.cells.cell import Cell, NotMeasured, Options\n"
        "from benchmarks.runners.opening import open_runner\n"
        "for name, row in BACKENDS.items():\n"
        "    cell = Cell('b', 'net', 'net_x0_5', 'x0_5', 0.5, '0.5x', 'net_x0_5.onnx', name, 'fp32', 1, 4, 1, 1, 1)\n"
        "    try:\n"
        f"        open_runner(cell, Path({str(bundle)!r}), None, Options(device=CUDA))\n"
        "    except NotMeasured as error:\n"
        "        assert any(package in str(error) for package in row.packages) or 'GPU' in str(error), (name, error)\n"
        "        assert 'install' in str(error) or 'driver' in str(error) or 'GPU' in str(error), (name, error)\n"
        "        print(name)\n"
    )
    done = python(code, without=("torch", "onnx", "onnxruntime", "openvino", "tensorrt"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(BACKENDS)


def test_a_mistake_in_a_runners_module_is_no_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = replace(MADE_UP, runner="tests.support.no_such_module:Runner")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        broken.load_runner()


def test_what_a_row_refuses() -> None:
    row = replace(MADE_UP, device="", settings=("device",), needs_gpu="it needs a GPU", precisions=("fp32", "fp16"))
    with pytest.raises(NotMeasured, match="it needs a GPU"):
        row.require_device(Options(device=CPU))
    row.require_device(Options(device=CUDA))
    for precision in ("fp32", "tf32", "fp16"):
        row.require_precision(precision)
    with pytest.raises(NotMeasured, match="nothing is measured in fp32, tf32, fp16, not in int8"):
        row.require_precision("int8")
    replace(row, precisions=()).require_precision("int8")
    with pytest.raises(NotMeasured, match="nobody knows"):
        replace(row, probe="", no_probe="nobody knows").open_probe("fp32", Options(device=CUDA))


def test_one_row_more_is_a_backend_from_the_command_line_to_the_report(invented: Backend, tmp_path: Path) -> None:
    bundle, out = write_bundle(tmp_path / "net", precisions=("fp32", "fp16")), tmp_path / "out"
    assert choose_backends("auto", False, [open_bundle(bundle)], False) == ("onnxruntime-cpu", "made-up")
    assert choose_backends("all", False, [], False)[-1] == "made-up"
    words = ["--backends", "made-up", "--batches", "1,2", "--duration", "0.02", "--warmup", "0", "--repeats", "2"]
    words += [
        "--threads",
        "1",
        "--no-cuda-graph",
        "--transfers",
        "--cache-mib",
        "0.01",
        "--output-dir",
        str(out),
        "--no-plots",
    ]
    with pytest.raises(SystemExit) as ended:
        main([str(bundle), *words])
    assert ended.value.code == 0
    recorded = read_records(out)
    assert {(result.cell.precision, result.cell.batch, result.cell.label) for result in recorded.results} == {
        ("fp32", batch, label) for batch in (1, 2) for label in ("0.5x", "1.0x")
    }
    for result in recorded.results:
        assert result.status == "measured" and not [line for line in result.warnings if "output" in line]
        assert (result.settings["threads"], result.settings["cuda_graph"], result.settings["transfers"]) == (1, True, False)
    ceilings = recorded.run["ceilings"]["made-up fp32"]
    assert ceilings["macs_per_s"] == pytest.approx(MACS_PER_S) and ceilings["how"]["threads"] == 1
    assert (ceilings["bytes_per_s"], ceilings["seconds_per_operator"]) == pytest.approx((1e9, 1e-6))
    assert "### made-up, fp32" in (out / "report.md").read_text()


def test_a_bundle_without_its_files_says_what_the_row_says(invented: Backend, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "net", precisions=("fp16",))
    with pytest.raises(SystemExit) as ended:
        main(
            [str(bundle), "--backends", "made-up", "--precision", "fp16", "--output-dir", str(tmp_path / "out"), "--no-plots"]
        )
    assert ended.value.code == 3
    (reason,) = {result.reason for result in read_records(tmp_path / "out").results}
    assert reason == f"has nothing to make up in {bundle} in fp16"
