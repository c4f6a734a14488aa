"""A detector from image to boxes as one graph: its dense graph, with what is fixed between and after its parts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from slimtrain.base.errors import UserError
from slimtrain.base.image_size import ImageSize
from slimtrain.detection.fixed.detections import Detections, RawDetections, detections_of
from slimtrain.detection.fixed.masks import Masks
from slimtrain.detection.fixed.proposals import Proposals
from slimtrain.detection.fixed.suppression import ROUNDS, FixedPoint, Standard
from slimtrain.graph.extents import HasDims, WiredGraph
from slimtrain.graph.graph import Graph
from slimtrain.graph.joining import End, Part, joined
from slimtrain.models.detector import FASTER, MASK, DetectorSettings
from slimtrain.tracing.slimmed import trace

FIXED, ONNX, NONE = "fixed", "onnx", "none"
NMS = (FIXED, ONNX, NONE)
DENSE, PROPOSALS, DETECTIONS, SETTLED, MASKS = "dense", "proposals", "detections", "settled", "masks"
RAW, CHOSEN = ("boxes", "scores"), ("boxes", "scores", "labels", "count")


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
    `labels`, `count`, `settled`, and `masks` where it has a head for them.

    `dense` is of as many RoIs for each image as there are proposals (`Proposals.kept`), and of as many for masks as there are
    detections (`detections_of`). `nms`: `fixed`, in shapes that no image decides on, in so many `rounds`; `onnx`, by ONNX's
    own operator; `none`, raw boxes [B, P, C, 4] and scores [B, P, C] after the proposals' own NMS. Parameters keep their
    names; constants of what is added begin with `proposals.` and the like.

    UserError for another `nms` or kind of detector, ValueError where `dense` does not fit its settings.
    """
    if nms not in NMS:
        raise UserError(f"nms {nms!r}: expected one of {', '.join(NMS)}.")
    if settings.kind not in (FASTER, MASK):
        raise UserError(f"a {settings.kind}: has no graph from image to boxes here. Expected {FASTER} or {MASK}.")
    if nms == NONE and settings.mask is not None:
        raise UserError(f"nms {NONE}: masks are of detections, and there are none. Expected {FIXED} or {ONNX}.")
    point = FixedPoint(rounds)
    proposals = Proposals(settings, image_size, Standard(1) if nms == ONNX else point)
    count, rows = proposals.kept, settings.classes + 1
    images, *regions = (name for name, _ in dense.inputs)
    parts = {DENSE: Part(dense, groups)}
    wires: dict[End, End] = {(DENSE, regions[0]): (PROPOSALS, "rows")}
    _add(parts, wires, PROPOSALS, proposals, {(DENSE, name): zeros(1, *s) for name, s in proposals.input_shapes.items()})
    read = {
        (PROPOSALS, "rois"): zeros(1, count, 4),
        (PROPOSALS, "valid"): zeros(1, count),
        (DENSE, "class_logits"): zeros(count, rows),
        (DENSE, "box_deltas"): zeros(count, 4 * rows),
    }
    if nms == NONE:
        _add(parts, wires, DETECTIONS, RawDetections(settings, image_size, count), read)
        outputs: dict[str, End] = {name: (DETECTIONS, name) for name in RAW} | {SETTLED: (PROPOSALS, SETTLED)}
    else:
        suppression = Standard(settings.classes) if nms == ONNX else point
        _add(parts, wires, DETECTIONS, Detections(settings, image_size, count, suppression), read)
        both = {(part, SETTLED): torch.zeros(1, dtype=torch.bool) for part in (PROPOSALS, DETECTIONS)}
        _add(parts, wires, SETTLED, _Both(), both)
        outputs = {name: (DETECTIONS, name) for name in CHOSEN} | {SETTLED: (SETTLED, "output")}
    if settings.mask is not None:
        kept, size = detections_of(settings, count), settings.mask.size
        wires[DENSE, regions[1]] = DETECTIONS, "rows"
        labels = torch.zeros(1, kept, dtype=torch.int64)
        logits = zeros(kept, rows, size, size)
        _add(parts, wires, MASKS, Masks(), {(DETECTIONS, "labels"): labels, (DENSE, "mask_logits"): logits})
        outputs["masks"] = MASKS, "masks"
    return joined(parts, wires, {images: (DENSE, images)}, outputs)


class _Both(nn.Module):
    """`settled` of proposals and of detections as one."""

    def forward(self, proposals: Tensor, detections: Tensor) -> Tensor:
        return proposals & detections


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape)


def _add(parts: dict[str, Part], wires: dict[End, End], name: str, module: nn.Module, read: Mapping[End, Tensor]) -> None:
    """A module without parameters as one more part. `read`: what its inputs are, and examples of them for one image."""
    graph = trace(module, tuple(read.values())).graph
    parts[name] = Part(graph)
    wires |= {(name, own): source for (own, _), source in zip(graph.inputs, read, strict=True)}
