"""ONNX files of detectors from image to boxes: what onnxruntime detects against float64, what they are made of, what NVIDIA's
parser says."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from slimexport.onnx_files.graph_writer import write_graph
from slimexport.onnx_files.runner import cpu_session
from slimtrain.detection.backbones import resnet_stages
from slimtrain.detection.dense import DenseDetector
from slimtrain.detection.fixed.detections import Detections
from slimtrain.detection.fixed.masks import Masks
from slimtrain.detection.fixed.proposals import Proposals
from slimtrain.detection.fixed.whole import whole_graph
from slimtrain.detection.making import slimmable_detector
from slimtrain.graph.extents import WiredGraph
from slimtrain.graph.graph import Graph
from slimtrain.graph.sizes import Sizing
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.detector import FASTER, MASK, BoxSettings, DetectorSettings, MaskSettings, ProposalSettings
from slimtrain.slimmable.graph_dense import stored_tensors
from slimtrain.slimmable.plan_positions import Cut
from slimtrain.slimmable.program import Program
from slimtrain.tracing.slimmed import trace
from tests.support.detectors import IMAGE, examples, settings, two_levels
from tests.support.rtx import require_rtx

IMAGES = 8
DATA_DEPENDENT = {"If", "Loop", "NonZero", "NonMaxSuppression", "ScatterND", "ScatterElements", "Scatter", "Scan", "Compress"}


def images() -> Tensor:
    return torch.randn(IMAGES, 3, *IMAGE, generator=torch.Generator().manual_seed(4))


def whole(nms: str, masks: bool = False) -> tuple[Sizing, dict[str, Tensor]]:
    given = settings(candidates=150, masks=masks)
    traced = trace(two_levels(given), examples(given))
    wired = whole_graph(traced.graph, given, IMAGE, nms=nms)
    return Sizing(wired.graph, wired, {}), dict(traced.tensors) | constants(wired.graph)


def constants(graph: Graph) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in graph.constants.items()}


def exact(sizing: Sizing, tensors: dict[str, Tensor], given: Tensor) -> dict[str, np.ndarray]:
    """What the graph gives at its plan in float64."""
    program = Program.of(sizing, torch.float64)
    program = dataclasses.replace(program, cuts={name: Cut() for name in program.cuts})  # cut already
    doubled = {name: t.double() if t.is_floating_point() else t for name, t in tensors.items()}
    return dict(
        zip(sizing.graph.form.names, (t.detach().numpy() for t in program.run([given.double()], doubled)), strict=True)
    )


def check(sizing: Sizing, tensors: dict[str, Tensor]) -> onnx.ModelProto:
    """The same detections in one file at batch 1, 2 and 8."""
    model = write_graph(sizing, tensors)
    onnx.checker.check_model(model, full_check=True)
    session = cpu_session(model)
    tolerances = {"boxes": 1e-3, "scores": 1e-5, "masks": 1e-4}
    for batch in (1, 2, IMAGES):
        part = images()[:batch]
        expected = exact(sizing, tensors, part)
        names = [output.name for output in session.get_outputs()]
        given = dict(zip(names, session.run(None, {"input": part.numpy()}), strict=True))
        assert given.keys() == expected.keys() and expected["settled"].all()
        for name, values in expected.items():
            assert given[name].shape == values.shape, name
            if name in tolerances:
                assert np.abs(given[name] - values).max() < tolerances[name], name
            else:
                assert np.array_equal(given[name], values), name
    return model


def test_onnxruntime_detects_the_same_in_fixed_shapes() -> None:
    model = check(*whole("fixed"))
    kinds = Counter(node.op_type for node in model.graph.node)
    assert not kinds.keys() & DATA_DEPENDENT, kinds
    assert kinds["RoiAlign"] == 2 and kinds["TopK"] == 5 and kinds["MatMul"] == 36
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)
    dims = [dim.dim_param or dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim]
    assert dims == ["batch", 30, 4]


def test_onnxruntime_detects_the_same_by_its_own_nms() -> None:
    model = check(*whole("onnx"))
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["NonMaxSuppression"] == 3 and not kinds["MatMul"]


def test_raw_boxes_and_scores_are_the_same() -> None:
    model = check(*whole("none"))
    assert [output.name for output in model.graph.output] == ["boxes", "scores", "settled"]


def test_masks_are_the_same() -> None:
    model = check(*whole("fixed", masks=True))
    assert model.graph.output[5].name == "masks"


def test_tensorrt_s_plugin_is_one_node_of_its_own_domain() -> None:
    """Which no runtime here has: it is written as NVIDIA documents it."""
    model = write_graph(*whole("trt"))
    (node,) = (node for node in model.graph.node if node.op_type == "EfficientNMS_TRT")
    attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    assert node.domain in {one.domain for one in model.opset_import} and node.domain != ""
    assert attributes["plugin_version"] == b"1" and attributes["background_class"] == -1
    assert attributes["max_output_boxes"] == settings().box.detections
    names = ["num_detections", "detection_boxes", "detection_scores", "detection_classes"]
    assert [value.name for value in model.graph.output][:4] == names


def test_both_forms_of_nms_detect_the_same() -> None:
    results = [exact(*whole(nms), images()) for nms in ("fixed", "onnx")]
    for name in ("boxes", "scores", "labels", "count"):
        assert np.array_equal(results[0][name], results[1][name]), name


@pytest.mark.parametrize("kind", [FASTER, MASK])
def test_a_slimmable_detector_is_written_at_every_width(kind: str) -> None:
    given = DetectorSettings(
        classes=5,
        kind=kind,
        proposals=ProposalSettings(top_k=60, kept=40),
        box=BoxSettings(candidates=200, detections=20),
        mask=MaskSettings() if kind == MASK else None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = DenseDetector(given, resnet_stages((1, 1, 1, 1), 16), 32, 48, 24)
    factors = {
        "rpn.head.cls_logits": 100,
        "rpn.head.bbox_pred": 30,
        "roi_heads.box_predictor.cls_score": 10,
        "roi_heads.box_predictor.bbox_pred": 5,
    }
    with torch.no_grad():
        for name, factor in factors.items():
            module.get_parameter(f"{name}.weight").mul_(factor)
    network = slimmable_detector(module.eval(), (0.5, 1.0), order="none", image_size=IMAGE, rois=40, mask_rois=20)
    spec = network.spec
    assert isinstance(spec, GraphSpec)
    draw = torch.Generator().manual_seed(2)
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand(buffer.shape, generator=draw) + (0.5 if name.endswith("var") else -0.5))
    wired = whole_graph(spec.graph, given, IMAGE, groups=spec.groups)
    sizes = []
    for plan in spec.plans:
        model = check(Sizing(wired.graph, wired, plan.channels), stored_tensors(network, plan) | constants(wired.graph))
        sizes.append(sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer))
    assert len(sizes) == 2 and sizes[0] < 0.5 * sizes[1]


def parsed(sizing: Sizing, tensors: dict[str, Tensor]) -> tuple[bool, str]:
    """Whether NVIDIA's parser reads the file, and what it says."""
    trt = require_rtx()
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    network = trt.Builder(logger).create_network(0)
    parser = trt.OnnxParser(network, logger)
    read = parser.parse(write_graph(sizing, tensors).SerializeToString())
    return read, " ".join(str(parser.get_error(number)) for number in range(parser.num_errors))


@pytest.mark.parametrize("part", ["proposals", "detections", "masks"])
def test_nvidia_s_parser_reads_what_stands_between_and_after_the_dense_parts(part: str) -> None:
    given = settings()
    proposals = Proposals(given, IMAGE)
    heads = torch.zeros(1, 60, 4), torch.zeros(1, 60), torch.zeros(60, 6), torch.zeros(60, 24)
    graph = {
        "proposals": lambda: trace(proposals, [torch.zeros(1, *shape) for shape in proposals.input_shapes.values()]),
        "detections": lambda: trace(Detections(given, IMAGE, 60), heads),
        "masks": lambda: trace(Masks(), (torch.zeros(1, 30, dtype=torch.int64), torch.zeros(30, 6, 8, 8))),
    }[part]().graph
    wired = WiredGraph(graph, {value: type_.shape for value, type_ in graph.types.items()})
    assert parsed(Sizing(graph, wired, {}), constants(graph)) == (True, "")


def test_nvidia_s_parser_stops_at_no_operator_but_the_one_that_needs_a_gpu() -> None:
    read, said = parsed(*whole("fixed"))
    assert read or ("RoiAlign" in said and "plugin" in said), said
