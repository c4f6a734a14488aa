"""Dense networks are made of `torch.nn` layers where the user's module was, under its names."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from slimtrain.tracing.slimmed import make_slimmable
from tests.support.user_networks import images


def calibrated(module: nn.Module, x: Tensor) -> nn.Module:
    """With statistics, in evaluation mode."""
    module.train()
    with torch.no_grad():
        module(x)
    return module.eval()


class Twice(nn.Module):
    """A layer that runs twice, one whose weight goes elsewhere too, an activation in place, functions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.act = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU6(inplace=True)
        self.twice, self.tied, self.head = nn.Conv2d(16, 16, 1, bias=False), nn.Linear(16, 16), nn.Linear(16, 5)
        self.layer_norm = nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.first(x)))
        x = self.twice(self.twice(x)).mean((2, 3)).relu()
        x = self.tied(x) + nn.functional.linear(x, self.tied.weight)
        logits: Tensor = self.head(self.layer_norm(x))
        return logits


def test_layers_stand_where_they_stood_and_what_is_none_stays_an_operator() -> None:
    module = calibrated(Twice(), images(4))
    network = make_slimmable(module, images(2), widths=(0.5, 1.0))
    dense = network.dense(1.0)
    kinds = {path: type(part) for path, part in dense.named_modules() if path}
    layers = {"first": nn.Conv2d, "norm": nn.BatchNorm2d, "act": nn.ReLU6, "head": nn.Linear, "layer_norm": nn.LayerNorm}
    assert kinds == {**layers, "twice": nn.Module, "tied": nn.Module}
    assert list(dense.state_dict()) == list(module.state_dict())
    x = images(3)
    with torch.no_grad():
        torch.testing.assert_close(dense(x), network(x), rtol=0, atol=0)
    assert not any(part.training for part in dense.modules())


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "resnet18"])
def test_a_narrow_network_has_the_keys_of_the_user_s_and_computes_what_the_slimmable_one_does(name: str) -> None:
    torch.manual_seed(0)
    x = images(2)
    module = calibrated(torchvision.models.get_model(name, weights=None, num_classes=10), x)
    network = make_slimmable(module, x, widths=(0.5, 1.0), check=False).eval()
    with torch.no_grad(), network.at(network.plan(1.0)):
        expected = network(x)
    dense = network.dense(1.0)
    with torch.no_grad():
        assert torch.equal(dense(x), expected)
    assert list(dense.state_dict()) == list(module.state_dict())
    theirs = {path for path, part in module.named_modules() if isinstance(part, nn.Conv2d | nn.BatchNorm2d | nn.Linear)}
    assert {path for path, part in dense.named_modules() if isinstance(part, nn.Conv2d | nn.BatchNorm2d | nn.Linear)} == theirs
    module.load_state_dict(dense.state_dict())
