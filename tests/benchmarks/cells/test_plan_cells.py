"""From bundles to cells: what is tried, what has no file, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cells.backends import BACKENDS
from benchmarks.cells.cell import Cell
from benchmarks.cells.plan_cells import Wanted, choose_backends, label_of, open_bundle, plan_cells
from slimexport.target.errors import BundleError
from slimexport.target.records import to_json
from tests.support.bundle_helpers import artifact, as_json, with_file


def entry(folder: Path, width: Any = 0.5, precision: str = "fp32", kind: str = "onnx", **more: Any) -> dict[str, Any]:
    """A file of some content, and its entry in a manifest."""
    name = "net_x" + str(width).replace(".", "_")
    file = f"{name}.{precision}.{'plan' if kind == 'trt' else kind}"
    described = with_file(folder, artifact(name, None, precision, format=kind, file=file))
    return {**to_json(described), "width": width, **more}


def write(folder: Path, entries: list[dict[str, Any]], **changes: Any) -> Path:
    content = {**as_json(image_size=64), "artifacts": entries, **changes}
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder


def keys(cells: list[Cell]) -> list[tuple[str, str, int, Any]]:
    return [(cell.backend, cell.precision, cell.batch, cell.width) for cell in cells]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    both = [entry(tmp_path, width, precision) for width in (0.5, 1.0) for precision in ("fp32", "fp16", "int8")]
    return write(tmp_path, both)


def test_cells_of_a_group_follow_each_other(bundle: Path) -> None:
    wanted = Wanted(("onnxruntime-cpu", "slimmable"), (1, 8), ("fp32", "fp16"))
    cells, refused = plan_cells(open_bundle(bundle), wanted)
    expected = [("onnxruntime-cpu", p, b, w) for p in ("fp32", "fp16") for b in (1, 8) for w in (0.5, 1.0)]
    expected += [("slimmable", "fp32", b, w) for b in (1, 8) for w in (0.5, 1.0)]
    assert keys(cells) == expected
    assert not refused
    groups = [cell.group for cell in cells]
    assert len(dict.fromkeys(groups)) == sum(a != b for a, b in zip(groups, [None, *groups], strict=False))


def test_torch_is_not_tried_on_int8(bundle: Path) -> None:
    cells, _ = plan_cells(open_bundle(bundle), Wanted(("torch-eager",), (1,)))
    assert {cell.precision for cell in cells} == {"fp32", "fp16"}


def test_a_backend_without_a_file_is_a_row_with_its_reason(bundle: Path) -> None:
    cells, refused = plan_cells(open_bundle(bundle), Wanted(("tensorrt",), (1, 8)))
    assert not cells
    assert [(r.cell.width, r.cell.batch, r.status) for r in refused] == [
        (w, b, "not measured") for b in (1, 8) for w in (0.5, 1.0)
    ]
    assert all("no engines" in r.reason and "slimexport --bundle" in r.reason for r in refused)
    _, refused = plan_cells(open_bundle(bundle), Wanted(("torch-eager", "slimmable"), (1,), ("int8",)))
    assert {r.cell.backend: r.reason for r in refused}.keys() == {"torch-eager", "slimmable"}


def test_engines_are_tensorrts_and_take_the_accuracy_of_their_onnx_file(tmp_path: Path) -> None:
    accuracy = {"top1": 0.9, "images": 10, "data": "digits"}
    entries = [entry(tmp_path, accuracy=accuracy), entry(tmp_path, kind="trt", accuracy=None, activations=5, layers=2)]
    cells, _ = plan_cells(open_bundle(write(tmp_path, entries)), Wanted(("tensorrt", "onnxruntime-cpu"), (4,)))
    engine, onnx = cells
    assert (engine.file, onnx.file) == ("net_x0_5.fp32.plan", "net_x0_5.fp32.onnx")
    assert engine.accuracy == {**accuracy, "measured_on": onnx.file}
    assert onnx.accuracy == accuracy
    assert (engine.activations, engine.layers, onnx.activations) == (5, 2, None)
    assert engine.plan == "x0_5"


@pytest.mark.parametrize(("width", "label"), [(0.5, "0.5x"), (1.0, "1.0x"), (1, "s1"), (None, "net_xNone")])
def test_labels(width: Any, label: str) -> None:
    assert label_of(artifact(f"net_x{width}", width)) == label


def test_widths_and_precisions_that_are_not_there(bundle: Path) -> None:
    opened = open_bundle(bundle)
    with pytest.raises(BundleError, match=r"no width 0\.33, it has 0\.5, 1\.0"):
        plan_cells(opened, Wanted(("onnxruntime-cpu",), (1,), widths=(0.33, 0.5)))
    with pytest.raises(BundleError, match="no bf16 files, it has fp16, fp32, int8"):
        plan_cells(opened, Wanted(("onnxruntime-cpu",), (1,), ("bf16",)))
    cells, _ = plan_cells(opened, Wanted(("onnxruntime-cpu",), (1,), ("fp32",), (1.0,)))
    assert [cell.width for cell in cells] == [1.0]


def test_a_changed_file_is_refused_before_anything_is_measured(bundle: Path) -> None:
    (bundle / "net_x0_5.fp32.onnx").write_bytes(b"something else")
    opened = open_bundle(bundle)
    with pytest.raises(BundleError, match="SHA-256"):
        plan_cells(opened, Wanted(("onnxruntime-cpu",), (1,)))
    plan_cells(opened, Wanted(("onnxruntime-cpu",), (1,), widths=(1.0,)))  # not among what is asked for


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": {}}, r"source\.file is missing"),
        ({"source": None}, "source is null, expected an object"),
        ({"input": {"name": "input", "channels": 3}}, r"input\.image_size is missing"),
        ({"artifacts": []}, "lists no files"),
        ({"schema_version": 2}, "schema version"),
        ({"input": {**as_json()["input"], "image_size": 0}}, "no image size"),
        ({"artifacts": [{"file": "a.onnx"}]}, r"artifacts\[0\]\.name is missing"),
    ],
)
def test_manifests_that_cannot_be_used(bundle: Path, changes: dict[str, Any], message: str) -> None:
    write(bundle, [], **{"artifacts": [entry(bundle)], **changes})
    with pytest.raises(BundleError, match=message) as raised:
        open_bundle(bundle)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("macs", 0, "the entry of net_x0_5.fp32.onnx lacks a usable macs"),
        ("macs", "1", 'macs is "1"'),
        ("activations", "x", 'activations is "x"'),
        ("width", [1], r"width is \[1\]"),
        ("accuracy", {"top1": "x", "images": 1, "data": "d"}, r'accuracy\.top1 is "x"'),
        ("accuracy", "90 %", 'accuracy is "90 %"'),
    ],
)
def test_nonsense_in_an_entry_is_refused_before_it_is_measured(key: str, value: Any, message: str, tmp_path: Path) -> None:
    write(tmp_path, [{**entry(tmp_path), key: value}])
    with pytest.raises(BundleError, match=message):
        open_bundle(tmp_path)


def test_a_file_is_no_bundle(bundle: Path) -> None:
    with pytest.raises(BundleError, match="is a file"):
        open_bundle(bundle / "manifest.json")


def test_widths_and_precisions_that_are_not_there_together(tmp_path: Path) -> None:
    write(tmp_path, [entry(tmp_path, 0.5), entry(tmp_path, 1.0, "fp16")])
    with pytest.raises(BundleError, match=r"no fp16 files of width 0\.5"):
        plan_cells(open_bundle(tmp_path), Wanted(("onnxruntime-cpu",), (1,), ("fp16",), (0.5,)))


def test_a_folder_without_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json"):
        open_bundle(tmp_path)


def test_backends_that_a_word_stands_for(bundle: Path, tmp_path: Path) -> None:
    opened = [open_bundle(bundle)]
    assert choose_backends("auto", False, opened, False) == ("onnxruntime-cpu",)
    assert choose_backends("auto", True, opened, True) == ("onnxruntime-cuda", "slimmable")
    assert choose_backends("all", False, opened, False) == tuple(BACKENDS)
    assert choose_backends("slimmable, torch-eager,slimmable", False, opened, False) == ("slimmable", "torch-eager")
    write(tmp_path, [entry(tmp_path), entry(tmp_path, kind="trt")])
    assert choose_backends("auto", True, [open_bundle(tmp_path)], False) == ("onnxruntime-cuda", "tensorrt")
    assert choose_backends("auto", False, [open_bundle(tmp_path)], False) == ("onnxruntime-cpu",)
