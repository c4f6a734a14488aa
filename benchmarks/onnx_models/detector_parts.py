"""A detector's file cut after its parts, so that each can be timed.

Part by part the file is cut off later: the first piece ends with the backbone, the next one with the pyramid, the last one is
all of it. A part takes what its piece takes more than the one before, so parts add up to the whole. Profiles of onnxruntime do
not: a detector's last parts are hundreds of small operators, and writing down when each began takes about as long as they do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

BACKBONE, FPN, RPN, PROPOSALS, ROIS, DETECTIONS, MASKS = range(7)
NAMES = ("backbone", "FPN", "RPN", "proposals", "RoIs", "detections", "masks")
STARTS: Mapping[str, int] = {  # of nodes' names; an operator without one belongs where its inputs come from, or to the RoIs
    "backbone.body": BACKBONE,
    "backbone.fpn": FPN,
    "rpn": RPN,
    "head": RPN,
    "proposals": PROPOSALS,
    "roi_align": ROIS,
    "roi_heads": ROIS,
    "detections": DETECTIONS,
    "settled": DETECTIONS,
    "masks": MASKS,
    "keypoints": MASKS,
}


@dataclass(frozen=True)
class Piece:
    """The file up to the end of the `part`."""

    part: str
    model: onnx.ModelProto


def pieces(model: onnx.ModelProto) -> list[Piece]:
    """A detector's file cut after each part that it has, the whole of it last. ValueError for a file without such parts."""
    parts = _parts(model.graph.node)
    present = sorted(set(parts))
    if len(present) < 2:
        raise ValueError("its nodes are not called as a detector's are, so its parts cannot be told apart")
    return [Piece(NAMES[part], _up_to(model, parts, part)) for part in present[:-1]] + [Piece(NAMES[present[-1]], model)]


def _parts(nodes: Sequence[onnx.NodeProto]) -> list[int]:
    """Of each node, its part: by its name, and never before a part that it reads from."""
    of_value: dict[str, int] = {}
    parts = []
    for node in nodes:
        before = max((of_value.get(name, BACKBONE) for name in node.input), default=BACKBONE)
        own = next((part for start, part in STARTS.items() if node.name.startswith(start)), None)
        if before >= DETECTIONS and own not in (DETECTIONS, MASKS):
            own = MASKS  # their pooling and head come after the boxes
        elif own is None and before == PROPOSALS:
            own = ROIS  # which level a box is pooled from
        part = max(before, BACKBONE if own is None else own)
        of_value.update(dict.fromkeys(node.output, part))
        parts.append(part)
    return parts


def _up_to(model: onnx.ModelProto, parts: Sequence[int], last: int) -> onnx.ModelProto:
    """The nodes of parts up to `last`; its outputs are what later ones read of them, and what of the file's own is there."""
    nodes = [node for node, part in zip(model.graph.node, parts, strict=True) if part <= last]
    later = [node for node, part in zip(model.graph.node, parts, strict=True) if part > last]
    given = {name for node in nodes for name in node.output if name}
    wanted = {name for node in later for name in node.input} | {output.name for output in model.graph.output}
    read = {name for node in nodes for name in node.input}
    piece = onnx.ModelProto()
    piece.CopyFrom(model)
    graph = piece.graph
    for field in ("node", "initializer", "output", "value_info"):
        graph.ClearField(field)
    graph.node.extend(nodes)
    graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in read)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(given & wanted))
    return piece
