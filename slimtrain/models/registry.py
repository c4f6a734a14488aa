"""The networks that can be asked for by name: the ten published ones and their unpublished siblings. No torch."""

from __future__ import annotations

from slimtrain.base.errors import UserError, nearest
from slimtrain.models.published import AUTOSLIM_LISTS, GRIDS, SWITCHES
from slimtrain.models.spec import IMAGENET_CLASSES, NetworkSpec

# Which families an architecture is slimmed in.
FAMILIES_OF = {
    "mobilenet_v1": ("s", "us", "autoslim"),
    "mobilenet_v2": ("s", "us", "autoslim"),
    "mnasnet": ("us", "autoslim"),  # us: where the search for the AutoSlim networks begins
    "resnet50": ("s", "us", "autoslim"),
    "resnet101": ("s", "us", "autoslim"),
    "resnet152": ("s", "us", "autoslim"),
    "shufflenet": ("s",),
}
NETWORKS = tuple(f"{family}_{name}" for name, families in FAMILIES_OF.items() for family in families)
PUBLISHED = (*SWITCHES, *GRIDS, *AUTOSLIM_LISTS)


def split_name(name: str) -> tuple[str, str]:
    """(family, architecture) of a network's name; UserError, with the nearest name, for an unknown one."""
    if name not in NETWORKS:
        raise UserError(f"network {name!r}: not known{nearest(name, NETWORKS)}. The networks are {', '.join(NETWORKS)}.")
    family, _, architecture = name.partition("_")
    return family, architecture


def sibling(name: str, family: str) -> str:
    """The network of the same architecture in another family. UserError where there is none."""
    _, architecture = split_name(name)
    if family not in FAMILIES_OF[architecture]:
        known = ", ".join(a for a, families in FAMILIES_OF.items() if family in families)
        raise UserError(f"network {name}: there is no {family}_{architecture}. Architectures that have one: {known}.")
    return f"{family}_{architecture}"


def published_spec(name: str, classes: int = IMAGENET_CLASSES) -> NetworkSpec:
    """The network as published; for the ones that were not, with the switches or range of their published sibling.

    Raises UserError for an unknown name and for an AutoSlim network without a published channel list.
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
