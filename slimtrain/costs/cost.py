"""Multiply-accumulates and weights of a plan, as sums over the network's layers. No torch.

A MAC is not a FLOP: the papers' "FLOPs" are MACs at batch 1, of convolutions and linear layers, plus one per input
element of every average pool. `Cost.macs` leaves the pools out, `Cost.pools` holds them.
"""

from __future__ import annotations

from dataclasses import dataclass

from slimtrain.base.image_size import ImageSize, pixels
from slimtrain.costs.layer_shapes import network_layers
from slimtrain.models.channels import ChannelPlan, Dim
from slimtrain.models.spec import NetworkSpec
from slimtrain.models.width_spec import WidthSpec


@dataclass(frozen=True)
class Cost:
    """`macs`: convolutions and linear layers, batch 1. `pools`: input elements of average pools. `params`: weights
    and biases once batch norm is folded. `activations`: elements that convolutions and linear layers write for one image.
    `layers`: how many convolutions and linear layers there are."""

    macs: int
    pools: int
    params: int
    activations: int
    layers: int

    @property
    def published_macs(self) -> int:
        """The figure of the papers' tables, pools included."""
        return self.macs + self.pools


def format_macs(macs: int) -> str:
    """`149.5M`, `4.089G`."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("K", 10**3)):
        if macs >= size:
            return f"{macs / size:.4g}{unit}"
    return str(macs)


class CostCounter:
    """Costs of any plan of one network at one image size: `count(plan)`.

    A search counts thousands of plans, so whatever does not depend on the plan is computed once, and a dimension that
    several layers share is looked up once per plan.
    """

    def __init__(self, spec: WidthSpec, image_size: ImageSize) -> None:
        self._spec = spec
        if not isinstance(spec, NetworkSpec):  # it counts itself
            return
        layers = network_layers(spec, image_size)
        place: dict[Dim | int, int] = {}

        def placed(dim: Dim | int) -> int:
            return place.setdefault(dim, len(place))

        # (place of the output channels, of the channels that each of them reads, weights per pair of these, output positions)
        self._weighted = [
            (placed(layer.out), placed(layer.fan_in), layer.kernel**2, layer.positions) for layer in layers.weighted
        ]
        self._pools = [(placed(pool.inp), pixels(pool.size)) for pool in layers.pools]
        self._dims = tuple(place)

    def __call__(self, plan: ChannelPlan) -> Cost:
        own = self._spec.own_cost(plan)
        if own is not None:
            return Cost(*own)
        channels = [plan.size(dim) for dim in self._dims]
        macs = params = activations = 0
        for out, fan_in, taps, positions in self._weighted:
            outputs = channels[out]
            weights = outputs * channels[fan_in] * taps
            macs += weights * positions
            params += weights + outputs  # a bias each, once norms are folded
            activations += outputs * positions
        pools = sum(channels[inp] * elements for inp, elements in self._pools)
        return Cost(macs, pools, params, activations, len(self._weighted))
