"""A detector's settings against its graph: which outputs they say that it has, of which shapes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from slimtrain.base.text import some
from slimtrain.graph.graph import Graph
from slimtrain.models.detector import SSDLITE, DetectorSettings

Shape = tuple[int, ...]  # without the first dimension
MAP, MAPS = 3, "map"  # dimensions of a map; of the pyramid's the settings do not say the channels


def check_outputs(settings: DetectorSettings, graph: Graph) -> None:
    """ValueError unless the graph takes and gives what a detector of `settings` does."""
    inputs = [name for name, _ in graph.inputs]
    heads = settings.mask is not None or settings.keypoints is not None
    expected_inputs = 1 if settings.single_stage else 2 + heads
    image = graph.inputs[0][1].shape[1:]
    if len(inputs) != expected_inputs or len(image) != MAP or image[0] != 3:
        raise ValueError(
            f"a {settings.kind} takes images of 3 channels and {expected_inputs - 1} kinds of regions, its graph "
            f"{', '.join(inputs)}, the first {list(image)}"
        )
    strides = settings.anchors.strides
    if any(coarse != 2 * fine for fine, coarse in pairwise(strides)):
        raise ValueError(f"levels of strides {list(strides)}: expected each twice the one before")
    height, width = (side for side in image[1:] if isinstance(side, int))
    expected = expected_outputs(settings, (height, width))
    given = {name: type_.shape[1:] for name, type_ in graph.results}
    odd = sorted(expected.keys() ^ given.keys())
    if odd:
        raise ValueError(f"a {settings.kind} of these settings and its graph do not agree on the outputs {some(odd)}")
    for name, shape in expected.items():
        own = given[name][1:] if name.startswith(MAPS) else given[name]
        if own != shape:
            raise ValueError(f"output {name} is {list(own)}, the settings say {list(shape)}")


def expected_outputs(settings: DetectorSettings, image_size: tuple[int, int]) -> Mapping[str, Shape]:
    """Output -> its shape without images or regions, for images of `image_size`; of the pyramid's maps the sides alone."""
    classes, (height, width) = settings.classes + 1, image_size
    levels = list(zip(settings.anchors.counts, settings.anchors.strides, strict=True))
    sides = [(-(-height // stride), -(-width // stride)) for _, stride in levels]
    if settings.single_stage:
        logits = classes if settings.kind == SSDLITE else settings.classes
        rows, deltas = "class_logits", "box_deltas"
    else:
        logits, rows, deltas = 1, "objectness", "deltas"
    shapes: dict[str, Shape] = {}
    for level, ((count, _), side) in enumerate(zip(levels, sides, strict=True)):
        shapes |= {f"{rows}{level}": (count * logits, *side), f"{deltas}{level}": (4 * count, *side)}
    if settings.single_stage:
        return shapes
    shapes |= {f"{MAPS}{level}": sides[level] for level in range(len(levels) - settings.extra_levels)}
    shapes |= {"class_logits": (classes,), "box_deltas": (4 * classes,)}
    if settings.mask is not None:
        shapes["mask_logits"] = (classes, settings.mask.size, settings.mask.size)
    if settings.keypoints is not None:
        shapes["keypoint_logits"] = (settings.keypoints.count, settings.keypoints.size, settings.keypoints.size)
    return shapes
