"""The ten published networks (1812.08928, 1903.05134, 1903.11728): switches, width grids and channel lists; and what the
published training files say of them. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from slimtrain.base.errors import UserError
from slimtrain.models.registry import ARCHITECTURES, split_name
from slimtrain.models.spec import IMAGENET_CLASSES, MOST_IMAGE_CHANNELS, NetworkSpec

RANDOM = "random:"  # before the name of a network, in the place of a checkpoint's path: an untrained one
RANDOM_KEYS = ("in_channels", "classes")

SWITCHES: dict[str, tuple[float, ...]] = {
    "s_mobilenet_v1": (0.25, 0.5, 0.75, 1.0),
    "s_mobilenet_v2": (0.35, 0.5, 0.75, 1.0),
    "s_resnet50": (0.25, 0.5, 0.75, 1.0),
    "s_shufflenet": (0.5, 1.0, 2.0),
}

# Universally slimmable: every width that the published files hold statistics for, in steps of 0.025.
GRIDS: dict[str, tuple[float, ...]] = {
    "us_mobilenet_v1": tuple(i * 25 / 1000 for i in range(10, 41)),
    "us_mobilenet_v2": tuple(i * 25 / 1000 for i in range(14, 41)),
}

# AutoSlim: `channel_num_list` of each switch, in ascending order of MACs, without its unused last entry.
# fmt: off
AUTOSLIM_LISTS: dict[str, tuple[tuple[int, ...], ...]] = {
    "autoslim_mobilenet_v1": (
        (
            16, 32, 48, 48, 88, 88, 224, 176, 224, 368, 320, 224, 744, 744,
        ),
        (
            16, 32, 48, 64, 112, 184, 320, 368, 320, 416, 464, 560, 1128, 1128,
        ),
        (
            24, 64, 128, 144, 232, 232, 560, 464, 512, 464, 560, 560, 1128, 1128,
        ),
    ),
    "autoslim_mobilenet_v2": (
        (
            8, 8, 96, 16, 96, 16, 96, 24, 144, 24, 144, 24, 144, 48, 288, 48, 288, 48, 288, 48, 288, 64, 432, 64,
            432, 64, 648, 176, 720, 176, 720, 176, 1440, 280, 1920,
        ),
        (
            8, 8, 96, 16, 96, 16, 96, 24, 144, 24, 144, 24, 144, 56, 288, 56, 288, 56, 288, 56, 288, 96, 432, 96,
            432, 96, 864, 240, 1440, 240, 960, 240, 1440, 480, 1920,
        ),
        (
            32, 16, 144, 24, 176, 24, 192, 48, 240, 48, 144, 48, 264, 88, 288, 88, 336, 88, 432, 88, 576, 144, 576,
            144, 648, 144, 864, 240, 1440, 240, 1440, 240, 1440, 480, 1920,
        ),
    ),
    "autoslim_mnasnet": (
        (
            16, 8, 24, 16, 48, 16, 24, 16, 48, 32, 48, 32, 48, 32, 192, 56, 400, 56, 400, 56, 400, 80, 432, 80, 648,
            192, 864, 192, 864, 192, 864, 192, 1728, 280, 1280,
        ),
        (
            16, 8, 40, 24, 48, 24, 40, 24, 48, 40, 80, 40, 48, 40, 352, 64, 400, 64, 400, 64, 464, 80, 432, 80, 792,
            288, 864, 288, 864, 288, 1008, 288, 1728, 360, 1920,
        ),
        (
            16, 8, 64, 32, 56, 32, 72, 32, 104, 64, 128, 64, 96, 64, 384, 104, 528, 104, 464, 104, 720, 128, 576,
            128, 864, 288, 1584, 288, 1728, 288, 1728, 288, 1728, 480, 1920,
        ),
    ),
    "autoslim_resnet50": (
        (
            24, 72, 8, 16, 72, 16, 16, 72, 8, 8, 72, 240, 16, 24, 240, 16, 24, 240, 16, 16, 240, 16, 24, 240, 704,
            72, 72, 704, 48, 72, 704, 48, 72, 704, 72, 72, 704, 48, 48, 704, 48, 48, 704, 1680, 280, 240, 1680, 120,
            200, 1680, 280, 280, 1680,
        ),
        (
            32, 72, 16, 16, 72, 16, 16, 72, 8, 8, 72, 280, 24, 40, 280, 16, 24, 280, 16, 24, 280, 24, 40, 280, 880,
            72, 72, 880, 72, 96, 880, 72, 72, 880, 72, 72, 880, 48, 72, 880, 168, 96, 880, 2016, 360, 280, 2016,
            320, 360, 2016, 480, 440, 2016,
        ),
        (
            40, 120, 16, 16, 120, 24, 24, 120, 16, 24, 120, 440, 48, 72, 440, 32, 48, 440, 40, 56, 440, 64, 72, 440,
            1024, 168, 168, 1024, 96, 144, 1024, 120, 168, 1024, 120, 144, 1024, 120, 144, 1024, 256, 256, 1024,
            2016, 512, 512, 2016, 480, 480, 2016, 512, 512, 2016,
        ),
        (
            48, 192, 16, 16, 192, 56, 56, 192, 24, 40, 192, 512, 88, 112, 512, 64, 104, 512, 104, 112, 512, 80, 128,
            512, 1024, 240, 216, 1024, 144, 216, 1024, 192, 192, 1024, 144, 240, 1024, 240, 256, 1024, 256, 256,
            1024, 2016, 512, 512, 2016, 480, 512, 2016, 512, 512, 2016,
        ),
    ),
}
# fmt: on

PUBLISHED = (*SWITCHES, *GRIDS, *AUTOSLIM_LISTS)


def published_spec(name: str, classes: int = IMAGENET_CLASSES) -> NetworkSpec:
    """The network as published; for the ones that were not, with the switches or range of their published sibling.

    Raises UserError for an unknown name and for an AutoSlim network without a published channel list.

    >>> import slimtrain
    >>> spec = slimtrain.published_spec("us_mobilenet_v2")
    >>> spec.range, len(spec.plans)
    ((0.35, 1.0), 27)
    """
    family, architecture = split_name(name)
    if family == "autoslim":
        if name not in AUTOSLIM_LISTS:
            raise UserError(f"network {name!r}: no channel lists were published for it. Known: {', '.join(AUTOSLIM_LISTS)}.")
        lists = AUTOSLIM_LISTS[name]
        return NetworkSpec(architecture, family, tuple(range(1, len(lists) + 1)), classes, lists)
    if family == "us":
        widths = GRIDS.get(name, GRIDS["us_mobilenet_v1"])
        return NetworkSpec(architecture, family, widths, classes, width_range=(widths[0], widths[-1]))
    return NetworkSpec(architecture, family, SWITCHES.get(name, SWITCHES["s_resnet50"]), classes)


def random_spec(source: str) -> NetworkSpec:
    """The network of `random:NETWORK`, or of `random:NETWORK,in_channels=1,classes=10`, which changes the published one's
    images or classes. UserError where it names none."""
    name, *settings = source.removeprefix(RANDOM).split(",")
    changes: dict[str, int] = {}
    for setting in settings:
        key, _, text = (part.strip() for part in setting.partition("="))
        most = MOST_IMAGE_CHANNELS if key == "in_channels" else 10**6
        if key not in RANDOM_KEYS or not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most):
            raise UserError(
                f"{source}: {setting.strip()!r}: expected {RANDOM}NETWORK, or {RANDOM}NETWORK,in_channels=N with 1 to "
                f"{MOST_IMAGE_CHANNELS} channels, or {RANDOM}NETWORK,classes=N."
            )
        changes[key] = int(text)
    return replace(published_spec(name), **changes)  # type: ignore[arg-type]


def published_network(model: str, settings: Mapping[str, Any]) -> str:
    """The name of the network that a published training file trains: its `model` (`models.us_mobilenet_v1`), with the size
    that some architectures have in another of the file's `settings`. Whether there is one of that name is left open."""
    name = model.removeprefix("models.")
    sizes = dict.fromkeys(arch.size_key for arch in ARCHITECTURES.values() if arch.size_key)
    size = next((size for size in sizes if size.stem in (name, name.partition("_")[2])), None)
    if size is None:
        return name
    value = settings.get(size.key)
    return f"{name}{size.usual if value is None else value}"  # a key without a value counts as absent
