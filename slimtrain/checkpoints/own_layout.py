"""The layout `own`: checkpoints that say what they hold, and consist of tensors and plain values only.

`own_content` gives what `writing.save` writes, `read_own` the network of what `reading.read_content` reads. A file is a
dictionary: `format` and `version`, `network` (the spec), `input` (image size, mean, std), `class_names`, `settings` (of the
run that trained it, where one did), `model` (the state dict), `calibrated` (statistics of plans beside those the layout
stores: every norm's, those of fixed groups too), and in `last.pt` `training` (what a resumed run goes on from).

The other layout is `published_layout.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from slimtrain.base.errors import CheckpointError
from slimtrain.base.version import __version__
from slimtrain.checkpoints.layout import check_values, compare_layout, load_network
from slimtrain.checkpoints.stored_spec import plain_spec, read_spec
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.plan_file import PLAN_NAME
from slimtrain.models.width_spec import WidthSpec
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.norms import RUNNING

FORMAT = "slimtrain"
VERSION = 1


def is_own(content: Any) -> bool:
    """Whether a file's content is one of our checkpoints."""
    return isinstance(content, dict) and content.get("format") == FORMAT


def own_content(
    network: SlimmableNetwork,
    image_size: int,
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
    if settings:
        content["settings"] = dict(settings)
    if training is not None:
        content["training"] = dict(training)
    return content


def described(image_size: int, mean: Sequence[float], std: Sequence[float], class_names: Sequence[str]) -> dict[str, Any]:
    """What a file tells of the images that its network takes, and of its classes."""
    return {
        "input": {"image_size": image_size, "mean": list(mean), "std": list(std)},
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


def _plan(spec: WidthSpec, entry: Mapping[str, Any]) -> ChannelPlan:
    if not PLAN_NAME.fullmatch(entry["name"]):
        raise ValueError(f"the plan's name {entry['name']!r} is none: it goes into file names")
    plan = spec.plan_from_channels(entry["name"], entry["channels"])
    width = entry["width"]
    if width is None:
        return ChannelPlan(plan.name, plan.channels, None)
    if spec.plan(width) != plan:
        raise ValueError(f"plan {plan.name} has other channels than width {width}")
    return ChannelPlan(plan.name, plan.channels, spec.plan(width).width)
