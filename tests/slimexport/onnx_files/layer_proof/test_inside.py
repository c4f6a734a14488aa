"""What is recorded of a file's layers, against sessions of its own, and what is left out of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, save

from slimexport.onnx_files.layer_proof import inside as module
from slimexport.onnx_files.layer_proof.inside import images_of, record_inside, with_inside
from slimexport.onnx_files.runner import source_in
from slimexport.onnx_files.typed import TYPES, declare
from slimexport.target.arrays import Array
from slimexport.target.inside import recorded
from slimexport.target.precision import row_of
from slimexport.target.proof.inside import held_to_inside
from slimexport.target.verification import PASSED, Verification
from tests.support.bundle_helpers import artifact
from tests.support.onnx_writing import nodes_onnx

DRAW = np.random.default_rng(3)
IMAGES = DRAW.normal(size=(4, 3, 6, 6)).astype(np.float32)


def _file(
    path: Path, nodes: Sequence[onnx.NodeProto], tensors: dict[str, Array], outputs: dict[str, Sequence[Any]], opset: int = 17
) -> Path:
    save(nodes_onnx(nodes, tensors, 6, outputs, opset), path)
    return path


def _plain(path: Path) -> Path:
    nodes = [
        helper.make_node("Conv", ["input", "w1"], ["first"]),
        helper.make_node("Relu", ["first"], ["positive"]),
        helper.make_node("Conv", ["positive", "w2"], ["second"]),
        helper.make_node("Flatten", ["second"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w3"], ["output"]),
    ]
    shapes = {"w1": (4, 3, 1, 1), "w2": (4, 4, 3, 3), "w3": (64, 5)}
    tensors = {name: DRAW.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return _file(path, nodes, tensors, {"output": ["N", 5]})


def test_layers_are_given_numbers_as_large_as_they_have_themselves(tmp_path: Path) -> None:
    path = _plain(tmp_path / "file.onnx")
    inside = record_inside(path, "fp32", IMAGES)
    assert inside is not None
    model = onnx.load(path)
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in ("first", "second"))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    natural = dict(zip(("output", "first", "second"), session.run(None, {"input": IMAGES}), strict=True))
    assert [value.name for value in inside.listing.values] == ["first", "second", "output"]
    for value in inside.listing.values:
        assert value.compared and value.shape == natural[value.name].shape
        if value.name != "output":
            assert value.middle == pytest.approx(float(natural[value.name].mean()), abs=1e-5)
            assert value.spread == pytest.approx(float(natural[value.name].std()), rel=1e-4)
    assert inside.listing.values[-1].spread is None and inside.listing.images == 4
    assert 0 < inside.moved.max() < 1e-3
    check = held_to_inside(source_in(path, "fp32"), inside, IMAGES, row_of("fp32"), Verification(status=PASSED))
    assert check.passed and check.inside_error is not None and check.inside_error < 0.1


def test_small_images_are_run_together() -> None:
    assert [images_of(3 * size**2) for size in (32, 64, 128, 224, 1000)] == [8, 8, 2, 1, 1]


@pytest.mark.parametrize("number", ["float16", "bfloat16"])
def test_numbers_of_other_types_are_given_in_their_type(number: str, tmp_path: Path) -> None:
    """Of files that run here and of those that only their cast twin does."""
    kind, precision = TYPES[number], {"float16": "fp16", "bfloat16": "bf16"}[number]
    nodes = [
        helper.make_node("Cast", ["input"], ["typed"], to=kind.tensor),
        helper.make_node("Conv", ["typed", "w1"], ["first"]),
        helper.make_node("Relu", ["first"], ["positive"]),
        helper.make_node("Conv", ["positive", "w2"], ["second"]),
        helper.make_node("Cast", ["second"], ["output"], to=TensorProto.FLOAT),
    ]
    weights = {
        "w1": DRAW.normal(size=(4, 3, 1, 1)).astype(kind.array),
        "w2": DRAW.normal(size=(4, 4, 3, 3)).astype(kind.array),
    }
    path = _file(tmp_path / "file.onnx", nodes, weights, {"output": ["N", 4, 4, 4]})
    model = onnx.load(path)
    declare(model, precision, kind.opset, kind.ir_version)
    save(model, path)
    inside = record_inside(path, precision, IMAGES)
    assert inside is not None
    assert {value.name: value.kind for value in inside.listing.given} == {"first": kind.tensor, "second": kind.tensor}
    assert source_in(path, precision).single == (number == "bfloat16")


def test_what_roundings_change_by_much_is_not_compared(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["input", "w1"], ["first"]),
        helper.make_node("Mul", ["first", "large"], ["far"]),
        helper.make_node("Sin", ["far"], ["chaos"]),
        helper.make_node("Conv", ["chaos", "w2"], ["second"]),
        helper.make_node("Conv", ["input", "w1"], ["third"]),
        helper.make_node("Add", ["second", "third"], ["output"]),
    ]
    tensors = {
        "w1": DRAW.normal(size=(4, 3, 1, 1)).astype(np.float32),
        "w2": DRAW.normal(size=(4, 4, 1, 1)).astype(np.float32),
        "large": np.array(1e6, np.float32),
    }
    inside = record_inside(_file(tmp_path / "file.onnx", nodes, tensors, {"output": ["N", 4, 6, 6]}), "fp32", IMAGES)
    assert inside is not None
    assert {value.name: value.compared for value in inside.listing.values} == {
        "first": True,
        "second": False,
        "third": True,
        "output": True,
    }
    assert len(inside.sketches) == 3


def _choosing(path: Path) -> Path:
    """Scores that are put in order as they are, and rows that are taken in that order, two of them put together."""
    nodes = [
        helper.make_node("Conv", ["input", "w1"], ["scores"]),
        helper.make_node("Conv", ["input", "w2"], ["codes"]),
        helper.make_node("Reshape", ["scores", "row"], ["flat"]),
        helper.make_node("TopK", ["flat", "count"], ["best", "places"], axis=1),
        helper.make_node("Reshape", ["codes", "row"], ["rows"]),
        helper.make_node("GatherElements", ["rows", "places"], ["taken"], axis=1),
        helper.make_node("Add", ["taken", "anchor"], ["moved"]),
        helper.make_node("Mul", ["taken", "anchor"], ["grown"]),
        helper.make_node("Concat", ["moved", "grown"], ["both"], axis=1),
        helper.make_node("ReduceMax", ["both"], ["output"], axes=[1], keepdims=1),
    ]
    tensors = {
        "w1": DRAW.normal(size=(4, 3, 1, 1)).astype(np.float32),
        "w2": DRAW.normal(size=(4, 3, 1, 1)).astype(np.float32),
        "row": np.array([0, 144]),
        "count": np.array([100]),
        "anchor": np.array(3, np.float32),
    }
    return _file(path, nodes, tensors, {"output": ["N", 1]})


def test_networks_that_choose_are_compared_where_branches_meet(tmp_path: Path) -> None:
    """The same numbers are in the same order everywhere, so that what is taken in that order is the same, too."""
    path = _choosing(tmp_path / "file.onnx")
    inside = record_inside(path, "fp32", IMAGES)
    assert inside is not None
    assert {value.name: value.compared for value in inside.listing.values} == dict.fromkeys(
        ("scores", "codes", "moved", "grown", "output"), True
    )
    assert inside.listing.images == 2, "of many images one would have near-equals"
    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type == "Add":
            node.op_type = "Sub"
    save(model, path)
    check = held_to_inside(source_in(path, "fp32"), inside, IMAGES, row_of("fp32"), Verification(status=PASSED))
    assert not check.passed and check.reason is not None and "moved is another one" in check.reason


def test_what_does_not_run_in_pieces_has_no_record(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nodes = [
        helper.make_node("Conv", ["input", "w1"], ["first"]),
        helper.make_node("Clip", ["first", "low", "high"], ["bounded"]),
        helper.make_node("Cast", ["first"], ["places"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "places"], ["output"]),
    ]
    tensors = {
        "w1": np.full((4, 3, 1, 1), 1e-3, np.float32),
        "low": np.array(0, np.float32),
        "high": np.array(1, np.float32),
        "table": DRAW.normal(size=1).astype(np.float32),
    }
    path = _file(tmp_path / "file.onnx", nodes, tensors, {"output": ["N", 4, 6, 6]})
    with caplog.at_level(logging.INFO):
        assert record_inside(path, "fp32", 1000 * IMAGES) is None
    assert "are not recorded one by one" in caplog.text


def test_a_verification_tells_how_many_values_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, entry = _plain(tmp_path / "file.onnx"), artifact(precision="fp32", activations=300)
    check, arrays = with_inside(path, "x0_5", entry, IMAGES)
    assert check.inside == 3 and set(arrays) == {
        f"inside_x0_5.fp32.{part}" for part in ("values", "sketches", "scales", "moved")
    }
    monkeypatch.setattr(recorded, "most_numbers", lambda activations, images: images * activations // 100)
    assert with_inside(path, "x0_5", entry, IMAGES) == (entry.verification, {})
    monkeypatch.undo()
    monkeypatch.setattr(module, "MOST_INSIDE", 100)
    assert with_inside(path, "x0_5", entry, IMAGES) == (entry.verification, {}), "as of thousands of layers with long names"


def test_numbers_that_no_list_holds_are_not_given(tmp_path: Path) -> None:
    """A bundle that tells of such a value could not be read."""
    weights = DRAW.normal(size=(4, 3, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "large"], ["huge"]),
        helper.make_node("Conv", ["huge", "small"], ["output"]),
    ]
    back = (1e-32 * DRAW.normal(size=(4, 4, 1, 1))).astype(np.float32)
    tensors = {"large": weights * np.float32(1e32), "small": back}
    path = _file(tmp_path / "file.onnx", nodes, tensors, {"output": ["N", 4, 6, 6]})
    check, arrays = with_inside(path, "x0_5", artifact(precision="fp32", activations=300), IMAGES)
    assert check.inside is None or recorded.inside_in(arrays, "x0_5", "fp32", len(IMAGES), 300) is not None
    inside = record_inside(path, "fp32", IMAGES)
    assert inside is None or "huge" not in {value.name for value in inside.listing.given}


def test_numbers_that_fewer_bits_hardly_hold_are_not_compared(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["input"], ["typed"], to=TensorProto.FLOAT16),
        helper.make_node("Conv", ["typed", "small"], ["tiny"]),
        helper.make_node("Conv", ["typed", "usual"], ["fair"]),
        helper.make_node("Add", ["tiny", "fair"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["output"], to=TensorProto.FLOAT),
    ]
    usual = DRAW.normal(size=(4, 3, 1, 1)).astype(np.float16)
    tensors = {"usual": usual, "small": (usual * np.float16(1e-5)).astype(np.float16)}
    inside = record_inside(_file(tmp_path / "file.onnx", nodes, tensors, {"output": ["N", 4, 6, 6]}), "fp16", IMAGES)
    assert inside is not None
    assert {value.name: value.compared for value in inside.listing.values} == {"tiny": False, "fair": True, "output": True}
