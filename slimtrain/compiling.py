"""torch.compile for networks that change their width.

Every plan is a graph of its own, so compiling whatever is drawn would go on for the whole run, and torch gives up after
a few. Here the plans that come back are compiled, each once: the switches of an S or AutoSlim network, the two ends of
a US network's range (half of the default sandwich, and its most expensive part), and, where `width_step` makes the drawn
widths finitely many, these too. Any other plan runs eagerly. The number of compilations is thus known beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from slimtrain.channels import ChannelPlan
from slimtrain.slimmable import SlimmableNetwork

Forward = Callable[[Tensor], Tensor]
MOST_PLANS = 64


class CompiledForward:
    """Runs `network` at its active plan, compiled for the plans of `plans` (at most 64, the first ones).

    `compiled` holds the plans that have been compiled so far; `backend` is torch.compile's.
    """

    def __init__(
        self, network: SlimmableNetwork, plans: Sequence[ChannelPlan], backend: str | Callable[..., Any] = "inductor"
    ) -> None:
        import torch._dynamo

        self.network = network
        self.plans = frozenset(list(dict.fromkeys(plans))[:MOST_PLANS])
        self.compiled: set[ChannelPlan] = set()
        # One cache holds all plans' graphs. Each may need four: the parts of a batch have two sizes where it cannot be
        # divided evenly, and those of an epoch's last, short batch two others.
        config, graphs = torch._dynamo.config, 4 * len(self.plans) + 2
        config.recompile_limit = max(config.recompile_limit, graphs)
        config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, graphs)
        self.run = torch.compile(network, dynamic=False, backend=backend)

    def __call__(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, classes]."""
        plan = self.network.active
        if plan not in self.plans:
            return self.network(images)
        self.compiled.add(plan)
        made: Tensor = self.run(images)
        return made
