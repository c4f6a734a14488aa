"""From plan files to the AutoSlim network that trains them: jointly, a switch each, or one alone. No torch.

The AutoSlim layout decides by the channel lists of all its switches where a block adds its input and where it has an
expansion (see models/architecture.py). The search keeps such counts apart (see slimming.py). Plans from elsewhere may agree
by chance where their network had no sum: then the trained network has one. Its channels stay those that were given, a sum
costs nothing, and every reader of the checkpoint decides alike, so this is said and not prevented.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slimtrain.base.errors import UserError, nearest
from slimtrain.config.config import Config
from slimtrain.costs.cost import CostCounter, format_macs
from slimtrain.models.plan_file import WrittenMacs, read_channels, us_groups, written_macs
from slimtrain.models.registry import sibling, split_name
from slimtrain.models.spec import IMAGENET_CLASSES, NetworkSpec

SEARCHED = "the network that was searched"
WIDEST = 4.0  # of what a plan file may hold, as a width: a slip of the keyboard is not to take all memory


@dataclass(frozen=True)
class PlannedSwitch:
    """A plan file's network as a switch of an AutoSlim one. `written` are the MACs that the file tells, None where it does
    not."""

    name: str
    channel_list: tuple[int, ...]
    written: WrittenMacs | None = None


def read_plans(folder: Path, network: str) -> list[PlannedSwitch]:
    """The plan files of a folder, or one file, for the AutoSlim network called `network`, by name.

    UserError where there are none, where one is of another network, or where two have the same name.
    """
    _, architecture = split_name(network)
    if not folder.exists():
        raise UserError(f"plans {folder}: no such folder. The search writes it: `python -m slimtrain search CONFIG`.")
    files = [folder] if folder.is_file() else sorted(path for path in folder.iterdir() if path.suffix in (".yml", ".yaml"))
    if not files:
        raise UserError(f"plans {folder}: holds no plan files (NAME.yml). Is it the `plans` folder of a search?")
    spec = NetworkSpec(architecture, "us", (WIDEST,), width_range=(1.0, WIDEST))
    switches: dict[str, PlannedSwitch] = {}
    for path in files:
        name, channels, _ = read_channels(path, spec, f"the configuration trains {network}")
        spec.check_channels(str(path), channels)
        if name in switches:
            raise UserError(f"{path}: another plan of {folder} is called {name!r} too. Give one of them another name.")
        channel_list = tuple(channels[group] for group in spec.wiring.groups)
        switches[name] = PlannedSwitch(name, channel_list, written_macs(path))
    return list(switches.values())


def plans_config(config: Config, plans: Path, only: str = "") -> tuple[Config, list[str]]:
    """The configuration that trains the plans of a folder, ascending in MACs, or the one called `only`, with the rest of
    `config`; and what is worth saying about them, as lines.

    UserError where the folder holds no plan of this architecture, or none of that name.
    """
    network = sibling(config.network, "autoslim")
    switches = read_plans(plans, network)
    if only:
        names = [switch.name for switch in switches]
        if only not in names:
            raise UserError(f"plan {only!r}: {plans} has {', '.join(names)}{nearest(only, names)}. Choose one of them.")
        switches = [switch for switch in switches if switch.name == only]
    switches = _ascending(switches, config)
    distinct = {switch.channel_list: switch for switch in reversed(switches)}
    trained = [switch for switch in switches if distinct[switch.channel_list] is switch]
    changed = dataclasses.replace(
        config,
        network=network,
        channel_lists=tuple(switch.channel_list for switch in trained),
        switches=(),
        width_range=(),
        test_widths=(),
        nonuniform=False,
        width_step=0.0,
        weights=config.weights if config.network == network else "",
        best_by=config.best_by if config.network == network else "widest",
    )
    notes = [
        f"{switch.name} is the same network as {distinct[switch.channel_list].name}: it is trained once"
        for switch in switches
        if switch not in trained
    ]
    return changed, [*notes, *_described(trained, changed)]


def _ascending(switches: Sequence[PlannedSwitch], config: Config) -> list[PlannedSwitch]:
    """By MACs. Where the number of classes is known from the data alone, which is not open yet, the files tell them."""
    _, architecture = split_name(config.network)
    classes = config.known_classes or IMAGENET_CLASSES
    spec = NetworkSpec(architecture, "us", (1.0,), classes, width_range=(1.0, 1.0), stem_stride=config.stem_stride)
    spec = dataclasses.replace(spec, in_channels=config.in_channels)
    spec.check_image_size(config.image_size)
    count = CostCounter(spec, config.image_size)
    by_file = not config.known_classes and all(_known_macs(switch, config) for switch in switches)

    def macs(switch: PlannedSwitch) -> int:
        return _known_macs(switch, config) if by_file else count(spec.wiring.plan(switch.name, switch.channel_list)).macs

    return sorted(switches, key=lambda switch: (macs(switch), switch.name))


def _known_macs(switch: PlannedSwitch, config: Config) -> int:
    """The MACs of the images that are trained on, where its file tells them; 0 where not."""
    written = switch.written
    same = written is not None and (written.image_size, written.in_channels) == (config.image_size, config.in_channels)
    return written.macs if written is not None and same else 0


def _described(switches: Sequence[PlannedSwitch], config: Config) -> list[str]:
    """A line per switch, with its MACs where they are known, then one for every place where the wiring is not that of the
    searched network."""
    spec = config.spec(config.known_classes or IMAGENET_CLASSES)
    count = CostCounter(spec, config.image_size)
    lines = []
    for number, (switch, plan) in enumerate(zip(switches, spec.plans, strict=True), 1):
        macs = count(plan).macs if config.known_classes else _known_macs(switch, config)
        lines.append(f"switch {number}: {switch.name}{f', {format_macs(macs)} MACs' if macs else ''}")
    return [*lines, *wiring_changes(spec)]


def wiring_changes(spec: NetworkSpec) -> list[str]:
    """Where the AutoSlim network `spec` ties groups by their counts, and its US sibling does not."""
    ties = {}
    for ours, theirs in zip(spec.wiring.groups, us_groups(spec.architecture), strict=True):
        if ours != theirs:
            ties[theirs] = ours
    return [
        f"warning: {theirs} has as many channels as {ours} wherever it is trained, so "
        f"{spec.arch.effect_of_tie(theirs, SEARCHED)}. To keep to {SEARCHED}, change one of the two counts in a plan file."
        for theirs, ours in ties.items()
    ]
