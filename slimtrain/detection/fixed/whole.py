"""A detector from image to boxes as one graph: its dense graph, with what is fixed between and after its parts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from slimtrain.base.errors import UserError
from slimtrain.base.image_size import ImageSize
from slimtrain.detection.fixed.detections import Detections, RawDetections
from slimtrain.detection.fixed.masks import Masks
from slimtrain.detection.fixed.proposals import Proposals
from slimtrain.detection.fixed.suppression import FixedPoint, Standard
from slimtrain.detection.settings import DetectorSettings
from slimtrain.graph.extents import HasDims, WiredGraph
from slimtrain.graph.graph import Graph
from slimtrain.graph.joining import End, Part, joined
from slimtrain.tracing.slimmed import trace

FIXED, ONNX, NONE = "fixed", "onnx", "none"
NMS = (FIXED, ONNX, NONE)
DENSE, PROPOSALS, DETECTIONS, MASKS = "dense", "proposals", "detections", "masks"
ROIS, MASK_ROIS = "rois", "mask_rois"


class _Both(nn.Module):
    """`settled` of proposals and of detections as one."""

    def forward(self, proposals: Tensor, detections: Tensor) -> Tensor:
        return proposals & detections


def whole_graph(
    dense: Graph,
    settings: DetectorSettings,
    image_size: ImageSize,
    *,
    nms: str = FIXED,
    rounds: int | None = None,
    groups: HasDims | None = None,
) -> WiredGraph:
    """`dense` (of `slimtrain.detection.dense`; `groups`: its channel groups) as a graph from images to `boxes`, `scores`,
    `labels`, `count`, `settled`, and `masks` where it has a head for them.

    `dense` was traced with as many RoIs for each image as there are proposals (`Proposals.kept`), and as many for masks as there
    are detections. `nms`: `fixed`, in shapes that no image decides on, `rounds` of it; `onnx`, by ONNX's own operator; `none`,
    raw boxes [B, P, C, 4] and scores [B, P, C] after the proposals' own NMS. Parameters keep their names; constants of what is
    added begin with `proposals.`.

    UserError for another `nms`, ValueError where `dense` does not fit its settings.
    """
    if nms not in NMS:
        raise UserError(f"nms {nms!r}: expected one of {', '.join(NMS)}.")
    point = FixedPoint() if rounds is None else FixedPoint(rounds)
    proposals = Proposals(settings, image_size, Standard(1) if nms == ONNX else point)
    count = proposals.kept
    detections: nn.Module
    if nms == NONE:
        detections = raw = RawDetections(settings, image_size, count)
        shapes, shown = raw.input_shapes, ("boxes", "scores")
    else:
        detections = chosen = Detections(settings, image_size, count, Standard(settings.classes) if nms == ONNX else point)
        shapes, shown = chosen.input_shapes, ("boxes", "scores", "labels", "count")
    images, *regions = (name for name, _ in dense.inputs)
    heads = ("class_logits", "box_deltas")
    examples = [torch.zeros(count if name in heads else 1, *shape) for name, shape in shapes.items()]
    parts = {
        DENSE: Part(dense, groups),
        PROPOSALS: Part(traced(proposals, *(torch.zeros(1, *shape) for shape in proposals.input_shapes.values()))),
        DETECTIONS: Part(traced(detections, *examples)),
    }
    wires: dict[End, End] = {(DENSE, regions[0]): (PROPOSALS, "rows")}
    wires |= _wired(parts, PROPOSALS, {name: (DENSE, name) for name in proposals.input_shapes})
    wires |= _wired(parts, DETECTIONS, {name: (DENSE if name in heads else PROPOSALS, name) for name in shapes})
    outputs: dict[str, End] = {name: (DETECTIONS, name) for name in shown}
    if nms == NONE:
        outputs["settled"] = PROPOSALS, "settled"
    else:
        parts["settled"] = Part(traced(_Both(), *(torch.zeros(1, dtype=torch.bool) for _ in range(2))))
        wires |= _wired(parts, "settled", {"proposals": (PROPOSALS, "settled"), "detections": (DETECTIONS, "settled")})
        outputs["settled"] = "settled", "output"
    if len(regions) > 1:
        if nms == NONE:
            raise UserError("nms none: a detector of masks needs detections to compute them of. Expected fixed or onnx.")
        logits = dense.types[dense.outputs[dense.form.names.index("mask_logits")]]
        kept = min(settings.box.detections, settings.box.candidates, count * settings.classes)
        sizes = [size for size in logits.shape[1:] if isinstance(size, int)]
        parts[MASKS] = Part(traced(Masks(), torch.zeros(kept, *sizes), torch.zeros(1, kept, dtype=torch.int64)))
        wires[DENSE, regions[1]] = DETECTIONS, "rows"
        wires |= _wired(parts, MASKS, {"mask_logits": (DENSE, "mask_logits"), "labels": (DETECTIONS, "labels")})
        outputs["masks"] = MASKS, "masks"
    return joined(parts, wires, {images: (DENSE, images)}, outputs)


def traced(module: nn.Module, *examples: Tensor) -> Graph:
    """The graph of a module without parameters."""
    return trace(module, examples).graph


def _wired(parts: Mapping[str, Part], part: str, sources: Mapping[str, End]) -> dict[End, End]:
    """What the inputs of a part are, in their order."""
    return {(part, name): source for (name, _), source in zip(parts[part].graph.inputs, sources.values(), strict=True)}
