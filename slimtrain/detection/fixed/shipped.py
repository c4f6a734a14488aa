"""A slimmable detector as what is shipped: a slimmable network from images to boxes.

Plans, weights and statistics are the dense detector's, so whatever exports, proves and measures a slimmable network does so
with a detector.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from slimtrain.base.errors import UserError
from slimtrain.base.image_size import ImageSize
from slimtrain.detection.fixed.whole import FIXED, region_counts, whole_graph
from slimtrain.detection.making import sized
from slimtrain.graph.graph import Argument, Graph, Node, Value
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.detector import DetectorSettings
from slimtrain.slimmable.network import SlimmableNetwork

ROWS = "rows"  # what the boxes' RoIs are called among inner values


def detector_spec(network: SlimmableNetwork) -> tuple[GraphSpec, DetectorSettings]:
    """What a slimmable detector is. UserError for another network."""
    spec = network.spec
    if not isinstance(spec, GraphSpec) or spec.detector is None:
        raise UserError(f"{spec.name}: is no detector. Expected one, such as slimtrain.detection makes.")
    return spec, spec.detector


def with_thresholds(settings: DetectorSettings, score: float | None = None, detections: int | None = None) -> DetectorSettings:
    """`settings` with another least score, and another number of detections of an image; None: as they are. UserError for
    numbers that cannot be."""
    box = settings.box
    if score is not None:
        if not (math.isfinite(score) and 0 <= score < 1):
            raise UserError(f"score threshold {score:g}: expected a number from 0 to below 1.")
        box = replace(box, score=float(score))
    if detections is not None:
        if detections < 1:
            raise UserError(f"{detections} detections: expected at least 1 of an image.")
        box = replace(box, detections=detections, candidates=max(box.candidates, detections))
    return replace(settings, box=box)


def dense_spec(spec: GraphSpec, settings: DetectorSettings, image_size: ImageSize) -> GraphSpec:
    """A dense detector for images of `image_size`, and as many regions of each as it is given then: what it costs."""
    spec.check_image_size(image_size)
    return replace(sized(spec, image_size, **region_counts(settings, image_size)), detector=settings)


def whole_network(
    network: SlimmableNetwork,
    image_size: ImageSize,
    *,
    nms: str = FIXED,
    score: float | None = None,
    detections: int | None = None,
) -> SlimmableNetwork:
    """A slimmable detector as a slimmable network from images [B, 3, H, W] to what `whole_graph` gives, at the same plans. It
    has the same weights, and shares their memory; its spec's `detector` tells the settings that it was made with.

    `score`, `detections`: in place of the settings' own. UserError for another network, a size that its strides do not divide,
    numbers that cannot be, and a kind or `nms` of which there is no whole graph.
    """
    spec, settings = detector_spec(network)
    settings = with_thresholds(settings, score, detections)
    dense = dense_spec(spec, settings, image_size)
    wired = whole_graph(dense.graph, settings, image_size, nms=nms, groups=dense.groups)
    groups = replace(spec.groups, dims=wired.dims, reordered=wired.reordered)
    whole = SlimmableNetwork(replace(spec, graph=wired.graph, groups=groups, detector=settings))
    _share(network, whole)
    return whole.train(network.training)


def _share(network: SlimmableNetwork, whole: SlimmableNetwork) -> None:
    """Let `whole` have all that `network` stores."""
    modules = dict(network.named_modules())
    for path, module in whole.named_modules():
        if path not in modules:  # a place for constants
            continue
        for ours, theirs in ((module._parameters, modules[path]._parameters), (module._buffers, modules[path]._buffers)):
            ours.update({name: tensor for name, tensor in theirs.items() if name in ours})
    whole.replace_calibrated(network.calibrated)


def inner_values(dense: Graph, whole: Graph) -> dict[str, Value]:
    """Where in `whole` is what `dense` gives (`map0`, `objectness0`, `deltas0`, `class_logits`, ...), by its names, and what
    its regions are: `rows`, [B P, 5] of boxes, and `mask_rows` and the like, by its inputs' names."""
    values = dict(zip(dense.form.names, dense.outputs, strict=True))
    nodes = {node.name: node for node in whole.nodes}
    _, *regions = (name for name, _ in dense.inputs)
    for name in regions:
        key = name.replace("rois", ROWS)
        values[key] = next(_readings(dense, nodes, Value(name)))
    return values


def _readings(dense: Graph, nodes: Mapping[str, Node], value: Value) -> Iterator[Value]:
    """What the nodes that read `value` in the dense graph read in its place in the whole one."""
    for node in dense.nodes:
        for ours, theirs in zip(node.arguments.values(), nodes[node.name].arguments.values(), strict=True):
            yield from _in_place(ours, theirs, value)


def _in_place(ours: Argument, theirs: Argument, value: Value) -> Iterator[Value]:
    if isinstance(ours, tuple) and isinstance(theirs, tuple):
        for own, other in zip(ours, theirs, strict=True):
            yield from _in_place(own, other, value)
    elif ours == value and isinstance(theirs, Value):
        yield theirs
