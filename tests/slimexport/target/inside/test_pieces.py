"""Pieces of files, cut out without the onnx package, against the whole file run by onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from slimexport.target.arrays import Array
from slimexport.target.inside.pieces import NotThere, Pieces, Place
from slimexport.target.onnx_scan import Malformed

DRAW = np.random.default_rng(5)
IMAGES = DRAW.normal(size=(2, 3, 4, 4)).astype(np.float32)


def _model(number: type = np.float32) -> onnx.ModelProto:
    """Two convolutions, a sum, a split, and a head, in numbers of a type."""
    weights = {
        "w1": DRAW.normal(size=(4, 3, 1, 1)),
        "w2": DRAW.normal(size=(4, 4, 3, 3)),
        "w3": DRAW.normal(size=(32, 5)),
        "unused": DRAW.normal(size=7),
    }
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(number))
    nodes = [
        helper.make_node("Cast", ["input"], ["typed"], to=kind),
        helper.make_node("Conv", ["typed", "w1"], ["first"], name="a name"),
        helper.make_node("Relu", ["first"], ["positive"]),
        helper.make_node("Conv", ["positive", "w2"], ["second"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["first", "second"], ["sum"]),
        helper.make_node("Split", ["sum"], ["left", "right"], axis=1),
        helper.make_node("Flatten", ["right"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w3"], ["logits"]),
        helper.make_node("Cast", ["logits"], ["output"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 4, 4])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(values.astype(number), name) for name, values in weights.items()],
        value_info=[helper.make_tensor_value_info("first", kind, ["N", 4, 4, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"network": "small"})
    return model


def _run(content: bytes, feeds: Array, name: str | None = None) -> list[Any]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return list(session.run(None if name is None else [name], {given.name: feeds}))


def _packed(*values: Array) -> Array:
    return np.concatenate([value.reshape(-1) for value in values])[None].astype(np.float32)


def _whole(model: onnx.ModelProto, names: Sequence[str]) -> list[Array]:
    """Inner values, given out by the onnx package."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    return [np.asarray(value) for value in _run(copy.SerializeToString(), IMAGES)[1:]]


@pytest.mark.parametrize("number", [np.float32, np.float16])
def test_a_piece_from_the_input_gives_what_the_file_computes_there(number: type) -> None:
    model = _model(number)
    names = ["sum", "first", "left", "output"]
    piece = Pieces(model.SerializeToString()).between([Place("input", IMAGES.shape)], names)
    assert piece.takes == (Place("input", IMAGES.shape),)
    given = _run(piece.content, _packed(IMAGES))
    for value, expected in zip(given, _whole(model, names), strict=True):
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, expected, rtol=1e-2 if number is np.float16 else 1e-5, atol=1e-2)
    assert b"unused" not in piece.content and b"small" not in piece.content


@pytest.mark.parametrize(("number", "kind"), [(np.float32, 1), (np.float16, 10)])
def test_a_given_value_takes_the_place_of_what_is_computed(number: type, kind: int) -> None:
    model = _model(number)
    first, second = (Place(name, (2, 4, 4, 4), kind) for name in ("first", "second"))
    piece = Pieces(model.SerializeToString()).between(
        [Place("input", IMAGES.shape), first, second], ["first", "second", "sum"]
    )
    one, two = (DRAW.normal(size=(2, 4, 4, 4)).astype(number).astype(np.float32) for _ in range(2))
    inner, conv, total = _run(piece.content, _packed(IMAGES, one, two))
    weights = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in model.graph.initializer}
    limit = 2e-2 if kind == 10 else 1e-4
    np.testing.assert_allclose(inner, np.einsum("nchw,oc->nohw", IMAGES, weights["w1"][..., 0, 0]), rtol=limit, atol=limit)
    np.testing.assert_allclose(total, one + two, rtol=limit, atol=limit)
    padded = np.pad(np.maximum(one, 0), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    np.testing.assert_allclose(conv, np.einsum("nchwij,ocij->nohw", windows, weights["w2"]), rtol=limit, atol=2 * limit)


def test_only_what_is_needed_is_there() -> None:
    content = _model().SerializeToString()
    places = [Place("input", IMAGES.shape), Place("first", (2, 4, 4, 4)), Place("second", (2, 4, 4, 4))]
    piece = Pieces(content).between(places, ["second"])
    assert piece.takes == (places[1],)
    model = onnx.load_from_string(piece.content)
    assert [node.op_type for node in model.graph.node] == ["Split", "Reshape", "Relu", "Conv", "Cast"]
    assert {tensor.name for tensor in model.graph.initializer} == {"inside/sizes", "inside/0.shape", "w2"}
    assert model.ir_version == 8 and model.opset_import[0].version == 17


@pytest.mark.parametrize(("given", "wanted", "lacking"), [((), ["nowhere"], "nowhere"), ((), ["first"], "input")])
def test_what_a_file_lacks_is_named(given: Sequence[Place], wanted: list[str], lacking: str) -> None:
    with pytest.raises(NotThere, match=f"^{lacking}$"):
        Pieces(_model().SerializeToString()).between(given, wanted)


def test_a_circle_ends() -> None:
    """No file that runs has one; cutting it out must not run for ever."""
    model = _model()
    model.graph.node[1].input[0] = "sum"
    piece = Pieces(model.SerializeToString()).between([], ["sum"])
    with pytest.raises(Exception, match=r"(?i)acyclic|cycle"):
        _run(piece.content, _packed(IMAGES))


def test_what_is_no_onnx_file_is_refused() -> None:
    content = _model().SerializeToString()
    for damaged in (content[:-9], b"\xff" * 40):
        with pytest.raises(Malformed):
            Pieces(damaged)
