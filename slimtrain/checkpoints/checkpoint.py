"""Opening a checkpoint: read, identify, check, and put the weights into a slimmable network."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from slimtrain.base.errors import CheckpointError, UserError, WidthError
from slimtrain.base.image_size import ImageSize, as_image_size, format_size
from slimtrain.base.untrusted.quoting import reason
from slimtrain.checkpoints.files.shards import checkpoint_sha256
from slimtrain.checkpoints.identify import identify, is_published_detector
from slimtrain.checkpoints.layout import check_values, load_network
from slimtrain.checkpoints.own_layout import is_averaged, is_own, read_own, read_probe_images, with_weights
from slimtrain.checkpoints.reading import read_content
from slimtrain.checkpoints.weights import find_weights
from slimtrain.checkpoints.width_labels import WidthsUnclearError
from slimtrain.config.config import Config
from slimtrain.config.published_config import PublishedConfig, read_published_config
from slimtrain.config.reading import stored_settings
from slimtrain.data.class_names import stored_class_names
from slimtrain.models.channels import ChannelPlan, number_text, width_label
from slimtrain.models.normalization import IMAGENET_MEAN, IMAGENET_STD, imagenet_normalization
from slimtrain.models.published import RANDOM
from slimtrain.models.spec import NetworkSpec
from slimtrain.models.width_spec import WidthSpec
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.ordinary import ordinary_torch

CALIBRATE = "Calibrate with --calibration-data FOLDER"


@dataclass
class Checkpoint:
    """A slimmable network with its weights, in evaluation mode, and where they came from.

    `file` is the file's name, for an untrained network `random:NETWORK` (see `random_spec`), whose `sha256` is None. `mean`
    and `std` are those of the images it was trained on, per channel, for values from 0 to 1. `weights` is what was asked for
    among several sets of weights in the file.
    """

    file: str
    sha256: str | None
    network: SlimmableNetwork
    image_size: ImageSize = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    class_names: tuple[str, ...] = ()  # where the file tells them
    described: bool = False  # the file itself says which images it takes
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the run that trained it, where the file tells them
    weights: str | None = None
    probe_images: Tensor | None = None  # images like those that it is for, see own_layout.py
    averaged: bool = False  # the weights are the average of a run's, where the file tells

    @property
    def spec(self) -> WidthSpec:
        return self.network.spec

    @property
    def untrained(self) -> bool:
        return self.sha256 is None


@ordinary_torch()
def open_checkpoint(
    source: str | Path,
    *,
    network: str | None = None,
    switches: Sequence[float] | None = None,
    config: str | Path | None = None,
    expected_widths: Sequence[float] = (),
    weights: str | None = None,
    detectors: Callable[[Mapping[str, Tensor], Path], Checkpoint] | None = None,
) -> Checkpoint:
    """The checkpoint at a path, or an untrained network for `random:NETWORK`, as `slimtrain.open_checkpoint` says
    (slimtrain/detection/opening.py), of a network that classifies, or of one of our own files. `detectors` opens what is a
    published detector's state dict; where it is left out, such a file raises CheckpointError as others do that hold no
    classifier.
    """
    if isinstance(source, str) and source.startswith(RANDOM):
        if weights:
            raise UserError(f"{source}: holds one set of weights. Leave --weights {weights} out.")
        from slimtrain.checkpoints.untrained import untrained_network

        return untrained_checkpoint(source, untrained_network(source.removeprefix(RANDOM)))
    path = Path(source)
    settings = read_published_config(config) if config else PublishedConfig()
    content = read_content(path)
    if is_own(content):
        return _open_own(content, path, network, switches, weights)
    state = find_weights(content, path.name, weights).state
    if detectors is not None and is_published_detector(state):
        return detectors(state, path)
    spec = identify(
        state,
        path.name,
        network=network or settings.network,
        switches=switches,
        expected_widths=settings.switches or expected_widths,
    )
    check_values(state, path.name)
    normalization = settings.mean, settings.std
    if len(settings.mean) != spec.in_channels:
        normalization = imagenet_normalization(spec.in_channels)
    images, recorded = (settings.image_size, *normalization), False
    if not config and isinstance(content, Mapping) and isinstance(content.get("input"), Mapping):
        with contextlib.suppress(
            KeyError, TypeError, ValueError, OverflowError
        ):  # written by our own runs; it may be anything else
            images, recorded = _images(content["input"], spec.in_channels), True
    names = stored_class_names(content, spec.classes)
    loaded = load_network(spec, state)
    return Checkpoint(path.name, checkpoint_sha256(path), loaded, *images, names, recorded, weights=weights)


def untrained_checkpoint(source: str, network: SlimmableNetwork) -> Checkpoint:
    """`random:NETWORK` with its network: it takes ImageNet's images, of its channels."""
    mean, std = imagenet_normalization(network.spec.in_channels)
    return Checkpoint(source, None, network, mean=mean, std=std)


def _images(entry: Mapping[str, Any], channels: int) -> tuple[ImageSize, tuple[float, ...], tuple[float, ...]]:
    """Size, mean and standard deviation of the images that a file says it takes. ValueError and others where it does not."""
    image_size = as_image_size(entry["image_size"])
    mean, std = (tuple(map(float, entry[key])) for key in ("mean", "std"))
    if {len(mean), len(std)} != {channels} or not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise ValueError(f"image size {format_size(image_size)}, {channels} channels, mean {mean}, std {std}")
    return image_size, mean, std


def _open_own(
    content: Mapping[str, Any], path: Path, network: str | None, switches: Sequence[float] | None, weights: str | None
) -> Checkpoint:
    """The checkpoint of one of our own files, which says itself what it holds. `last.pt` may hold an average of the weights
    beside them."""
    content = with_weights(content, path.name, weights)
    loaded = read_own(content, path.name)
    if network not in (None, loaded.spec.name) and isinstance(loaded.spec, NetworkSpec):  # others say what they are
        raise CheckpointError(
            f"{path.name}: holds a {loaded.spec.name}, not a {network}. Take another file, or name the right network."
        )
    if switches is not None:
        raise UserError(f"{path.name}: names its own switches or widths. Leave --switches out.")
    images = content.get("input")
    try:
        assert isinstance(images, dict)
        image_size, mean, std = _images(images, loaded.spec.in_channels)
        names = tuple(map(str, content.get("class_names", ())))
    except (AssertionError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(
            f"{path.name}: does not say which images it takes ({type(error).__name__}: {reason(error)}). The file is damaged."
        ) from error
    settings = checked_settings(content.get("settings", {}), path.name)
    probes = read_probe_images(content, path.name, loaded.spec.in_channels)
    return Checkpoint(
        *(path.name, checkpoint_sha256(path), loaded, image_size, mean, std, names, True, settings, weights, probes),
        averaged=is_averaged(content),
    )


def checked_settings(settings: Any, name: str) -> dict[str, Any]:
    """The settings of a run that one of our files holds. CheckpointError where they are none."""
    try:
        if not isinstance(settings, dict):
            raise UserError(f"{name}: its settings are no keys and values as expected.")
        return stored_settings(settings, f"{name}: its settings")
    except UserError as error:
        raise CheckpointError(f"{error} The file is damaged.") from error


def open_configured(
    source: str | Path, config: Config, *, network: str | None = None, weights: str | None = None
) -> Checkpoint:
    """A checkpoint for a run of `config`, whose widths settle what shapes leave open. Raises what `open_checkpoint` raises."""
    try:
        return open_checkpoint(source, network=network, weights=weights)
    except WidthsUnclearError as error:
        named = (*config.switches, *config.width_range, *config.test_widths)
        try:
            return open_checkpoint(source, network=network, expected_widths=named, weights=weights)
        except UserError as second:
            key = "test_widths" if config.family == "us" else "switches"
            raise UserError(
                f"{error.reason}. The configuration does not settle it: name the widths that the file holds, as in "
                f"--set {key}=0.25,0.5."
            ) from second


def missing_statistics(network: SlimmableNetwork, plan: ChannelPlan, name: str, remedy: str = CALIBRATE) -> WidthError:
    """The error for a plan that nobody calibrated; `remedy` says how to."""
    asked = f"plan {plan.name}" if plan.width is None else f"width {number_text(plan.width)}"
    filled = sorted(plan.width or 0 for plan in network.known_plans if plan.width and network.has_statistics(plan))
    if not filled:
        return WidthError(
            f"{asked}: {name} has no batch-norm statistics at all, its running means are all 0 and variances 1: it was never "
            f"calibrated. {remedy}."
        )
    return WidthError(
        f"{asked}: {name} has batch-norm statistics only for {', '.join(map(width_label, filled))}. "
        f"{remedy}, or choose from these."
    )
