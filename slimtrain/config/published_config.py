"""Published configuration files (`apps/NAME.yml`): what they say about a checkpoint. Training reads more of them.

Keys may repeat, the last one counts; `!include FILE` is understood; nothing in the file can run code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtrain.base.errors import UserError
from slimtrain.base.image_size import EXPECTED, ImageSize, as_image_size
from slimtrain.base.untrusted.quoting import quoted
from slimtrain.base.yaml_file import load_yaml
from slimtrain.config.reading import read_config
from slimtrain.models.normalization import IMAGENET_MEAN, IMAGENET_STD, INCEPTION_MEAN, INCEPTION_STD
from slimtrain.models.published import published_network, published_spec
from slimtrain.models.registry import split_name


@dataclass(frozen=True)
class PublishedConfig:
    """`switches` are the widths that the checkpoint may hold statistics for: those of the list that it was stored by, the ends
    of the range, then the further widths that were to be tested. A US network may have more between the ends."""

    network: str | None = None
    switches: tuple[float, ...] = ()
    image_size: ImageSize = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


def published_size(value: Any, path: str | Path) -> ImageSize:
    """The `image_size` of a published file, which says squares as pixels, [pixels] or [pixels, pixels]. UserError for
    anything else."""
    try:
        return as_image_size(value[0] if isinstance(value, list) and len(value) == 1 else value)
    except ValueError as error:
        raise UserError(f"{path}: image_size is {quoted(value)}, expected {EXPECTED}.") from error


def _is_width(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def read_published_config(path: str | Path) -> PublishedConfig:
    """What a published `apps/NAME.yml`, or a configuration of ours, says of the network; UserError where a value has the
    wrong form."""
    path = Path(path)
    values = load_yaml(path)
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected `key: value` lines as in the published apps/*.yml.")
    if "network" in values:  # one of our own
        own = read_config(str(path))
        ends = published_spec(own.network).range if own.family == "us" else ()
        return PublishedConfig(
            own.network,
            tuple(dict.fromkeys([*own.switches, *(own.width_range or ends), *own.test_widths])),
            own.image_size,
            own.mean,
            own.std,
        )
    network = None
    if "model" in values:
        network = published_network(str(values["model"]), values)
        split_name(network)
    widths: list[float] = []
    for key in ("width_mult_list", "width_mult_range", "width_mult_list_test"):
        if network and network.startswith("autoslim"):
            break  # there the switches are channel lists
        value = values.get(key) or []
        if not isinstance(value, list) or not all(_is_width(w) for w in value):
            raise UserError(f"{path}: {key} is {quoted(value)}, expected a list of positive widths.")
        widths += [float(w) for w in value if float(w) not in widths]
    image_size = published_size(values.get("image_size", 224), path)
    if "inception" in str(values.get("data_transforms", "")):
        return PublishedConfig(network, tuple(widths), image_size, INCEPTION_MEAN, INCEPTION_STD)
    return PublishedConfig(network, tuple(widths), image_size)
