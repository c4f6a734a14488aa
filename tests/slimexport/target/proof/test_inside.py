"""A file is held, layer by layer, against what it gave of drawn numbers when it was proven."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from slimexport.target.arrays import Array
from slimexport.target.inside.recorded import Inside, Listing, Value
from slimexport.target.precision import row_of
from slimexport.target.proof import inside as module
from slimexport.target.proof.inside import LIMITS, Feed, Source, held_to_inside, limits_of, sketches, source_of
from slimexport.target.runners import OnnxRuntimeRunner
from slimexport.target.verification import FAILED, PASSED, Verification
from tests.support.onnx_writing import nodes_onnx

DRAW = np.random.default_rng(9)
IMAGES = DRAW.normal(size=(3, 3, 6, 6)).astype(np.float32)
CHECK = Verification(status=PASSED, backend="onnxruntime-cpu")
LISTING = Listing(
    seed=0,
    images=2,
    values=(
        Value(name="first", shape=(2, 8, 6, 6), spread=1.0),
        Value(name="second", shape=(2, 8, 6, 6), middle=0.3, spread=2.0),
        Value(name="output", shape=(2, 5)),
    ),
)


def _model() -> onnx.ModelProto:
    shapes = {"w1": (8, 3, 1, 1), "b1": (8,), "w2": (8, 8, 3, 3), "b2": (8,), "w3": (8, 5)}
    nodes = [
        helper.make_node("Conv", ["input", "w1", "b1"], ["first"]),
        helper.make_node("Relu", ["first"], ["positive"]),
        helper.make_node("Conv", ["positive", "w2", "b2"], ["second"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["positive", "second"], ["sum"]),
        helper.make_node("GlobalAveragePool", ["sum"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w3"], ["output"]),
    ]
    draw = np.random.default_rng(1)
    tensors = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return nodes_onnx(nodes, tensors, 6, {"output": ["N", 5]})


def _source(model: onnx.ModelProto) -> Source:
    source = source_of(OnnxRuntimeRunner(Path("file.onnx"), model.SerializeToString()))
    assert source is not None
    return source


def _recorded() -> Inside:
    ((sums, scales),) = sketches(_source(_model()), LISTING, [Feed(IMAGES[:2], lambda _, numbers: numbers)])
    return Inside(LISTING, np.float32(sums), np.float32(scales), np.zeros((3, 2), np.float32))  # type: ignore[arg-type]


INSIDE = _recorded()


def _held(model: onnx.ModelProto, precision: str = "fp32") -> Verification:
    return held_to_inside(_source(model), INSIDE, IMAGES, row_of(precision), CHECK)


def test_the_same_file_passes_and_says_how_far_it_is_off() -> None:
    held = _held(_model())
    assert held.status == PASSED and held.inside == 3 and held.inside_error is not None and held.inside_error < 0.01


def _weights(name: str, change: Callable[[Array], Array]) -> Callable[[onnx.ModelProto], None]:
    def changed(model: onnx.ModelProto) -> None:
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
        values = np.ascontiguousarray(change(numpy_helper.to_array(tensor).copy()))
        tensor.CopyFrom(numpy_helper.from_array(values, name))

    return changed


def _reading(node: int, place: int, name: str) -> Callable[[onnx.ModelProto], None]:
    def changed(model: onnx.ModelProto) -> None:
        model.graph.node[node].input[place] = name

    return changed


def _pads(model: onnx.ModelProto) -> None:
    model.graph.node[2].attribute[0].ints[:] = [0, 2, 2, 0]


def _stride(model: onnx.ModelProto) -> None:
    model.graph.node[2].attribute.append(helper.make_attribute("strides", [2, 2]))


def _one_sign(values: Array) -> Array:
    values[0, 0, 0, 0] *= -1
    return values


DEFECTS: dict[str, tuple[str, Callable[[onnx.ModelProto], None]]] = {
    "a sign": ("second", _weights("w2", _one_sign)),
    "a bias": ("first", _weights("b1", lambda values: values * 1.05)),
    "channels swapped": ("first", _weights("w1", lambda values: values[::-1])),
    "a kernel rolled": ("second", _weights("w2", lambda values: np.roll(values, 1, 3))),
    "classes swapped": ("output", _weights("w3", lambda values: values[:, ::-1])),
    "a residual dropped": ("output", _reading(3, 0, "second")),
    "another layer's values": ("second", _reading(2, 0, "first")),
    "pads": ("second", _pads),
    "what is not finite": ("first", _weights("b1", lambda values: values * np.nan)),
}


PRECISIONS = ("fp32", "fp16", "bf16", "int8")
WRONG = [(defect, precision) for defect in DEFECTS for precision in PRECISIONS if defect != "a bias" or precision == "fp32"]


@pytest.mark.parametrize(("defect", "precision"), WRONG)  # a bias of these numbers may be rounding in fewer bits
def test_what_is_wrong_with_a_layer_is_told_by_its_name(defect: str, precision: str) -> None:
    layer, change = DEFECTS[defect]
    model = _model()
    change(model)
    held = _held(model, precision)
    assert held.status == FAILED and held.reason is not None and f"{layer} is another one" in held.reason
    assert (held.inside_error is None) == (defect == "what is not finite")


def test_another_shape_is_wrong() -> None:
    model = _model()
    _stride(model)
    model.graph.node[3].input[0] = "second"
    held = _held(model)
    assert held.status == FAILED and held.inside_error is None


def test_a_value_that_is_not_there_is_named() -> None:
    model = _model()
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "other"
    held = _held(model)
    assert held.status == FAILED and held.reason is not None and "it has no value 'first'" in held.reason


def test_what_does_not_run_in_pieces_is_wrong() -> None:
    model = _model()
    model.graph.node[1].op_type = "Unheard"
    source = _source(_model())
    held = held_to_inside(replace(source, content=model.SerializeToString()), INSIDE, IMAGES, row_of("fp32"), CHECK)
    assert held.status == FAILED and held.reason is not None and "do not run one by one" in held.reason
    held = held_to_inside(replace(source, content=b"\xff" * 9), INSIDE, IMAGES, row_of("fp32"), CHECK)
    assert held.status == FAILED and held.reason is not None and "\n" not in held.reason


def test_what_roundings_moved_widens_limits_to_a_point() -> None:
    for precision in ("fp32", "fp16", "bf16", "int8"):
        row = row_of(precision)
        least, most = LIMITS[row.number]
        limits = limits_of(row, np.array([[-1.0, 0.0], [least, 3e38]], np.float32))
        np.testing.assert_allclose(limits, [[least, least], [min(4 * least, most), most]])


def test_large_files_are_run_in_several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    source, sizes = _source(_model()), []

    def opened(content: bytes) -> OnnxRuntimeRunner:
        sizes.append(len(content))
        return OnnxRuntimeRunner(Path("file.onnx"), content)

    monkeypatch.setattr(module, "MOST_AT_ONCE", 100)
    held = held_to_inside(replace(source, opened=opened), INSIDE, IMAGES, row_of("fp32"), CHECK)
    assert held.status == PASSED and len(sizes) == 3


def test_a_runner_that_opens_no_pieces_has_no_source() -> None:
    class Plain:
        backend = "test"

        def __call__(self, images: Array) -> Array:
            return images

    assert source_of(Plain()) is None


def test_a_piece_takes_no_more_numbers_than_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_TAKEN", 1367)
    held = _held(_model())
    assert held.status == FAILED and held.reason is not None
    assert "a piece takes 1,368 numbers, expected at most 1,367" in held.reason


def test_on_a_gpu_a_piece_that_does_not_run_says_nothing_of_the_file() -> None:
    """Kernels may lack there for a piece by itself; the file as a whole was compared."""
    model = _model()
    model.graph.node[1].op_type = "Unheard"
    source = replace(_source(_model()), content=model.SerializeToString())
    on_gpu = replace(CHECK, backend="onnxruntime-cuda")
    assert held_to_inside(source, INSIDE, IMAGES, row_of("fp32"), on_gpu) == on_gpu
