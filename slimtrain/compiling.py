"""torch.compile for networks that change their width.

Every plan is a graph of its own, so compiling whatever is drawn would go on for the whole run, and torch gives up after
a few. Here the plans that come back are compiled, each once: the switches of an S or AutoSlim network, the two ends of
a US network's range (half of the default sandwich, and its most expensive part), and, where `width_step` makes the drawn
widths finitely many, these too. Any other plan runs eagerly. The number of compilations is thus known beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from slimtrain.channels import ChannelPlan
from slimtrain.slimmable import SlimmableNetwork

Forward = Callable[[Tensor], Tensor]
MOST_PLANS = 64


class CompiledForward:
    """Runs `network` at its active plan, compiled for the plans of `plans` (at most 64, the first ones).

    `compiled` holds the plans that have been compiled so far.
    """

    def __init__(self, network: SlimmableNetwork, plans: Sequence[ChannelPlan]) -> None:
        import torch._dynamo

        self.network = network
        self.plans = frozenset(list(dict.fromkeys(plans))[:MOST_PLANS])
        self.compiled: set[ChannelPlan] = set()
        # One cache holds all plans' graphs; each may need a second one, for a last batch of another size.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 2 * len(self.plans) + 2)
        self.run = torch.compile(network, dynamic=False)

    def __call__(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, classes]."""
        plan = self.network.active
        if plan not in self.plans:
            return self.network(images)
        self.compiled.add(plan)
        made: Tensor = self.run(images)
        return made
