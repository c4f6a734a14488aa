"""Detectors' files cut after their parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from benchmarks.onnx_models.detector_parts import pieces  # noqa: E402

NODES = (  # operator, name, inputs; a node gives what it is called
    ("Relu", "backbone.body.conv", ("input",)),
    ("Neg", "backbone.fpn.lateral", ("backbone.body.conv",)),
    ("Abs", "rpn.head.conv", ("backbone.fpn.lateral",)),
    ("Sqrt", "proposals.decode", ("rpn.head.conv",)),
    ("Floor", "floor", ("proposals.decode",)),  # the level of a region
    ("Add", "roi_align", ("backbone.fpn.lateral", "floor")),
    ("Mul", "roi_heads.box_head.fc6", ("roi_align", "weight")),
    ("Neg", "detections.select", ("roi_heads.box_head.fc6",)),
    ("Exp", "settled", ("proposals.decode",)),
    ("Add", "roi_align_1", ("backbone.fpn.lateral", "detections.select")),
    ("Relu", "roi_heads.mask_head", ("roi_align_1",)),
)


def detector(outputs: tuple[str, ...], nodes: int = len(NODES)) -> Any:
    written = [onnx.helper.make_node(kind, list(inputs), [name], name=name) for kind, name, inputs in NODES[:nodes]]
    floats = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        written,
        "detector",
        [onnx.helper.make_tensor_value_info("input", floats, ["batch", 4])],
        [onnx.helper.make_tensor_value_info(name, floats, ["batch", 4]) for name in outputs],
        [onnx.numpy_helper.from_array(np.full(4, 3.0, np.float32), "weight")],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def run(model: Any, images: NDArray[np.float32]) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip([one.name for one in session.get_outputs()], session.run(None, {"input": images}), strict=True))


def test_each_piece_ends_with_its_part_and_gives_what_later_ones_read() -> None:
    cut = pieces(detector(("detections.select", "settled", "roi_heads.mask_head")))
    assert [piece.part for piece in cut] == ["backbone", "FPN", "RPN", "proposals", "RoIs", "detections", "masks"]
    assert [len(piece.model.graph.node) for piece in cut] == [1, 2, 3, 4, 7, 9, 11]
    ends = [{output.name for output in piece.model.graph.output} for piece in cut[:-1]]
    assert ends == [
        {"backbone.body.conv"},
        {"backbone.fpn.lateral"},
        {"backbone.fpn.lateral", "rpn.head.conv"},
        {"backbone.fpn.lateral", "proposals.decode"},
        {"backbone.fpn.lateral", "proposals.decode", "roi_heads.box_head.fc6"},
        {"backbone.fpn.lateral", "detections.select", "settled"},
    ]


def test_pieces_compute_what_the_whole_does() -> None:
    names = tuple(name for _, name, _ in NODES)
    images = np.random.default_rng(0).standard_normal((2, 4), dtype=np.float32)
    whole = run(detector(names), images)
    for piece in pieces(detector(("settled", "roi_heads.mask_head"))):
        for name, values in run(piece.model, images).items():
            np.testing.assert_array_equal(values, whole[name])


def test_parts_that_are_not_there_are_left_out() -> None:
    assert [piece.part for piece in pieces(detector(("rpn.head.conv",), nodes=3))] == ["backbone", "FPN", "RPN"]


def test_another_network_has_no_such_parts() -> None:
    with pytest.raises(ValueError, match="parts cannot be told apart"):
        pieces(detector(("backbone.body.conv",), nodes=1))
