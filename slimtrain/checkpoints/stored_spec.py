"""What a network is, as our checkpoints hold it: a published architecture by its name, a traced network by its graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from slimtrain.base.errors import CheckpointError
from slimtrain.base.untrusted.quoting import reason
from slimtrain.graph.plain import from_plain, to_plain
from slimtrain.graph.policy import Policy
from slimtrain.groups.detector_outputs import check_outputs
from slimtrain.groups.groups import Groups, find_groups
from slimtrain.groups.spec import MODEL_NAME, GraphSpec
from slimtrain.models.registry import split_name
from slimtrain.models.spec import IMAGE_CHANNELS, MOST_IMAGE_CHANNELS, NetworkSpec
from slimtrain.models.stored_detector import plain_detector, read_detector
from slimtrain.models.width_spec import WidthSpec
from slimtrain.slimmable.program import check_operators, check_types

DAMAGE = (
    AttributeError,
    TypeError,
    ValueError,
    KeyError,
    IndexError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
    MemoryError,
)


def plain_spec(spec: WidthSpec) -> dict[str, Any]:
    """The `network` of a checkpoint: plain values, and for a traced network its constants as tensors."""
    if isinstance(spec, GraphSpec):
        return {
            "model": spec.model,
            "family": spec.family,
            "switches": list(spec.switches),
            "width_range": None if spec.width_range is None else list(spec.width_range),
            **({"channel_lists": _listed(spec.channel_lists)} if spec.channel_lists else {}),
            **({"detector": plain_detector(spec.detector)} if spec.detector else {}),
            "policy": {key: _listed(choice) for key, choice in asdict(spec.groups.policy).items() if choice},
            "groups": dict(spec.groups.sizes),
            "graph": to_plain(spec.graph),
            "constants": {name: torch.from_numpy(array) for name, array in spec.graph.constants.items()},
        }
    assert isinstance(spec, NetworkSpec)
    fields = {key: _listed(value) for key, value in asdict(spec).items()}
    if spec.in_channels == IMAGE_CHANNELS:  # earlier versions know no others, and no such key
        del fields["in_channels"]
    return fields


def read_spec(value: Any, name: str) -> WidthSpec:
    """The spec of a file's `network`; CheckpointError where it describes none."""
    try:
        spec = _graph_spec(value) if "graph" in value else _network_spec(value)
        _ = spec.plans, spec.widest
    except DAMAGE as error:
        raise CheckpointError(
            f"{name}: does not describe a network that is known here ({reason(error)}). Is it damaged?"
        ) from error
    return spec


def _network_spec(value: Mapping[str, Any]) -> NetworkSpec:
    spec = NetworkSpec(**{key: _tupled(inside) for key, inside in value.items()})
    split_name(spec.name)
    if type(spec.classes) is not int or spec.classes < 1 or type(spec.stem_stride) is not int:
        raise ValueError(f"{spec.classes} classes, stem stride {spec.stem_stride}")
    if type(spec.in_channels) is not int or not 1 <= spec.in_channels <= MOST_IMAGE_CHANNELS:
        raise ValueError(f"images of {spec.in_channels} channels")
    if spec.stem_stride not in (1, 2):
        raise ValueError(f"stem stride {spec.stem_stride}")
    _ = spec.wiring
    return spec


def _graph_spec(value: Mapping[str, Any]) -> GraphSpec:
    """Groups are found again, and must be those that the file names: widths mean nothing else."""
    constants: dict[str, Tensor] = value["constants"]
    graph = from_plain(value["graph"], {name: tensor.numpy() for name, tensor in constants.items()})
    check_operators(graph)
    groups = find_groups(graph, Policy(**{key: _tupled(choice) for key, choice in value["policy"].items()}))
    if groups.sizes != value["groups"]:
        raise ValueError("its channel groups are others than this version finds: another version may have written it")
    switches, ends = _tupled(value["switches"]), _tupled(value["width_range"])
    lists = _tupled(value.get("channel_lists", []))
    if value["family"] == "autoslim" and ends is None:
        _check_lists(lists, switches, groups)
    elif value["family"] not in ("s", "us") or not switches or not all(0 < width <= 1 for width in switches) or lists:
        raise ValueError(f"family {value['family']!r}, widths {switches}")
    if ends is not None and not (len(ends) == 2 and 0 < ends[0] <= ends[1] == 1):
        raise ValueError(f"range of widths {ends}")
    if not isinstance(value["model"], str) or not MODEL_NAME.fullmatch(value["model"]):
        raise ValueError(f"the network's name {value['model']!r} is none: it goes into file names")
    check_types(graph)
    detector = read_detector(value["detector"]) if "detector" in value else None
    if detector is not None:
        check_outputs(detector, graph)
    return GraphSpec(value["model"], value["family"], switches, graph, groups, ends, lists, detector)


def _check_lists(lists: Any, switches: Any, groups: Groups) -> None:
    """ValueError unless `lists` are an AutoSlim network's, one for each of its `switches`."""
    sizes = tuple(groups.sizes.values())
    if not lists or switches != tuple(range(1, len(lists) + 1)):
        raise ValueError(f"switches {switches} of {len(lists)} channel lists")
    for counts in lists:
        whole = len(counts) == len(sizes) and all(type(n) is int for n in counts)
        if not whole or not all(1 <= n <= size for n, size in zip(counts, sizes, strict=True)):
            raise ValueError(f"channel list {counts} for groups of {sizes}")


def _listed(value: Any) -> Any:
    return [_listed(v) for v in value] if isinstance(value, tuple) else value


def _tupled(value: Any) -> Any:
    return tuple(_tupled(v) for v in value) if isinstance(value, list) else value
