"""Users' modules as slimmable networks."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from slimtrain.base.errors import UserError, WidthError
from slimtrain.graph.graph import Batch
from slimtrain.graph.policy import Policy
from slimtrain.groups.groups import FIXED, Groups
from slimtrain.groups.spec import GraphSpec
from slimtrain.slimmable.calibrate import calibrate
from slimtrain.slimmable.graph_dense import graph_dense
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.tracing import slimmed
from slimtrain.tracing.equality import NotEqualError
from slimtrain.tracing.slimmed import make_slimmable
from tests.support.user_networks import NETWORKS, images, network, outputs


def relative(result: Tensor, expected: Tensor) -> float:
    return float((result - expected).detach().abs().max() / expected.detach().abs().max())


@pytest.fixture(scope="module", params=list(NETWORKS))
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, SlimmableNetwork]:
    module = network(request.param)
    slimmable = make_slimmable(module, images(2))
    calibrate(slimmable, [slimmable.plan(0.5)], [images(8)])
    return module, slimmable


def test_at_its_widest_it_is_the_module(pair: tuple[nn.Module, SlimmableNetwork]) -> None:
    module, slimmable = pair
    exact, x = copy.deepcopy(slimmable).double(), images(3, dtype=torch.float64)
    with torch.no_grad():
        for ours, theirs in zip(outputs(exact(x)), outputs(copy.deepcopy(module).double()(x)), strict=True):
            assert relative(ours, theirs) < 1e-10


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_put_in_order_some_rows_at_a_time_are_those_put_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make_slimmable(network(name), images(2), check=False).state_dict()
    monkeypatch.setattr(slimmed, "BLOCK", 100)
    parts = make_slimmable(network(name), images(2), check=False).state_dict()
    assert any(tensor.numel() > 100 for tensor in parts.values())
    assert all(torch.equal(tensor, whole[key]) for key, tensor in parts.items())


def test_a_dense_network_computes_what_the_slimmable_one_does(pair: tuple[nn.Module, SlimmableNetwork]) -> None:
    _, slimmable = pair
    plan = slimmable.plan(0.5)
    dense = graph_dense(slimmable, plan)
    stream = io.BytesIO()
    torch.save(dense.state_dict(), stream)
    for batch in (1, 3):
        with slimmable.at(plan), torch.no_grad():
            expected = outputs(slimmable(images(batch)))
        with torch.no_grad():
            result = outputs(dense(images(batch)))
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(result, expected, strict=True))
    full = sum(p.numel() for p in slimmable.parameters())
    assert sum(p.numel() for p in dense.parameters()) < full


def test_every_weight_learns_in_training_mode(pair: tuple[nn.Module, SlimmableNetwork]) -> None:
    _, slimmable = pair
    trained = copy.deepcopy(slimmable).train()
    sum(output.square().mean() for output in outputs(trained(images(4)))).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained.parameters())


def test_gradients_are_those_of_the_module() -> None:
    """In training mode, at the widest plan: the same step as the user's module takes, batch statistics included."""
    module = network("residual").train()
    slimmable = make_slimmable(module, images(2), order="none").train()
    for net in (module, slimmable):
        net(images(4)).square().sum().backward()
    theirs = dict(module.named_parameters())
    ours = dict(slimmable.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[key].grad, theirs[key].grad, rtol=1e-4, atol=1e-5) for key in theirs)  # type: ignore[arg-type]


def test_dropout_drops_in_training_and_not_in_evaluation() -> None:
    slimmable = make_slimmable(network("transformer"), images(2))
    torch.manual_seed(0)
    assert torch.equal(slimmable(images(2)), slimmable(images(2)))
    slimmable.train()
    assert not torch.equal(slimmable(images(2)), slimmable(images(2)))


class Begun(nn.Module):
    """A recurrent layer that begins with zeros whose type nobody says, and an operator that is told whether it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.head = nn.LSTM(16, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = torch.zeros(1, x.shape[0], 8)
        read = self.rows(x.flatten(1, 2), (state, state))[0].mean(1)
        logits: torch.Tensor = self.head(torch.native_dropout(read, 0.5, False)[0])
        return logits


def test_zeros_whose_type_nobody_says_are_of_the_network_s() -> None:
    slimmable = make_slimmable(Begun().eval(), images(2))
    assert slimmable.double()(images(2).double()).dtype == torch.float64
    assert slimmable.dense(0.5)(images(2).double()).dtype == torch.float64


class Dropping(nn.Module):
    """A recurrent layer that drops between its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.head = nn.LSTM(16, 8, 2, batch_first=True, dropout=0.5), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.rows(x.flatten(1, 2))[0].mean(1))
        return logits


def test_a_recurrent_layer_drops_between_its_layers_as_it_did() -> None:
    torch.manual_seed(0)
    module = Dropping().eval()
    slimmable, x = make_slimmable(module, images(2)), images(2)
    assert torch.allclose(slimmable(x), module(x), atol=1e-6)
    slimmable.train()
    module.train()
    for network_ in (slimmable, module):
        torch.manual_seed(1)
        first, second = network_(x), network_(x)
        assert not torch.equal(first, second)
    dense = slimmable.dense(1.0)
    assert torch.equal(dense(x), dense(x))
    rows = {name for name, p in module.named_parameters() if "weight" in name}
    decayed = {id(parameter) for parameter in slimmable.body.decayed()}
    assert {name for name, p in slimmable.named_parameters() if id(p) in decayed} == rows


def test_keys_are_the_module_s_own() -> None:
    module = network("transformer")
    assert make_slimmable(module, images(2)).state_dict().keys() == module.state_dict().keys()
    keys = make_slimmable(network("plain"), images(2), widths=(0.5, 1.0)).state_dict().keys()
    assert "body.0.1.bn.1.running_mean" in keys and "body.0.1.weight" in keys


def test_switchable_networks_have_a_norm_for_each_width() -> None:
    slimmable = make_slimmable(network("plain"), images(2), widths=(0.5, 1.0), family="s")
    state = slimmable.state_dict()
    assert state["body.0.1.bn.0.weight"].shape == (8,) and state["body.0.1.bn.1.weight"].shape == (16,)
    assert torch.equal(state["body.0.1.bn.0.weight"], state["body.0.1.bn.1.weight"][:8])
    with pytest.raises(WidthError, match=r"0\.75"):
        slimmable.plan(0.75)


def test_widths_without_statistics_are_said_to_have_none() -> None:
    slimmable = make_slimmable(network("plain"), images(2))
    assert slimmable.has_statistics(slimmable.plan(1.0)) and not slimmable.has_statistics(slimmable.plan(0.25))
    without_norms = make_slimmable(network("transformer"), images(2))
    assert without_norms.has_statistics(without_norms.plan(0.4))


def test_a_network_survives_copies_and_moves() -> None:
    slimmable = make_slimmable(network("transformer"), images(2))
    again = copy.deepcopy(slimmable).double()
    assert again(images(2, dtype=torch.float64)).dtype == torch.float64
    assert slimmable(images(2)).dtype == torch.float32
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    assert slimmable(images(2)).abs().sum() > 0


def test_a_network_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slimmed, "load_tensors", lambda network, tensors: None)
    with pytest.raises(NotEqualError, match="differs"):
        make_slimmable(network("plain"), images(2))


@pytest.mark.parametrize("widths", [(), (0.0, 1.0), (0.25, 0.5), (0.5, 1.5), (float("nan"), 1.0)])
def test_widths_that_make_no_sense_are_refused(widths: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="widths"):
        make_slimmable(network("plain"), images(2), widths)


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(UserError, match="l1, l2, none"):
        make_slimmable(network("plain"), images(2), order="best")


def test_policies_reach_the_groups() -> None:
    slimmable = make_slimmable(network("transformer"), images(2), policy=Policy("inner"))
    assert slimmable.spec.widest.channels["block.qkv"] == 8


class Regions(nn.Module):
    """Rows of a second input, several for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 16, 3, 2, 1), nn.Linear(16 * 4, 3)

    def forward(self, x: Tensor, regions: Tensor) -> dict[str, Tensor]:
        maps = self.conv(x).relu()
        return {"map": maps, "rows": self.head(roi_align(maps, regions, 2, 0.5).flatten(1))}


def regions(images: int, count: int) -> Tensor:
    rows = torch.tensor([[0.0, 1.0, 2.0, 9.0, 12.0]]).repeat(images * count, 1)
    rows[:, 0] = torch.arange(images).repeat_interleave(count)
    return rows


def groups_of(network: SlimmableNetwork) -> Groups:
    assert isinstance(network.spec, GraphSpec)
    return network.spec.groups


def test_several_inputs_and_inner_outputs() -> None:
    torch.manual_seed(0)
    module, given = Regions().eval(), (images(2), regions(2, 3))
    network = make_slimmable(module, given, (0.5, 1.0), family="s", policy=Policy(inner=("map",)))
    assert isinstance(network.spec, GraphSpec) and network.spec.graph.results[1][1].shape == (Batch(3), 3)
    given = (images(3), regions(3, 5))  # of more images, and more rows of each
    with torch.no_grad():
        assert torch.allclose(network(*given)["rows"], module(*given)["rows"], atol=1e-5)
        assert network.dense(0.5)(*given)["map"].shape[1] == 8
    pinned = make_slimmable(module, given, (0.5, 1.0), family="s")
    assert not groups_of(pinned).groups


def test_what_is_fixed_stays() -> None:
    network = make_slimmable(Regions(), (images(2), regions(2, 3)), policy=Policy(fixed=("conv",), inner=("map",)))
    assert not groups_of(network).groups
    assert {row.reason for row in groups_of(network).pinned if row.parameter == "conv.bias"} == {FIXED}


def test_rows_that_are_not_as_many_for_every_image_are_refused() -> None:
    with pytest.raises(UserError, match="inputs of 2, 3 rows, expected as many of each for every one of the first"):
        make_slimmable(Regions(), (images(2), regions(3, 1)))
    with pytest.raises(UserError, match="the example is a int"):
        make_slimmable(Regions(), (images(2), 3))  # type: ignore[arg-type]
