"""The slimmable detector that a configuration describes, with random weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from slimtrain.base.errors import UserError
from slimtrain.base.image_size import ImageSize
from slimtrain.config.detector import FOREIGN, FROZEN_NORMS, RESNET50, DetectorConfig
from slimtrain.detection.backbones import STRIDES, Stages, resnet_stages, stages_of
from slimtrain.detection.dense import DenseDetector
from slimtrain.detection.freezing import freeze
from slimtrain.detection.making import slimmable_detector
from slimtrain.detection.pretrained import load_pretrained
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.tracing.sources import build_module
from slimtrain.tracing.starting import at_lists

__all__ = ["build", "freeze_configured", "load_pretrained", "stages_for"]


def build(
    config: DetectorConfig,
    classes: int,
    widths: Sequence[float],
    family: str,
    image_size: ImageSize,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int = 0,
    keypoints: int = 0,
    lists: Sequence[Mapping[str, int]] = (),
) -> SlimmableNetwork:
    """The detector of `config` for so many `classes` (without the background), at `widths` as of `make_slimmable`, in training
    mode, frozen as it says. Weights are drawn from `seed` as torchvision draws them. It runs on images of any size that its
    strides divide; costs are for `image_size`. `keypoints`: of an object, 0 for COCO's 17. `lists`: of an AutoSlim
    detector, the channels of its switches, group -> count.

    UserError for what no detector can be, ResourceError where a package is missing.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        stages = stages_for(config)
        settings = config.settings(classes, stages.strides, mean, std, keypoints)
        module = DenseDetector(settings, stages, config.neck, config.hidden, config.head or None, config.neck_norm)
    planned = family == "autoslim"
    network = slimmable_detector(
        module,
        widths,
        family="us" if planned else family,
        slim=config.slim,
        image_size=image_size,
        order="none",
        check=False,
    )
    network = at_lists(network, lists) if planned else network
    freeze_configured(network, config)
    return network


def freeze_configured(network: SlimmableNetwork, config: DetectorConfig) -> None:
    """Freeze what `config` says, of a network that was built by it: a resumed one too, as no checkpoint says so."""
    freeze(network, norms=config.norms == FROZEN_NORMS, stages=config.frozen_stages, first_stage=config.first_stage)


def stages_for(config: DetectorConfig) -> Stages:
    """What the detector of `config` stands on, with weights drawn from torch's random numbers."""
    if not config.backbone.startswith(FOREIGN):
        if config.backbone == RESNET50:
            return resnet_stages(first=config.first_stage)
        return resnet_stages(config.depths, config.width, config.bottleneck, config.first_stage)
    try:
        return stages_of(build_module(config.backbone), STRIDES[config.first_stage :])
    except UserError as error:
        raise type(error)(str(error).replace("--model ", "detector.backbone ")) from error
