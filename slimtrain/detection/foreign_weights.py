"""Weights under other networks' names, brought to a detector's: classifiers' and torchvision's detectors'."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import accumulate

import torch
from torch import Tensor
from torchvision.models import detection

from slimtrain.base.errors import CheckpointError
from slimtrain.detection.freezing import BODY
from slimtrain.models.resnet import ResNet
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork

# A published ResNet's place in a block -> torchvision's name for it.
PLACES = {"conv1": "body.0", "bn1": "body.1", "conv2": "body.3", "bn2": "body.4", "conv3": "body.6", "bn3": "body.7"}
PLACES |= {"downsample.0": "shortcut.0", "downsample.1": "shortcut.1"}
STEM = {"conv1": "features.0.0", "bn1": "features.0.1"}
BLOCK = re.compile(r"layer(\d)\.(\d+)\.(conv\d|bn\d|downsample\.\d)(.*)")
# Files of torchvision whose norms divide by the variance as it is: it sets their eps to 0 where it loads them.
WITHOUT_EPS = (
    "FasterRCNN_ResNet50_FPN_Weights",
    "MaskRCNN_ResNet50_FPN_Weights",
    "KeypointRCNN_ResNet50_FPN_Weights",
    "RetinaNet_ResNet50_FPN_Weights",
)
NOTHING = ""  # what no tensor is called
DIGEST = re.compile(r"-([0-9a-f]{8})\.pth$")


def classifier_names(source: SlimmableNetwork, name: str) -> Callable[[str], str]:
    """What a slimmable classifier calls a tensor or norm of a detector's backbone; of anything else a name that it lacks.
    CheckpointError, naming the file, where its layers cannot be those of a backbone."""
    spec = source.spec
    if not isinstance(spec, NetworkSpec):
        return lambda own: own.removeprefix(BODY) if own.startswith(BODY) else NOTHING
    arch = spec.arch
    if not isinstance(arch, ResNet):
        raise CheckpointError(
            f"{name}: holds a {spec.name}, whose layers are none of the detector's backbone. Expected a ResNet's, or a file "
            "of the module that detector.backbone names."
        )
    first = [1, *accumulate(arch.repeats, initial=1)][1:]  # the number of every layer's first block
    return lambda own: _published_resnet(own, first)


def _published_resnet(name: str, first: list[int]) -> str:
    inner = name.removeprefix(BODY)
    head, _, rest = inner.partition(".")
    if head in STEM:
        return f"{STEM[head]}.{rest}" if rest else STEM[head]
    match = BLOCK.fullmatch(inner)
    if match is None or int(match[1]) >= len(first):
        return NOTHING
    return f"features.{first[int(match[1]) - 1] + int(match[2])}.{PLACES[match[3]]}{match[4]}"


def ordinary_weights(network: SlimmableNetwork, state: Mapping[str, Tensor], without_eps: bool) -> dict[str, Tensor]:
    """An ordinary network's `state` under the names of the detector; where its norms are `without_eps`, scales as ours take
    them."""
    if not any(key.startswith(BODY) for key in state):
        state = {f"{BODY}{key}": tensor for key, tensor in state.items()}
    else:
        state = dict(state)
    if without_eps:
        for norm in network.body.of_nodes.values():
            weight, variance = norm.stored.get("weight"), norm.stored["running_var"]
            if weight is not None and weight.name in state and variance.name in state and norm.path.startswith(BODY):
                state[weight.name] = exact_scale(state[weight.name], state[variance.name], norm.eps)
    return state


def exact_scale(weight: Tensor, variance: Tensor, eps: float) -> Tensor:
    """The scale that gives behind a division by sqrt(variance + eps) what `weight` gives behind one by sqrt(variance)."""
    return (weight.double() * torch.sqrt(1 + eps / variance.double())).to(weight.dtype)


def is_without_eps(sha256: str) -> bool:
    """Whether a file is one of torchvision's, which name their digest's beginning, whose norms have no eps."""
    urls = (getattr(detection, kind).COCO_V1.url for kind in WITHOUT_EPS)
    return any(match is not None and sha256.startswith(match[1]) for match in map(DIGEST.search, urls))
