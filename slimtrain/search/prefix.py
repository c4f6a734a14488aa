"""The logits of many plans on the same images, what they have in common with the current plan being computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from slimtrain.models.channels import ChannelPlan
from slimtrain.search.slimming import changed_groups
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.stages import StageInput


class SharedPrefix:
    """The stages of `network` (`slimmable/stages.py`), run so that candidates go on from where they differ."""

    def __init__(self, network: SlimmableNetwork) -> None:
        self.network = network
        self.stages = list(network.body.stages())

    def first_difference(self, a: ChannelPlan, b: ChannelPlan) -> int:
        """The first stage that computes something else at `b` than at `a`; the last one where the plans are equal."""
        changed = set(changed_groups(a, b))
        return next((i for i, stage in enumerate(self.stages) if stage.groups & changed), len(self.stages) - 1)

    def run(self, given: StageInput, begin: int, end: int) -> StageInput:
        """What stage `begin` reads -> what stage `end` reads, at the network's active plan."""
        for stage in self.stages[begin:end]:
            given = stage.run(given)
        return given

    def sweep(self, current: ChannelPlan, plans: Sequence[ChannelPlan], images: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The number and the logits [N, classes] of every plan, for images [N, C, H, W], in the order of where the plans
        begin to differ from `current`. What comes before is computed at `current`, once."""
        firsts = [self.first_difference(current, plan) for plan in plans]
        given, reached = StageInput(images), 0
        for number in sorted(range(len(plans)), key=firsts.__getitem__):
            with self.network.at(current):
                given, reached = self.run(given, reached, firsts[number]), firsts[number]
            with self.network.at(plans[number]):
                logits = self.run(given, reached, len(self.stages)).x
            yield number, logits
