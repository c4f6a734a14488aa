"""A detector as one graph: in float64 what the dense module and torchvision's own post-processing give."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import heatmaps_to_keypoints

from slimtrain.base.errors import UserError
from slimtrain.detection.fixed.proposals import Proposals
from slimtrain.detection.fixed.whole import region_counts, whole_graph
from slimtrain.graph.extents import WiredGraph
from slimtrain.models.detector import FASTER, RETINA, SSDLITE, DetectorSettings
from slimtrain.slimmable.program import Program
from slimtrain.tracing.slimmed import trace
from tests.support.detectors import (
    IMAGE,
    TwoLevels,
    examples,
    settings,
    torchvision_detections,
    torchvision_proposals,
    two_levels,
)
from tests.support.single_stage import Levels, single_levels, single_settings, torchvision_single

IMAGES = 3


def run(whole: WiredGraph, module: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """What a whole graph gives in float64, of the module's own tensors."""
    tensors = dict(module.state_dict()) | {name: torch.from_numpy(a) for name, a in whole.graph.constants.items()}
    exact = {name: t.double() if t.is_floating_point() else t for name, t in tensors.items()}
    results = Program.full(whole.graph, torch.float64).run([images.double()], exact)
    return dict(zip(whole.graph.form.names, results, strict=True))


def images() -> Tensor:
    return torch.randn(IMAGES, 3, *IMAGE, generator=torch.Generator().manual_seed(4))


def expected(given: DetectorSettings, module: TwoLevels) -> list[tuple[Tensor, Tensor, Tensor]]:
    """torchvision's own steps around the module, image by image."""
    exact = two_levels(given).double()
    x = images().double()
    no_regions = torch.zeros(1, 5, dtype=torch.float64)
    names = [f"{kind}{level}" for kind in ("objectness", "deltas") for level in range(2)]
    with torch.no_grad():
        outputs = exact(x, no_regions)
        rois = torchvision_proposals(given, IMAGE, [outputs[name] for name in names])
        rows = torch.cat([torch.cat([torch.full((len(r), 1), i, dtype=r.dtype), r], 1) for i, r in enumerate(rois)])
        outputs = exact(x, rows)
    return torchvision_detections(given, IMAGE, rois, outputs["class_logits"], outputs["box_deltas"])


@pytest.mark.parametrize("nms", ["fixed", "onnx"])
def test_it_detects_what_torchvision_does(nms: str) -> None:
    given = settings(candidates=300)
    module = two_levels(given)
    whole = whole_graph(trace(module, examples(given)).graph, given, IMAGE, nms=nms)
    assert [name for name, _ in whole.graph.inputs] == ["images"]
    result = run(whole, module, images())
    assert list(result) == ["boxes", "scores", "labels", "count", "settled"] and result["settled"].all()
    for image, (boxes, scores, labels) in enumerate(expected(given, module)):
        count = int(result["count"][image])
        assert count == len(boxes) > 5 and torch.equal(result["labels"][image, :count], labels)
        assert torch.allclose(result["boxes"][image, :count], boxes, rtol=0, atol=1e-10)
        assert torch.allclose(result["scores"][image, :count], scores, rtol=0, atol=1e-12)


def test_masks_are_those_of_the_detections() -> None:
    given = settings(candidates=300, masks=True)
    module = two_levels(given)
    result = run(whole_graph(trace(module, examples(given)).graph, given, IMAGE), module, images())
    exact = two_levels(given).double()
    for image in range(IMAGES):
        count = int(result["count"][image])
        regions = torch.cat([torch.full((count, 1), image), result["boxes"][image, :count]], 1)
        with torch.no_grad():
            logits = exact(images().double(), regions, regions)["mask_logits"]
        labels = result["labels"][image, :count]
        assert torch.allclose(result["masks"][image, :count], logits.sigmoid()[torch.arange(count), labels], atol=1e-10)
        assert not result["masks"][image, count:].any()


def test_raw_ones_are_for_a_consumer_s_own_nms() -> None:
    given = settings(candidates=300)
    module = two_levels(given)
    graph = trace(module, examples(given)).graph
    raw, chosen = (run(whole_graph(graph, given, IMAGE, nms=nms), module, images()) for nms in ("none", "fixed"))
    assert list(raw) == ["boxes", "scores", "settled"]
    assert raw["boxes"].shape == (IMAGES, 60, 5, 4) and raw["scores"].shape == (IMAGES, 60, 5)
    assert torch.equal(raw["scores"].flatten(1).max(1).values, chosen["scores"][:, 0])


def test_too_few_rounds_are_not_settled() -> None:
    given = settings()
    module = two_levels(given)
    result = run(whole_graph(trace(module, examples(given)).graph, given, IMAGE, rounds=1), module, images())
    assert not result["settled"].any()


def test_parameters_keep_their_names() -> None:
    given = settings()
    traced = trace(two_levels(given), examples(given))
    whole = whole_graph(traced.graph, given, IMAGE).graph
    names = {parameter.name for parameter in whole.parameters}
    assert names == set(traced.tensors) | {f"proposals.anchors{level}" for level in range(2)}


def test_what_does_not_fit_is_said() -> None:
    given = settings()
    graph = trace(two_levels(given), examples(given)).graph
    fewer = replace(given, proposals=replace(given.proposals, kept=50))
    assert Proposals(fewer, IMAGE).kept == 50
    with pytest.raises(ValueError, match=r"input rois of dense is float32 .*60.*, and rows of proposals float32 .*50"):
        whole_graph(graph, fewer, IMAGE)
    with pytest.raises(UserError, match="nms 'best': expected one of fixed, onnx, none, trt"):
        whole_graph(graph, given, IMAGE, nms="best")
    with pytest.raises(UserError, match="nms none: masks are of detections"):
        whole_graph(graph, settings(masks=True), IMAGE, nms="none")
    with pytest.raises(UserError, match="nms trt: keypoints are of detections"):
        whole_graph(graph, settings(keypoints=True), IMAGE, nms="trt")
    many = replace(given, box=replace(given.box, detections=5000, candidates=5000))
    with pytest.raises(UserError, match=r"nms trt: 5,000 detections of an image, .* the best 4,096"):
        whole_graph(graph, many, IMAGE, nms="trt")


def test_keypoints_are_those_of_the_detections() -> None:
    given = settings(candidates=300, keypoints=True)
    module = two_levels(given)
    result = run(whole_graph(trace(module, examples(given)).graph, given, IMAGE), module, images())
    assert list(result)[4:] == ["settled", "keypoints", "keypoint_scores"]
    exact, settled = two_levels(given).double(), 0
    for image in range(IMAGES):
        count = int(result["count"][image])
        boxes = result["boxes"][image, :count]
        regions = torch.cat([torch.full((count, 1), image), boxes], 1)
        with torch.no_grad():
            logits = exact(images().double(), regions, regions)["keypoint_logits"]
        points, scores = heatmaps_to_keypoints(logits, boxes)
        right = (result["keypoint_scores"][image, :count] - scores).abs() < 1e-5
        assert torch.allclose(result["keypoints"][image, :count][right].float(), points[right], rtol=0, atol=1e-4)
        assert right.all() or not result["settled"][image]
        assert right.float().mean() > 0.95 and not result["keypoints"][image, count:].any()
        settled += int(result["settled"][image])


@pytest.mark.parametrize("kind", [RETINA, SSDLITE])
@pytest.mark.parametrize("nms", ["fixed", "onnx"])
def test_a_single_stage_detects_what_torchvision_does(kind: str, nms: str) -> None:
    given = single_settings(kind)
    module = single_levels(given)
    whole = whole_graph(trace(module, torch.randn(2, 3, *IMAGE)).graph, given, IMAGE, nms=nms)
    result = run(whole, module, images())
    assert list(result) == ["boxes", "scores", "labels", "count", "settled"] and result["settled"].all()
    with torch.no_grad():
        outputs = list(single_levels(given).double()(images().double()).values())
    for image, (boxes, scores, labels) in enumerate(torchvision_single(given, IMAGE, outputs)):
        count = int(result["count"][image])
        assert count == len(boxes) > 5 and torch.equal(result["labels"][image, :count], labels)
        assert torch.allclose(result["boxes"][image, :count], boxes, rtol=0, atol=1e-10)
        assert torch.allclose(result["scores"][image, :count], scores, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [FASTER, RETINA, SSDLITE])
def test_the_plugin_s_form_gives_what_the_fixed_one_does(kind: str) -> None:
    """As the operator is defined; classes count from 0, and a detection's label from 1."""
    if kind == FASTER:
        given = settings(candidates=300)
        module: TwoLevels | Levels = two_levels(given)
        graph = trace(module, examples(given)).graph
    else:
        given = single_settings(kind)
        module = single_levels(given)
        graph = trace(module, torch.randn(2, 3, *IMAGE)).graph
    plugin, fixed = (run(whole_graph(graph, given, IMAGE, nms=nms), module, images()) for nms in ("trt", "fixed"))
    names = ["num_detections", "detection_boxes", "detection_scores", "detection_classes"]
    assert list(plugin) == names + ["settled"] * (kind == FASTER)
    assert plugin["num_detections"][:, 0].tolist() == fixed["count"].tolist()
    for image, count in enumerate(fixed["count"].tolist()):
        assert torch.equal(plugin["detection_boxes"][image, :count], fixed["boxes"][image, :count])
        assert torch.equal(plugin["detection_scores"][image, :count], fixed["scores"][image, :count])
        assert torch.equal(plugin["detection_classes"][image, :count] + 1, fixed["labels"][image, :count])


def test_regions_are_counted_by_kind() -> None:
    assert region_counts(settings(), IMAGE) == {"rois": 60}
    assert region_counts(settings(masks=True), IMAGE) == {"rois": 60, "mask_rois": 30}
    assert region_counts(single_settings(RETINA), IMAGE) == {}
