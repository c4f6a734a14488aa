"""A detector from image to boxes as one graph: its dense graph, with what is fixed between and after its parts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from slimtrain.base.errors import UserError
from slimtrain.base.image_size import ImageSize
from slimtrain.detection.fixed.detections import Detections, RawDetections, detections_of
from slimtrain.detection.fixed.keypoints import Keypoints
from slimtrain.detection.fixed.masks import Masks
from slimtrain.detection.fixed.plugin import PLUGIN_OUTPUTS, PluginDetections
from slimtrain.detection.fixed.proposals import Proposals
from slimtrain.detection.fixed.single_stage import RawSingleStage, of_single_stage
from slimtrain.detection.fixed.suppression import ROUNDS, FixedPoint, Standard, Suppression
from slimtrain.graph.extents import HasDims, WiredGraph
from slimtrain.graph.graph import Graph
from slimtrain.graph.joining import End, Part, joined
from slimtrain.models.detector import DetectorSettings
from slimtrain.tracing.slimmed import trace

FIXED, ONNX, NONE, TRT = "fixed", "onnx", "none", "trt"
NMS = (FIXED, ONNX, NONE, TRT)
DENSE, PROPOSALS, DETECTIONS, SETTLED, MASKS, KEYPOINTS = "dense", "proposals", "detections", "settled", "masks", "keypoints"
RAW, CHOSEN = ("boxes", "scores"), ("boxes", "scores", "labels", "count")
POINTS = ("keypoints", "keypoint_scores")


def region_counts(settings: DetectorSettings, image_size: ImageSize) -> dict[str, int]:
    """How many regions of each image a whole graph gives its dense one, by the names of that one's inputs: `rois`, and
    `mask_rois` where it has a head for them; none of a single stage."""
    if settings.single_stage:
        return {}
    proposals = Proposals(settings, image_size).kept
    counts = {"rois": proposals}
    if settings.mask is not None or settings.keypoints is not None:
        counts["mask_rois"] = detections_of(settings, proposals)
    return counts


def whole_graph(
    dense: Graph,
    settings: DetectorSettings,
    image_size: ImageSize,
    *,
    nms: str = FIXED,
    rounds: int = ROUNDS,
    groups: HasDims | None = None,
) -> WiredGraph:
    """`dense` (of `slimtrain.detection.dense`; `groups`: its channel groups) as a graph from images to `boxes`, `scores`,
    `labels`, `count`, `settled`, and `masks`, or `keypoints` and `keypoint_scores`, where it has a head for them.

    `dense` is of as many regions for each image as `region_counts` says. `nms`: `fixed`, in shapes that no image decides on,
    in so many `rounds`; `onnx`, by ONNX's own operator; `none`, raw boxes and scores, of proposals [B, P, C, 4] and [B, P, C]
    after their own NMS, of a single stage [B, N, 4] and [B, N, C]; `trt`, by TensorRT's plugin (`fixed/plugin.py`), which
    nothing else runs. Parameters keep their names; constants of what is added begin with `proposals.` and the like.

    UserError for another `nms`, and for one that the kind of detector cannot have; ValueError where `dense` does not fit its
    settings.
    """
    if nms not in NMS:
        raise UserError(f"nms {nms!r}: expected one of {', '.join(NMS)}.")
    if nms in (NONE, TRT) and (settings.mask is not None or settings.keypoints is not None):
        what = MASKS if settings.mask is not None else KEYPOINTS
        why = "there are none" if nms == NONE else "these leave the plugin last"
        raise UserError(f"nms {nms}: {what} are of detections, and {why}. Expected {FIXED} or {ONNX}.")
    whole = _Whole(dense, groups, settings, image_size, nms, FixedPoint(rounds))
    images, *regions = (name for name, _ in dense.inputs)
    if settings.single_stage:
        whole.single_stage()
    else:
        whole.two_stages(*regions)
    return joined(whole.parts, whole.wires, {images: (DENSE, images)}, whole.outputs)


class _Whole:
    """The parts of a whole graph, and how they are wired."""

    def __init__(
        self,
        dense: Graph,
        groups: HasDims | None,
        settings: DetectorSettings,
        image_size: ImageSize,
        nms: str,
        point: FixedPoint,
    ) -> None:
        self.settings, self.image_size, self.nms, self.point = settings, image_size, nms, point
        self.parts = {DENSE: Part(dense, groups)}
        self.wires: dict[End, End] = {}
        self.outputs: dict[str, End] = {}

    def single_stage(self) -> None:
        settings, size = self.settings, self.image_size
        raw = RawSingleStage(settings, size)
        read = {(DENSE, name): zeros(1, *shape) for name, shape in raw.input_shapes.items()}
        if self.nms in (NONE, TRT):
            self.raw(raw, read)
            return
        self.add(DETECTIONS, of_single_stage(settings, size, self.suppression(settings.classes)), read)
        self.outputs |= {name: (DETECTIONS, name) for name in (*CHOSEN, SETTLED)}

    def two_stages(self, rois: str, others: str | None = None) -> None:
        settings, size, rows = self.settings, self.image_size, self.settings.classes + 1
        proposals = Proposals(settings, size, self.suppression(1))
        count = proposals.kept
        self.wires[DENSE, rois] = PROPOSALS, "rows"
        self.add(PROPOSALS, proposals, {(DENSE, name): zeros(1, *s) for name, s in proposals.input_shapes.items()})
        read = {
            (PROPOSALS, "rois"): zeros(1, count, 4),
            (PROPOSALS, "valid"): zeros(1, count),
            (DENSE, "class_logits"): zeros(count, rows),
            (DENSE, "box_deltas"): zeros(count, 4 * rows),
        }
        if self.nms in (NONE, TRT):
            self.raw(RawDetections(settings, size, count), read)
            self.outputs[SETTLED] = PROPOSALS, SETTLED
            return
        self.add(DETECTIONS, Detections(settings, size, count, self.suppression(settings.classes)), read)
        self.outputs |= {name: (DETECTIONS, name) for name in CHOSEN} | {SETTLED: (SETTLED, "output")}
        if others is not None:
            self.wires[DENSE, others] = DETECTIONS, "rows"
            self.of_detections(detections_of(settings, count))
        parts = [part for part in (PROPOSALS, DETECTIONS, KEYPOINTS) if part in self.parts]
        self.add(SETTLED, _All(), {(part, SETTLED): torch.zeros(1, dtype=torch.bool) for part in parts})

    def of_detections(self, kept: int) -> None:
        """What a mask or keypoint head says of so many detections."""
        settings, labels = self.settings, torch.zeros(1, kept, dtype=torch.int64)
        if settings.mask is not None:
            logits = zeros(kept, settings.classes + 1, settings.mask.size, settings.mask.size)
            self.add(MASKS, Masks(), {(DETECTIONS, "labels"): labels, (DENSE, "mask_logits"): logits})
            self.outputs[MASKS] = MASKS, MASKS
            return
        assert settings.keypoints is not None
        points = settings.keypoints
        read = {
            (DETECTIONS, "boxes"): zeros(1, kept, 4),
            (DETECTIONS, "labels"): labels,
            (DENSE, "keypoint_logits"): zeros(kept, points.count, points.size, points.size),
        }
        self.add(KEYPOINTS, Keypoints(points, self.image_size), read)
        self.outputs |= {name: (KEYPOINTS, name) for name in POINTS}

    def raw(self, module: RawDetections | RawSingleStage, read: Mapping[End, Tensor]) -> None:
        if self.nms == TRT:
            self.add(DETECTIONS, PluginDetections(module, self.settings), read)
        else:
            self.add(DETECTIONS, module, read)
        self.outputs |= {name: (DETECTIONS, name) for name in (PLUGIN_OUTPUTS if self.nms == TRT else RAW)}

    def suppression(self, classes: int) -> Suppression:
        return Standard(classes) if self.nms == ONNX else self.point

    def add(self, name: str, module: nn.Module, read: Mapping[End, Tensor]) -> None:
        """A module without parameters as one more part. `read`: what its inputs are, and examples of them for one image."""
        graph = trace(module, tuple(read.values())).graph
        self.parts[name] = Part(graph)
        self.wires |= {(name, own): source for (own, _), source in zip(graph.inputs, read, strict=True)}


class _All(nn.Module):
    """`settled` of several parts as one."""

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = first & other
        return first


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape)
