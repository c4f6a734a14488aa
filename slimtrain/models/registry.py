"""The architectures, and the networks that can be asked for by name. No torch.

A new architecture is its own file and a line of `ARCHITECTURES`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from slimtrain.base.errors import UserError, nearest
from slimtrain.base.untrusted.quoting import quoted
from slimtrain.models.architecture import Architecture
from slimtrain.models.mobilenet_v1 import MOBILENET_V1
from slimtrain.models.mobilenet_v2 import MNASNET, MOBILENET_V2
from slimtrain.models.resnet import RESNET50, RESNET101, RESNET152
from slimtrain.models.shufflenet import SHUFFLENET

ARCHITECTURES: dict[str, Architecture] = {
    arch.name: arch for arch in (MOBILENET_V1, MOBILENET_V2, MNASNET, RESNET50, RESNET101, RESNET152, SHUFFLENET)
}


def network_names() -> list[str]:
    """Every architecture in every family that it is slimmed in: `us_mobilenet_v1`."""
    return [f"{family}_{arch.name}" for arch in ARCHITECTURES.values() for family in arch.families]


def split_name(name: str, others: Sequence[str] = ()) -> tuple[str, str]:
    """(family, architecture) of a network's name; UserError, with the nearest name, for an unknown one. `others`: names that
    are no architecture's, and would do as well."""
    names = network_names()
    if name not in names:
        known = [*names, *others]
        raise UserError(f"network {quoted(name)}: not known{nearest(name, known)}. The networks are {', '.join(known)}.")
    family, _, architecture = name.partition("_")
    return family, architecture


def sibling(name: str, family: str) -> str:
    """The network of the same architecture in another family. UserError where there is none."""
    _, architecture = split_name(name)
    if family not in ARCHITECTURES[architecture].families:
        known = ", ".join(arch.name for arch in ARCHITECTURES.values() if family in arch.families)
        raise UserError(f"network {name}: there is no {family}_{architecture}. Architectures that have one: {known}.")
    return f"{family}_{architecture}"


def model_name(source: str) -> str:
    """What a network is called whose module `source` names (`torchvision:mobilenet_v3_small`)."""
    return re.sub(r"\W", "_", source.rpartition(":")[2].partition(".")[0])


def described_architectures() -> str:
    """All titles, as a sentence names them: `MobileNet v1 or v2, MNasNet, ResNet or ShuffleNet`."""
    versions: dict[str, list[str]] = {}
    for title in dict.fromkeys(arch.title for arch in ARCHITECTURES.values()):
        line, _, version = title.partition(" ")
        versions.setdefault(line, []).append(version)
    *first, last = (f"{line} {' or '.join(known)}".rstrip() for line, known in versions.items())
    return f"{', '.join(first)} or {last}"
