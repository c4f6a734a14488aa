"""A detector's parts at many plans on the same images, what they have in common with one plan being computed once.

Two plans compute the same up to the first operator that reads or makes a channel group of which they keep other counts. So of
what does not depend on regions (stages, pyramid, RPN), each plan is computed from there on alone; a plan that differs only in
what reads regions shares all of it. Which regions there are depends on a plan's own weights, so that what reads them is
computed at every plan by itself.
"""

from __future__ import annotations

from torch import Tensor

from slimtrain.detection.halves import First, Halves
from slimtrain.models.channels import ChannelPlan
from slimtrain.slimmable.network import SlimmableNetwork


class SharedHalves(Halves):
    """The parts of `network` at the active plan, as `Halves` gives them, to the bit. `share` says which plan the next have
    most in common with; they come in the order of `first_difference`, each any number of times."""

    def __init__(self, network: SlimmableNetwork) -> None:
        super().__init__(network)
        self.current: ChannelPlan | None = None
        self._forget()

    def _forget(self) -> None:
        self.images: Tensor | None = None
        self.common: list[Tensor | None] = []  # the slots of `current`, computed up to node `reached`
        self.reached = 0
        self.last: tuple[ChannelPlan, First] | None = None

    def share(self, current: ChannelPlan | None) -> None:
        """From now on plans are computed from where they differ from `current`, from the images on where that is None. What
        was kept of images is let go."""
        self.current = current
        self._forget()

    def first_difference(self, a: ChannelPlan, b: ChannelPlan) -> int:
        """The first node before all regions that computes something else at `b` than at `a`, and the split where there is
        none."""
        changed = {group for group, channels in a.channels.items() if b.channels[group] != channels}
        return min(next((span.begin for span in self.body.order.spans if span.groups & changed), self.split), self.split)

    def first(self, images: Tensor) -> First:
        if self.current is None:
            return super().first(images)
        if images is not self.images:
            self._forget()
            self.images = images
            self.common = self.body.begin(images, *[None] * (len(self.graph.inputs) - 1))
        plan = self.network.active
        if self.last is None or self.last[0] != plan:
            self.last = plan, self._from_difference(self.current, plan, images)
        first = self.last[1]
        return First(images, [*first.slots], first.outputs)

    def _from_difference(self, current: ChannelPlan, plan: ChannelPlan, images: Tensor) -> First:
        begin = self.first_difference(current, plan)
        if begin < self.reached:
            raise ValueError(f"plan {plan.name} differs at node {begin}, {self.reached} are computed: order them by that")
        with self.network.at(current):
            self.body.run(self.common, images, self.reached, begin)
        self.reached = begin
        slots = [*self.common]
        self.body.run(slots, images, begin, self.split)
        return First(images, slots, self._outputs(slots, self.split))
