"""Slimmable detectors: a dense detector, traced, with the choice of what gets narrower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from slimtrain.base.errors import UserError
from slimtrain.base.image_size import ImageSize, sides
from slimtrain.detection.dense import DenseDetector
from slimtrain.graph.graph import Batch, Size
from slimtrain.graph.policy import Policy
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.detector import FASTER, SSDLITE
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.tracing.resizing import resized
from slimtrain.tracing.slimmed import make_slimmable

ALL, BACKBONE = "all", "backbone"
SLIMS = (ALL, BACKBONE)
# What stays at its full width where the backbone alone is slimmed, as published (arXiv 1812.08928, sec. 4.3).
NECK_AND_HEADS = ("backbone.fpn.", "rpn.", "roi_heads.", "head.")
# SSDLite's heads begin with depthwise convolutions of the maps that they read, which are as narrow as these.
FURTHER_LEVELS = ("backbone.extra.",)
INNER = ("map",)  # the pyramid's maps, which regions are pooled from


def detector_policy(slim: str, policy: Policy | None = None, kind: str = FASTER) -> Policy:
    """What of a detector of a `kind` is narrowed: `all`, or the `backbone` alone; of the rest `policy` decides."""
    if slim not in SLIMS:
        raise UserError(f"slim {slim!r}: expected one of {', '.join(SLIMS)}.")
    whole = FURTHER_LEVELS if kind == SSDLITE else NECK_AND_HEADS
    return replace(policy or Policy(), fixed=whole if slim == BACKBONE else (), inner=INNER)


def slimmable_detector(
    module: DenseDetector,
    widths: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    *,
    family: str = "s",
    slim: str = ALL,
    name: str = "",
    policy: Policy | None = None,
    order: str = "l1",
    image_size: ImageSize = 128,
    rois: int = 4,
    mask_rois: int = 2,
    check: bool = True,
) -> SlimmableNetwork:
    """`module` as a slimmable network (`make_slimmable`, whose errors it raises). It runs on images of any size that the
    stages' strides divide, and on any number of regions; `image_size` and regions per image are those that it is traced with,
    and that costs are for (`sized`)."""
    height, width = sides(image_size)
    network = make_slimmable(
        module,
        module.example(height, width, rois, mask_rois),
        widths,
        family=family,
        name=name or module.settings.kind,
        policy=detector_policy(slim, policy, module.settings.kind),
        order=order,
        check=check,
    )
    assert isinstance(network.spec, GraphSpec)
    network.spec = network.body.spec = replace(network.spec, detector=module.settings)  # which its files hold, too
    return network


def sized(spec: GraphSpec, image_size: ImageSize, rois: int | None = None, mask_rois: int | None = None) -> GraphSpec:
    """A detector's network for images of `image_size` and so many regions of each: what it costs then. UserError for a size
    that its strides do not divide."""
    counts = {"rois": rois, "mask_rois": mask_rois}
    sizes: dict[str, tuple[Size, ...]] = {"images": (Batch(), 3, *sides(image_size))}
    for name, type_ in spec.graph.inputs:
        count = counts.get(name)
        if count is not None:
            sizes[name] = (Batch(count), *type_.shape[1:])
    return resized(spec, sizes)
