"""The steps of a search: plans in which one channel group is one step smaller (arXiv 1903.11728, sec. 3.2). No torch.

A group is one name for all dimensions that must shrink together, so layers tied by residual sums or depthwise
convolutions shrink together by themselves. A step takes a tenth (`groups`) of a group's widest count, rounded to the
nearest multiple of `divisor`, at least one; the last step is shortened to land on the floor, the narrowest width's count.

Found networks are trained and exported as AutoSlim channel lists, and a list tells by equal counts alone that a block
adds its input, or has no expansion (slimtrain/models/mobilenet_v2.py). So that a found list is read as the network that
was searched, no step makes two groups equal which a list would then tie: it goes on to the next count that is free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from slimtrain.base.errors import UserError
from slimtrain.costs.cost_model import CostModel, format_cost
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import NetworkSpec
from slimtrain.models.width_spec import FAMILIES, WidthSpec


class Slimming:
    """How plans of `spec` are slimmed.

    `floor` is the width below whose counts no group shrinks; by default the narrowest. UserError for a network that has
    no plans between its switches, WidthError for a floor outside of its range.
    """

    def __init__(self, spec: WidthSpec, groups: int = 10, divisor: int = 8, floor: float | None = None) -> None:
        if spec.not_searchable:
            raise UserError(f"{spec.name}: {spec.not_searchable}. Choose another network.")
        if spec.family != "us":
            own = spec.name.removeprefix(f"{spec.family}_")
            raise UserError(
                f"{spec.name}: a search needs a universally slimmable network, whose norms work at any plan. This one is "
                f"{FAMILIES[spec.family]}. Train a us_{own} with nonuniform: true, and search that."
            )
        if groups < 1 or divisor < 1:
            raise UserError(f"groups is {groups} and divisor {divisor}, expected whole numbers from 1.")
        self.spec, self.groups, self.divisor = spec, groups, divisor
        self.floor_width = spec.range[0] if floor is None else floor
        widest, narrowest = spec.widest.channels, spec.plan(self.floor_width).channels
        pairs = _tied_when_equal(spec)
        self.inseparable = tuple((a, b) for a, b in pairs if widest[a] == widest[b])  # tied before any step
        self.pairs = tuple(pair for pair in pairs if pair not in self.inseparable)
        self.start = ChannelPlan("start", widest)
        self.floor = ChannelPlan("floor", _separate(self.pairs, narrowest, widest, divisor))

    def size(self, group: str) -> int:
        """Channels that one step of `group` takes."""
        share, divisor = self.start.channels[group] / self.groups, self._divisor(group)
        return max(divisor, int(share + divisor / 2) // divisor * divisor)

    def _divisor(self, group: str) -> int:
        """What a group's channels are counted in: a user's heads and other few slots one by one."""
        return 1 if self.spec.counts_singly(group) else self.divisor

    def steps(self, plan: ChannelPlan) -> list[ChannelPlan]:
        """The plans with one group one step smaller, in wiring order; none once `plan` is the floor.

        As long as `plan` is not the floor there is at least one: of the groups above their floors, that with the lowest
        floor finds it free.
        """
        smaller = []
        for group in self.spec.searchable_groups:
            count = self._smaller(plan, group)
            if count is not None:
                smaller.append(ChannelPlan(f"{group}_{count}", {**plan.channels, group: count}))
        return smaller

    def _smaller(self, plan: ChannelPlan, group: str) -> int | None:
        """The count of `group` one step on, or None where it cannot shrink: at its floor, or in the way of others."""
        count, floor = plan.channels[group], self.floor.channels[group]
        if count <= floor:
            return None
        taken = {plan.channels[other] for pair in self.pairs if group in pair for other in pair if other != group}
        wanted = max(count - self.size(group), floor)
        divisor = self._divisor(group)
        below = [*range(wanted, floor, -divisor), floor]
        above = range(wanted + divisor, count, divisor)
        return next((free for free in (*below, *above) if free not in taken), None)


def changed_groups(before: ChannelPlan, after: ChannelPlan) -> list[str]:
    """The groups that have another count, in wiring order."""
    return [group for group, count in before.channels.items() if after.channels[group] != count]


def _separate(
    pairs: Sequence[tuple[str, str]], narrowest: Mapping[str, int], widest: Mapping[str, int], divisor: int
) -> dict[str, int]:
    """The narrowest counts, of two that a list would tie the one with more room raised until all differ."""
    floor = {group: min(count, widest[group]) for group, count in narrowest.items()}
    while equal := next((pair for pair in pairs if floor[pair[0]] == floor[pair[1]]), None):
        wider = max(equal, key=lambda group: widest[group])
        floor[wider] = min(floor[wider] + divisor, widest[wider])
    return floor


def _tied_when_equal(spec: WidthSpec) -> tuple[tuple[str, str], ...]:
    """The pairs of groups that must differ for a channel list to be wired as `spec` is. Found by trying: a list in which
    every group has a count of its own, but for the two."""
    if not isinstance(spec, NetworkSpec):  # a graph is wired whatever the counts are
        return ()
    groups = tuple(spec.widest.channels)

    def tied(counts: Mapping[str, int]) -> bool:
        return spec.arch.wire([[counts[group] for group in spec.wiring.groups]]) != spec.wiring

    if not tied(dict.fromkeys(groups, 1)):  # this architecture never looks at counts
        return ()
    own = {group: number for number, group in enumerate(groups, 1)}
    return tuple((a, b) for a, b in combinations(groups, 2) if tied({**own, b: own[a]}))


def check_targets(cost: CostModel, slimming: Slimming, targets: Sequence[float]) -> None:
    """UserError where there is no target, or one that the network cannot be slimmed to."""
    if not targets:
        raise UserError("no targets: name at least one, as in 150M.")
    start, floor = cost(slimming.start), cost(slimming.floor)
    for target in targets:
        if target > start:
            raise UserError(
                f"target {format_cost(target, cost)}: above the network's own {format_cost(start, cost)} at its widest. "
                "Choose a lower target, or train a wider network."
            )
        if target < floor:
            raise UserError(
                f"target {format_cost(target, cost)}: below what slimming reaches, {format_cost(floor, cost)} with every "
                "group at its floor. Choose a higher target, or train with a narrower width."
            )
