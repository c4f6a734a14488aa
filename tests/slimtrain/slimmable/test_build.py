"""What an architecture is built of: which norm a group gets, and that both kinds of layers give the same modules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimtrain.models.registry import ARCHITECTURES
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.layers import SlimConv2d, SlimLinear
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.norms import PlanNorm, SharedNorm, SwitchableNorm, UniversalNorm
from tests.support.module_layers import DenseLayers


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
@pytest.mark.parametrize("family", ["s", "us"])
def test_a_norm_is_of_its_family_and_of_a_fixed_group_one_for_all_widths(architecture: str, family: str) -> None:
    spec = NetworkSpec(architecture, family, (0.5, 1.0), 10, width_range=(0.5, 1.0) if family == "us" else None)
    with torch.device("meta"):
        network = SlimmableNetwork(spec)
    usual = UniversalNorm if family == "us" else SwitchableNorm
    for norm in network.norms.values():
        groups = norm.dim.groups
        assert type(norm) is (SharedNorm if groups <= spec.fixed_groups else usual)
    shared = [norm for norm in network.norms.values() if isinstance(norm, SharedNorm)]
    assert len(shared) == len(spec.fixed_groups)


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_dense_and_slimmable_networks_have_the_same_modules_at_the_same_sizes(architecture: str) -> None:
    spec = NetworkSpec(architecture, "s", (0.5, 1.0), 10)
    with torch.device("meta"):
        network = SlimmableNetwork(spec)
        for plan in spec.plans:
            dense = dict(spec.build(DenseLayers(plan)).named_modules())
            with network.at(plan):
                for path, module in network.named_modules():
                    twin = dense.get(path)
                    if isinstance(module, SlimConv2d):
                        assert isinstance(twin, nn.Conv2d)
                        sizes = (twin.in_channels, twin.out_channels, twin.kernel_size, twin.stride, twin.padding)
                        assert sizes == (module.active_in, module.active_out, *module_geometry(module)), path
                        assert (twin.groups == twin.out_channels) == (module.depthwise or twin.out_channels == 1)
                    elif isinstance(module, SlimLinear):
                        assert isinstance(twin, nn.Linear) and twin.in_features == module.active_in
                    elif isinstance(module, PlanNorm):
                        assert isinstance(twin, nn.BatchNorm2d) and twin.num_features == plan.size(module.dim)


def module_geometry(conv: nn.Conv2d) -> tuple[object, ...]:
    return conv.kernel_size, conv.stride, conv.padding
