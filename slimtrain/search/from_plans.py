"""From plan files to the AutoSlim network that trains them: jointly, a switch each, or one alone. No torch.

The AutoSlim layout decides by the channel lists of all its switches where a block adds its input and where it has an
expansion (see models/architecture.py). The search keeps such counts apart (see slimming.py). Plans from elsewhere may agree
by chance where their network had no sum: then the trained network has one. Its channels stay those that were given, a sum
costs nothing, and every reader of the checkpoint decides alike, so this is said and not prevented.

A user's module and a detector are wired as they are, whatever the counts are. Their groups are not known before they are
traced: the plan files name them, and the run holds them against its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slimtrain.base.errors import UserError, WidthError, nearest
from slimtrain.base.text import some
from slimtrain.config.config import Config
from slimtrain.config.rules import ANY, detector_kind, is_any
from slimtrain.costs.cost import CostCounter, format_macs
from slimtrain.models.plan_file import WrittenMacs, read_channels, us_groups, written_macs
from slimtrain.models.registry import model_name, sibling, split_name
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


@dataclass(frozen=True)
class PlannedNetwork:
    """What plan files are for: the AutoSlim network called `name`, its `groups` (none of a module, which is not traced yet),
    and the group of every entry of a channel list."""

    name: str
    groups: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()

    @staticmethod
    def published(name: str) -> PlannedNetwork:
        """UserError for an unknown name."""
        spec = _untied(split_name(name)[1])
        return PlannedNetwork(name, tuple(spec.widest.channels), spec.wiring.groups)

    def counts(self, path: Path, channels: Mapping[str, object]) -> tuple[int, ...]:
        """A plan file's channels as a channel list. WidthError where they are none."""
        if self.groups:
            spec = _untied(split_name(self.name)[1])
            spec.check_channels(str(path), channels)
        for group, count in channels.items():
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise WidthError(f"{path}: group {group} has {count!r} channels, expected a whole number from 1 on.")
        if set(channels) != set(self.entries):
            differing = sorted(map(str, set(channels) ^ set(self.entries)))
            raise WidthError(
                f"{path}: has other channel groups than the plans beside it ({some(differing)}). Expected plans of one."
            )
        counts: list[int] = [channels[group] for group in self.entries]  # type: ignore[misc]
        return tuple(counts)


def _untied(architecture: str) -> NetworkSpec:
    """The widest network that plan files may be of."""
    return NetworkSpec(architecture, "us", (WIDEST,), width_range=(1.0, WIDEST))


def read_plans(folder: Path, network: PlannedNetwork) -> tuple[list[PlannedSwitch], PlannedNetwork]:
    """The plan files of a folder, or one file, for an AutoSlim network, by name, and the network with its entries' groups.

    UserError where there are none, where one is of another network, or where two have the same name.
    """
    if not folder.exists():
        raise UserError(f"plans {folder}: no such folder. The search writes it: `python -m slimtrain search CONFIG`.")
    files = [folder] if folder.is_file() else sorted(path for path in folder.iterdir() if path.suffix in (".yml", ".yaml"))
    if not files:
        raise UserError(f"plans {folder}: holds no plan files (NAME.yml). Is it the `plans` folder of a search?")
    switches: dict[str, PlannedSwitch] = {}
    for path in files:
        name, channels, _ = read_channels(path, network.name, network.groups, f"the configuration trains {network.name}")
        network = network if network.entries else dataclasses.replace(network, entries=tuple(map(str, channels)))
        if name in switches:
            raise UserError(f"{path}: another plan of {folder} is called {name!r} too. Give one of them another name.")
        switches[name] = PlannedSwitch(name, network.counts(path, channels), written_macs(path))
    return list(switches.values()), network


def plans_config(config: Config, plans: Path, only: str = "") -> tuple[Config, list[str]]:
    """The configuration that trains the plans of a folder, ascending in MACs, or the one called `only`, with the rest of
    `config`; and what is worth saying about them, as lines.

    UserError where the folder holds no plan of this architecture, or none of that name.
    """
    kind = detector_kind(config.network)
    traced = bool(config.model) or is_any(config.network) or bool(kind)
    if traced and not config.model and not kind:
        raise UserError(
            f"plans {plans}: {config.network} is a network of which module? Name the one that was searched: --model MODULE."
        )
    own = kind or model_name(config.model)
    name = f"autoslim_{own}" if traced else sibling(config.network, "autoslim")
    switches, network = read_plans(plans, PlannedNetwork(name) if traced else PlannedNetwork.published(name))
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
        network=network.name if kind or not traced else f"autoslim{ANY}",
        channel_lists=tuple(switch.channel_list for switch in trained),
        channel_groups=network.entries if traced else (),
        switches=(),
        width_range=(),
        test_widths=(),
        nonuniform=False,
        width_step=0.0,
        weights=config.weights if config.family == "autoslim" else "",
        best_by=config.best_by if config.family == "autoslim" else "widest",
    )
    notes = [
        f"{switch.name} is the same network as {distinct[switch.channel_list].name}: it is trained once"
        for switch in switches
        if switch not in trained
    ]
    return changed, [*notes, *_described(trained, changed)]


def _ascending(switches: Sequence[PlannedSwitch], config: Config) -> list[PlannedSwitch]:
    """By MACs. Where the number of classes is known from the data alone, which is not open yet, the files tell them; of a
    module or detector they alone can, and where they do not, all channels count."""
    if config.model or config.detector is not None:
        by_file = all(_known_macs(switch, config) for switch in switches)
        sizes = {s.name: _known_macs(s, config) if by_file else sum(s.channel_list) for s in switches}
        return sorted(switches, key=lambda switch: (sizes[switch.name], switch.name))
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
    known = [_known_macs(switch, config) for switch in switches]
    traced = bool(config.model) or config.detector is not None
    spec = None if traced else config.spec(config.known_classes or IMAGENET_CLASSES)
    if spec is not None and config.known_classes:
        count = CostCounter(spec, config.image_size)
        known = [count(plan).macs for plan in spec.plans]
    lines = [
        f"switch {number}: {switch.name}{f', {format_macs(macs)} MACs' if macs else ''}"
        for number, (switch, macs) in enumerate(zip(switches, known, strict=True), 1)
    ]
    return [*lines, *(wiring_changes(spec) if spec is not None else ())]


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
