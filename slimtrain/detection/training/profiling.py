"""What the widths of a detector that a configuration describes cost, as a whole: stages, pyramid and heads at as many regions
as it proposes and detects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slimtrain.config.config import Config
from slimtrain.costs.profiling import costs, usual_widths
from slimtrain.detection.building import build
from slimtrain.detection.making import sized
from slimtrain.detection.training.inputs import detector_of
from slimtrain.groups.spec import GraphSpec

COCO_CLASSES = 80  # where neither the configuration nor its data tells


def detector_costs(config: Config, widths: Sequence[float] | None = None) -> list[dict[str, Any]]:
    """For every width: MACs of one image of `image_size`, and parameters, as of `costs`."""
    own = detector_of(config)
    classes = config.known_classes or COCO_CLASSES
    size = config.image_size
    network = build(
        own,
        classes,
        config.model_widths,
        config.family,
        size,
        config.mean,
        config.std,
        config.seed,
        lists=config.planned_lists,
    )
    spec = network.spec
    assert isinstance(spec, GraphSpec)
    whole = sized(spec, size, own.proposals, own.box.detections)
    return costs(whole, size, widths or usual_widths(whole, config.test_widths))
