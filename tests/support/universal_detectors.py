"""Universally slimmable detectors with random weights, and noise with boxes for them to be measured on."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch

from slimtrain.data.detection.batches import DetectionBatch
from slimtrain.data.detection.fake import FakeObjects
from slimtrain.data.detection.transforms import DetectionTransform
from slimtrain.data.loader import seed_of
from slimtrain.detection.halves import Halves
from slimtrain.detection.losses.single_stage import SingleStageLosses
from slimtrain.detection.losses.two_stage import TwoStageLosses
from slimtrain.detection.making import slimmable_detector
from slimtrain.detection.training.drawing import drawn_singly
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.detector import FASTER, RETINA, DetectorSettings
from slimtrain.search.detectors import DetectionEvaluator, HeldOutObjects
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.distributed import Processes
from tests.support.run_helpers import ALONE
from tests.support.trained_detectors import CLASSES, SAMPLING, SIZE, quick_detector

PLAIN = DetectionTransform((0.5,) * 3, (0.25,) * 3)


def universal_detector(kind: str = FASTER) -> SlimmableNetwork:
    """It detects many boxes, some of which are near an object by chance."""
    module = quick_detector(kind)
    box = dataclasses.replace(module.settings.box, detections=20, candidates=40)
    module.settings = dataclasses.replace(module.settings, box=box)
    return slimmable_detector(module, (0.5, 1.0), family="us", image_size=SIZE, order="none").eval()


def settings_of(network: SlimmableNetwork) -> DetectorSettings:
    spec = network.spec
    assert isinstance(spec, GraphSpec) and spec.detector is not None
    return spec.detector


def held_out(images: int = 6, chunk: int = 4) -> HeldOutObjects:
    return HeldOutObjects(FakeObjects(images, SIZE, CLASSES), PLAIN, chunk, stride=16, kept_bytes=1 << 30)


def measure_of(network: SlimmableNetwork, processes: Processes = ALONE, **options: Any) -> DetectionEvaluator:
    """What measures its plans, on chunks of 4 and 2 images."""
    options = {"channels_last": False, "measured": "loss", "sampling": SAMPLING, "seed": 3, **options}
    return DetectionEvaluator(network, held_out(), processes, settings=settings_of(network), **options)


def batches() -> list[DetectionBatch]:
    """The chunks of `held_out`."""
    chunks = held_out()
    return [chunk for _, chunk in chunks.read(range(len(chunks)))]


def loss_of(network: SlimmableNetwork, plan: ChannelPlan, batch: DetectionBatch) -> float:
    """In training mode, where norms go by the batch, each image's draws from a seed of its own."""
    learning = copy.deepcopy(network).train()
    settings, sides = settings_of(network), (SIZE, SIZE)
    halves = Halves(learning)
    with learning.at(plan), torch.no_grad():
        first = halves.first(batch.images)
        if settings.kind == RETINA:
            return float(sum(SingleStageLosses(settings)(first.outputs, sides, batch.targets).values()))
        both = TwoStageLosses(settings, SAMPLING)
        for number, part in enumerate(map(drawn_singly, (both.rpn, both.heads))):
            part.seeds = [seed_of(seed_of(3, target.image_id), number) for target in batch.targets]
        losses, regions = both.first(first.outputs, sides, [sides] * len(batch.targets), batch.targets)
        rois = (regions.rois, regions.mask_rois) if settings.mask else (regions.rois,)
        losses |= both.second(halves.second(first, *rois), regions, batch.targets)
        return float(sum(losses.values()))
