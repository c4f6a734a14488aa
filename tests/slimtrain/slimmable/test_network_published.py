"""What an architecture is built of: which norm a group gets, and that both kinds of layers give the same modules."""

from __future__ import annotations

import pytest
import torch

from slimtrain.models.registry import ARCHITECTURES
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.norms import AFFINE, RUNNING, SharedNorm, SwitchableNorm, UniversalNorm
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
def test_dense_networks_have_what_a_plan_keeps_of_slimmable_ones(architecture: str) -> None:
    """The same entries, of the same sizes: the architecture's loop and its graph agree."""
    spec = NetworkSpec(architecture, "s", (0.5, 1.0), 10)
    with torch.device("meta"):
        network = SlimmableNetwork(spec)
        for plan in spec.plans:
            dense = {key: value.shape for key, value in spec.build(DenseLayers(plan)).state_dict().items()}
            with network.at(plan):
                ours = {name: network.body.sliced(name).shape for name in network.body.places}
                for path, norm in network.norms.items():
                    for entry, tensor in zip((*AFFINE, *RUNNING), norm.scale_and_shift() + norm.statistics(), strict=True):
                        ours[f"{path}.{entry}"] = tensor.shape
            assert ours == {key: shape for key, shape in dense.items() if not key.endswith("num_batches_tracked")}
