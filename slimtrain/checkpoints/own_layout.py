"""The layout `own`: checkpoints that say what they hold, and consist of tensors and plain values only.

`own_content` gives what `writing.save` writes, `read_own` the network of what `reading.read_content` reads. A file is a
dictionary: `format` and `version`, `network` (the spec), `input` (image size, mean, std), `class_names`, `settings` (of the
run that trained it, where one did), `model` (the state dict), `calibrated` (statistics of plans beside those the layout
stores: every norm's, those of fixed groups too), and in `last.pt` `training` (what a resumed run goes on from).

The other layout is `published_layout.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from slimtrain.base.errors import CheckpointError
from slimtrain.base.image_size import ImageSize, plain_size
from slimtrain.base.version import __version__
from slimtrain.checkpoints.layout import check_values, compare_layout, load_network
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.plan_file import PLAN_NAME
from slimtrain.models.registry import split_name
from slimtrain.models.spec import IMAGE_CHANNELS, MOST_IMAGE_CHANNELS, NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.norms import RUNNING

FORMAT = "slimtrain"
VERSION = 1


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
) -> dict[str, Any]:
    """The dictionary that `save` writes for `network`, its tensors on the CPU. `settings` are those of the run that trained
    it, as plain values: how it drew its widths, which images it kept aside."""
    spec = network.spec
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "slimtrain": __version__,
        "network": _network_content(spec),
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
    if settings:
        content["settings"] = dict(settings)
    if training is not None:
        content["training"] = dict(training)
    return content


def described(
    image_size: ImageSize, mean: Sequence[float], std: Sequence[float], class_names: Sequence[str]
) -> dict[str, Any]:
    """What a file tells of the images that its network takes, and of its classes."""
    return {
        "input": {"image_size": plain_size(image_size), "mean": list(mean), "std": list(std)},
        "class_names": list(class_names),
    }


def read_own(content: Mapping[str, Any], name: str) -> SlimmableNetwork:
    """The network of one of our files' content, float32, in evaluation mode. CheckpointError where it is damaged or
    was written by a later version."""
    if content.get("version") != VERSION:
        raise CheckpointError(
            f"{name}: has version {content.get('version')!r} of slimtrain's format, this slimtrain {__version__} reads "
            f"{VERSION}. Take the slimtrain that wrote it ({content.get('slimtrain', 'unknown')})."
        )
    state = content.get("model")
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{name}: its `model` holds no tensors. The file is damaged.")
    spec = _spec(content.get("network"), name)
    try:
        compare_layout(spec, state, name)
    except (TypeError, ArithmeticError, RuntimeError) as error:  # torch's messages go on for pages
        raise CheckpointError(
            f"{name}: describes a network of sizes that no tensor can have ({spec.classes} classes, "
            f"{spec.describe_widths()}). The file is damaged."
        ) from error
    check_values(state, name)
    names = content.get("class_names", [])
    if not isinstance(names, list) or len(names) not in (0, spec.classes):
        raise CheckpointError(f"{name}: does not name its {spec.classes} classes as expected. The file is damaged.")
    network = load_network(spec, state)
    calibrated = {}
    try:
        for entry in content.get("calibrated", ()):
            plan = _plan(spec, entry)
            statistics = {path: (mean.float(), var.float()) for path, (mean, var) in entry["statistics"].items()}
            check_values(
                {f"{path}.{kind}": t for path, pair in statistics.items() for kind, t in zip(RUNNING, pair, strict=True)},
                f"{name}, plan {plan.name}",
            )
            calibrated[plan] = statistics
            network.set_statistics(plan, statistics)
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise CheckpointError(f"{name}: its calibrated statistics are damaged ({error}).") from error
    return network


def _plan(spec: NetworkSpec, entry: Mapping[str, Any]) -> ChannelPlan:
    if not PLAN_NAME.fullmatch(entry["name"]):
        raise ValueError(f"the plan's name {entry['name']!r} is none: it goes into file names")
    plan = spec.plan_from_channels(entry["name"], entry["channels"])
    width = entry["width"]
    if width is None:
        return ChannelPlan(plan.name, plan.channels, None)
    if spec.plan(width) != plan:
        raise ValueError(f"plan {plan.name} has other channels than width {width}")
    return ChannelPlan(plan.name, plan.channels, spec.plan(width).width)


def _spec(value: Any, name: str) -> NetworkSpec:
    """The spec of a file's `network`; CheckpointError where it describes none."""
    try:
        fields = {key: _tupled(inside) for key, inside in value.items()}
        spec = NetworkSpec(**fields)
        split_name(spec.name)
        if type(spec.classes) is not int or spec.classes < 1 or type(spec.stem_stride) is not int:
            raise ValueError(f"{spec.classes} classes, stem stride {spec.stem_stride}")
        if type(spec.in_channels) is not int or not 1 <= spec.in_channels <= MOST_IMAGE_CHANNELS:
            raise ValueError(f"images of {spec.in_channels} channels")
        if spec.stem_stride not in (1, 2):
            raise ValueError(f"stem stride {spec.stem_stride}")
        _ = spec.wiring, spec.plans, spec.widest
    except (AttributeError, TypeError, ValueError, KeyError, IndexError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(f"{name}: does not describe a network that is known here ({error}). Is it damaged?") from error
    return spec


def _network_content(spec: NetworkSpec) -> dict[str, Any]:
    """A spec's fields. The channels of color images are left out: earlier versions know no others, and no such key."""
    fields = {key: _listed(value) for key, value in asdict(spec).items()}
    if spec.in_channels == IMAGE_CHANNELS:
        del fields["in_channels"]
    return fields


def _listed(value: Any) -> Any:
    return [_listed(v) for v in value] if isinstance(value, tuple) else value


def _tupled(value: Any) -> Any:
    return tuple(_tupled(v) for v in value) if isinstance(value, list) else value
