"""Norms refuse a batch that leaves a channel one value before torch does, and only that."""

from __future__ import annotations

import pytest
import torch

from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.norms import PlanNorm
from slimtrain.slimmable.sync_norm import OneValueError

SPEC = NetworkSpec("mobilenet_v1", "us", (0.125, 0.25), 3, width_range=(0.125, 0.25), stem_stride=1)


def refused_by_torch(x: torch.Tensor) -> bool:
    try:
        torch.nn.BatchNorm2d(x.shape[1]).train()(x)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize("averaging", [None, 0.5])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1)])
@pytest.mark.parametrize("images", [1, 2])
def test_one_value_per_channel_is_refused_where_torch_would(
    images: int, size: tuple[int, int], averaging: float | None
) -> None:
    network = SlimmableNetwork(SPEC).train(averaging is None)
    norm = next(module for module in network.modules() if isinstance(module, PlanNorm))
    with network.at(SPEC.widest):
        norm.averaging = averaging
        x = torch.randn(images, SPEC.widest.size(norm.dim), *size)
        stored = norm.stored()
        assert stored is not None and stored.num_batches_tracked is not None
        if refused_by_torch(x):
            with pytest.raises(OneValueError):
                norm(x)
        else:
            assert norm(x).shape == x.shape
    assert refused_by_torch(x) == (images * size[0] * size[1] == 1)


def test_an_image_alone_is_no_matter_where_statistics_are_known() -> None:
    network = SlimmableNetwork(SPEC).eval()
    with network.at(SPEC.widest), torch.inference_mode():
        assert network(torch.randn(1, 3, 16, 16)).shape == (1, 3)
