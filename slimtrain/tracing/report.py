"""What can be slimmed of a network, as text: groups, what stays and why, costs of widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slimtrain.base.text import count, some, table
from slimtrain.costs.cost import format_macs
from slimtrain.graph.graph import Graph
from slimtrain.graph.labels.convolutions import IMAGES, KERNEL
from slimtrain.graph.labels.views import SHUFFLED, SPLIT
from slimtrain.graph.sizes import Sizing
from slimtrain.groups.costs import graph_cost
from slimtrain.groups.groups import Group, Groups
from slimtrain.groups.rounding import channels_at
from slimtrain.models.channels import width_label

WIDTHS = (1.0, 0.75, 0.5, 0.25)
EXPECTED = (IMAGES, KERNEL)  # reasons that need no saying: images have three channels, kernels their size
HALF = 1 / 3  # of the MACs at half width: a network that keeps more is worth another policy


def groups_report(name: str, graph: Graph, groups: Groups, widths: Sequence[float] = WIDTHS) -> str:
    """The report that `python -m slimtrain groups` prints."""
    parts = [f"{name}: {count(len(groups.groups), 'channel group')}, {sum(groups.sizes.values()):,} slots"]
    if not groups.groups:
        parts[0] = f"{name}: nothing to slim here, because of what is listed below"
    else:
        parts.append(_groups(graph, groups))
    parts += [_pinned(groups), _costs(graph, groups, widths), *_hints(graph, groups)]
    return "\n\n".join(part for part in parts if part)


def _groups(graph: Graph, groups: Groups) -> str:
    """Every group with its channels (of heads and the like: how many times how wide) and the modules that it occupies."""
    order = {parameter.name: index for index, parameter in enumerate(graph.parameters)}
    rows = [_row(group, order) for group in groups.groups]
    wide = max(len(row[-1]) for row in rows)
    return table(["group", "channels", "shrinks together".ljust(wide)], [[*row[:-1], row[-1].ljust(wide)] for row in rows])


def _row(group: Group, order: Mapping[str, int]) -> list[str]:
    width = next((positions for _, dim, positions in group.dims if dim == 0), 1)
    names = sorted((name for name, _, _ in group.dims), key=order.__getitem__)
    modules = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    return [group.name, str(group.slots) if width == 1 else f"{group.slots} x {width}", some(modules)]


def _pinned(groups: Groups) -> str:
    """What stays, one line for each node that pinned something."""
    lines: dict[tuple[str, str, str], list[str]] = {}
    for row in groups.pinned:
        if row.reason not in EXPECTED:
            lines.setdefault((row.place, row.op, row.reason), []).append(f"{row.parameter} ({row.positions})")
    rows = [f"  {some(names)}: {reason}, at {place}, {op}" for (place, op, reason), names in lines.items()]
    return "\n".join(["stays as it is:", *rows]) if rows else ""


def _costs(graph: Graph, groups: Groups, widths: Sequence[float]) -> str:
    full = graph_cost(Sizing(graph, groups, groups.sizes))
    rows = []
    for width in widths:
        cost = graph_cost(Sizing(graph, groups, channels_at(groups.sizes, width)))
        share = cost.macs / full.macs if full.macs else 1
        rows.append([width_label(width), format_macs(cost.macs), f"{share:.3f}", f"{cost.params:,}"])
    return table(["width", "MACs", "of all", "parameters"], rows)


def _hints(graph: Graph, groups: Groups) -> list[str]:
    """What another policy may give, and what narrow widths of this network lack."""
    hints = []
    half = graph_cost(Sizing(graph, groups, channels_at(groups.sizes, 0.5))).macs
    full = graph_cost(Sizing(graph, groups, groups.sizes)).macs
    if full and half / full > HALF:
        policy, tries = groups.policy, []
        if policy.heads == "outer" and SPLIT in groups.notes:
            tries.append("--heads inner")
        if policy.conv_groups == "outer" and "grouped convolutions" in groups.notes:
            tries.append("--conv-groups inner")
        if policy.shuffles == "exact" and SHUFFLED in groups.notes:
            tries.append("--shuffles free")
        if tries:
            hints.append(f"At half width {half / full:.0%} of the MACs stay: {' or '.join(tries)} may narrow more.")
    if "norms over channels" in groups.notes:
        hints.append("Its norms take statistics over channels: these need no calibration.")
    return hints
