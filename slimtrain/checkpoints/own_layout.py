"""The layout `own`: checkpoints that say what they hold, and consist of tensors and plain values only.

`own_content` gives what `writing.save` writes, `read_own` the network of what `reading.read_content` reads. A file is a
dictionary: `format` and `version`, `network` (the spec), `input` (image size, mean, std), `class_names`, `settings` (of the
run that trained it, where one did), `probe_images` (a few that it is for, before they are normalized: uint8 [images,
channels, height, width], of the size it was trained on; where there are any), `model` (the state dict), `averaged` (true
where that is the average of a run's weights), `calibrated` (statistics of plans beside those the layout stores: every norm's,
those of fixed groups too), and in `last.pt` `training` (what a resumed run goes on from; `ema` in it is their average).

The other layout is `published_layout.py`'s.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slimtrain.base.errors import CheckpointError, UserError, nearest
from slimtrain.base.image_size import ImageSize, plain_size
from slimtrain.base.text import count
from slimtrain.base.untrusted.quoting import quoted, reason, shortened
from slimtrain.base.version import __version__
from slimtrain.checkpoints import writing
from slimtrain.checkpoints.layout import check_values, compare_layout, load_network
from slimtrain.checkpoints.stored_spec import plain_spec, read_spec
from slimtrain.checkpoints.weights import EMA, MODEL
from slimtrain.data.class_names import is_class_name
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.plan_file import PLAN_NAME
from slimtrain.models.width_spec import WidthSpec
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.norms import RUNNING

log = logging.getLogger(__name__)

FORMAT = "slimtrain"
VERSION = 1
MOST_PROBES = 64  # images that a file may carry
BESIDE = ("ema", "teacher")  # sets of weights in `training`
AVERAGE, WRAPPED = "training.ema", "module."  # which stands before the keys of torch's averaging model
IMAGE_SIZE = 224  # of a published architecture, where nothing else is said


def is_own(content: Any) -> bool:
    """Whether a file's content is one of our checkpoints."""
    return isinstance(content, dict) and content.get("format") == FORMAT


def own_content(
    network: SlimmableNetwork,
    image_size: ImageSize,
    mean: Sequence[float],
    std: Sequence[float],
    class_names: Sequence[str] = (),
    training: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    probe_images: Tensor | None = None,
    averaged: bool = False,
) -> dict[str, Any]:
    """The dictionary that `save` writes for `network`, its tensors on the CPU. `settings` are those of the run that trained
    it, as plain values: how it drew its widths, which images it kept aside. `probe_images`: a few images for the proof of
    what is exported, uint8. `averaged`: its weights are the average of those that were trained."""
    spec = network.spec
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "slimtrain": __version__,
        "network": plain_spec(spec),
        **described(image_size, mean, std, class_names),
        "model": {key: value.detach().cpu() for key, value in network.state_dict().items()},
        "calibrated": [
            {
                "name": plan.name,
                "width": plan.width,
                "channels": dict(plan.channels),
                "statistics": {path: [t.detach().cpu() for t in pair] for path, pair in statistics.items()},
            }
            for plan, statistics in network.calibrated.items()
        ],
    }
    if averaged:
        content["averaged"] = True
    if settings:
        content["settings"] = dict(settings)
    if probe_images is not None:
        content["probe_images"] = probe_images
    if training is not None:
        content["training"] = dict(training)
    return content


def save(
    network: SlimmableNetwork,
    path: str | Path,
    *,
    image_size: ImageSize | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    class_names: Sequence[str] = (),
) -> None:
    """Write a network that was trained in a loop of your own as a checkpoint, which `slimexport --ckpt` and `open_checkpoint`
    read; its statistics of calibrated plans go along.

    `image_size`: pixels a side, or (height, width); a traced network holds its own (default for others: 224). `mean` and
    `std`: what inputs are normalized by, a number for each channel, for values from 0 to 1 (default: 0 and 1, as they are).

    UserError for numbers that do not fit the network, and where the file cannot be written.

    >>> import slimtrain
    >>> network = slimtrain.SlimmableNetwork(slimtrain.published_spec("s_mobilenet_v1", classes=10))
    >>> slimtrain.save(network, "mine.pt", image_size=64, mean=(0.5,) * 3, std=(0.5,) * 3)
    >>> slimtrain.open_checkpoint("mine.pt").image_size
    64
    """
    spec = network.spec
    size: ImageSize = image_size if image_size is not None else getattr(spec, "image_size", IMAGE_SIZE)
    spec.check_image_size(size)
    numbers = {"mean": tuple(mean or [0.0] * spec.in_channels), "std": tuple(std or [1.0] * spec.in_channels)}
    for key, values in numbers.items():
        usable = all(math.isfinite(value) and (value > 0 or key == "mean") for value in values)
        if len(values) != spec.in_channels or not usable:
            raise UserError(
                f"{key} {list(values)}: expected a number for each of the {count(spec.in_channels, 'channel')} of an input"
                f"{', above 0' * (key == 'std')}."
            )
    if len(class_names) not in (0, spec.classes):
        raise UserError(f"{len(class_names)} class names, expected one for each of {spec.classes} classes, or none.")
    writing.save(own_content(network, size, numbers["mean"], numbers["std"], class_names), Path(path))


def described(
    image_size: ImageSize, mean: Sequence[float], std: Sequence[float], class_names: Sequence[str]
) -> dict[str, Any]:
    """What a file tells of the images that its network takes, and of its classes."""
    return {
        "input": {"image_size": plain_size(image_size), "mean": list(mean), "std": list(std)},
        "class_names": list(class_names),
    }


def with_weights(content: Mapping[str, Any], name: str, wanted: str | None) -> Mapping[str, Any]:
    """One of our files' content with the set of weights that is `wanted` as its `model`: `model`, `ema` or a dotted key; None
    for `model`. A finished file of a run that averaged its weights holds the average alone. For sets beside the model nobody
    calibrated. UserError where there is none such."""
    training = content.get("training")
    held = training if isinstance(training, dict) else {}
    keys = {f"training.{part}": part for part in BESIDE if isinstance(held.get(part), dict)}
    if wanted is None and AVERAGE in keys:
        log.info("%s: took the weights as trained. It holds their average, too, which --weights %s takes", name, EMA)
    if wanted in (None, MODEL) or (wanted == EMA and is_averaged(content)):
        return content
    key = AVERAGE if wanted == EMA else str(wanted)
    if key not in keys:
        names = [MODEL + ", an average" * is_averaged(content), *keys]
        none = (
            "it does not say that it holds an average of its weights"
            if wanted == EMA
            else f"nothing is called so{nearest(key, keys)}"
        )
        raise UserError(
            f"{name}: --weights {wanted}: {none}. It holds {'; '.join(names)}. Give one of these keys, or leave --weights out."
        )
    state = held[keys[key]]
    if key == AVERAGE:
        state = {entry.removeprefix(WRAPPED): tensor for entry, tensor in state.items() if str(entry).startswith(WRAPPED)}
    return {**content, "model": state, "calibrated": [], "averaged": key == AVERAGE}


def is_averaged(content: Mapping[str, Any]) -> bool:
    """Whether the `model` of one of our files is the average of a run's weights."""
    return content.get("averaged") is True


def read_own(content: Mapping[str, Any], name: str) -> SlimmableNetwork:
    """The network of one of our files' content, float32, in evaluation mode. CheckpointError where it is damaged or
    was written by a later version."""
    version = content.get("version")
    if type(version) is not int or version != VERSION:
        raise CheckpointError(
            f"{name}: has version {quoted(version)} of slimtrain's format, this slimtrain {__version__} reads "
            f"{VERSION}. Take the slimtrain that wrote it ({shortened(str(content.get('slimtrain', 'unknown')))})."
        )
    state = content.get("model")
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{name}: its `model` holds no tensors. The file is damaged.")
    spec = read_spec(content.get("network"), name)
    try:
        compare_layout(spec, state, name)
    except (TypeError, ArithmeticError, RuntimeError) as error:  # torch's messages go on for pages
        raise CheckpointError(
            f"{name}: describes a network of sizes that no tensor can have ({spec.classes} classes, "
            f"{spec.describe_widths()}). The file is damaged."
        ) from error
    check_values(state, name)
    names = content.get("class_names", [])
    if not isinstance(names, list) or len(names) not in (0, spec.classes) or not all(map(is_class_name, names)):
        raise CheckpointError(f"{name}: does not name its {spec.classes} classes as expected. The file is damaged.")
    network = load_network(spec, state)
    calibrated = {}
    try:
        for entry in content.get("calibrated", ()):
            plan = _plan(spec, entry)
            pairs = entry["statistics"]
            check_values(
                {f"{path}.{kind}": t for path, pair in pairs.items() for kind, t in zip(RUNNING, pair, strict=True)},
                f"{name}, plan {plan.name}",
            )
            statistics = {path: (mean.float(), var.float()) for path, (mean, var) in pairs.items()}
            calibrated[plan] = statistics
            network.set_statistics(plan, statistics)
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise CheckpointError(f"{name}: its calibrated statistics are damaged ({reason(error)}).") from error
    return network


def _plan(spec: WidthSpec, entry: Mapping[str, Any]) -> ChannelPlan:
    if not PLAN_NAME.fullmatch(entry["name"]):
        raise ValueError(f"the plan's name {quoted(entry['name'])} is none: it goes into file names")
    plan = spec.plan_from_channels(entry["name"], entry["channels"])
    width = entry["width"]
    if width is None:
        return ChannelPlan(plan.name, plan.channels, None)
    if spec.plan(width) != plan:
        raise ValueError(f"plan {plan.name} has other channels than width {width}")
    return ChannelPlan(plan.name, plan.channels, spec.plan(width).width)


def read_probe_images(content: Mapping[str, Any], file: str, channels: int) -> Tensor | None:
    """The images that a checkpoint carries, uint8 [images, channels, height, width]; None of one without."""
    images = content.get("probe_images")
    if images is None:
        return None
    usable = isinstance(images, Tensor) and images.dtype == torch.uint8 and images.ndim == 4 and images.layout == torch.strided
    if not usable or images.shape[1] != channels or not 0 < len(images) <= MOST_PROBES or not images.numel():
        shown = list(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise CheckpointError(
            f"{file}: its probe_images are {shown}, expected uint8 of at most {MOST_PROBES} images with {channels} channels. "
            "The file is damaged."
        )
    return images
