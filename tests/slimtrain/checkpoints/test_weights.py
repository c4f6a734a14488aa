"""Weights are found in whatever they are wrapped in: real wrappers of torch around the modules, and tables of all kinds around
the state dicts. What is taken where there are several, what is left out, and what is said of it."""

from __future__ import annotations

import itertools
import logging
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from slimtrain.base.errors import CheckpointError, UserError
from slimtrain.checkpoints.weights import Weights, find_weights
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.slimtrain_states import PUBLISHED, State, network_of, random_state, shaped

SPEC = NetworkSpec("mobilenet_v1", "us", (0.25, 0.5), 10, width_range=(0.25, 0.5))


@pytest.fixture(scope="module")
def state() -> State:
    return {key: t.float() if t.is_floating_point() else t for key, t in random_state(SPEC).items()}


@pytest.fixture(scope="module")
def other() -> State:
    return {key: t.float() if t.is_floating_point() else t for key, t in random_state(SPEC, seed=1).items()}


@pytest.fixture
def network(state: State) -> SlimmableNetwork:
    return network_of(SPEC, dict(state))


def weights_of(content: Any, wanted: str | None = None) -> Weights:
    return find_weights(content, "a.pt", wanted)


def assert_same(weights: Weights, expected: State) -> None:
    assert list(weights.state) == list(expected)
    assert all(torch.equal(weights.state[key], value) for key, value in expected.items())


def prefixed(state: State, prefix: str) -> State:
    return {prefix + key: t for key, t in state.items()}


# ------------------------------------------------------------------------------------------------ wrappers around modules


class Lit(nn.Module):
    """As Lightning modules are: the network, and what else a training step needs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.net = network
        self.criterion = nn.CrossEntropyLoss(weight=torch.ones(10))
        self.accuracy = nn.BatchNorm1d(3)


WRAPPERS: dict[str, Callable[[nn.Module], Any]] = {
    "DataParallel": nn.DataParallel,
    "compile": torch.compile,
    "average": AveragedModel,
    "Lightning": Lit,
    "sequence": lambda network: nn.Sequential(nn.Identity(), network),
}


@pytest.mark.parametrize("names", [*itertools.permutations(WRAPPERS, 1), *itertools.permutations(WRAPPERS, 2)], ids="+".join)
def test_wrappers_come_off_in_any_order_and_depth(names: tuple[str, ...], network: nn.Module, state: State) -> None:
    wrapped = network
    for name in names:
        wrapped = WRAPPERS[name](wrapped)
    for content in (wrapped.state_dict(), {"state_dict": wrapped.state_dict(), "epoch": 3}):
        weights = weights_of(content)
        assert_same(weights, state)
        assert weights.averaged == ("average" in names)
        assert any("criterion.weight" in key for key in weights.left_out) == ("Lightning" in names)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod.module.", "0.backbone.1."])
def test_prefixes_come_off_every_network(name: str, prefix: str) -> None:
    expected = shaped(name)
    assert list(weights_of(prefixed(expected, prefix)).state) == list(expected)


def test_wrappers_around_parts_come_off(network: Any, state: State) -> None:
    network.features = nn.DataParallel(network.features)
    network.classifier = torch.compile(network.classifier)
    assert "features.module.0.0.weight" in network.state_dict()
    assert_same(weights_of(network.state_dict()), state)
    assert_same(weights_of(nn.DataParallel(network).state_dict()), state)


def test_a_network_that_is_none_of_ours_keeps_its_own_names() -> None:
    bare = {"conv1.weight": torch.ones(2, 3), "layer1.0.weight": torch.ones(2, 3)}
    assert list(weights_of(prefixed(bare, "module.model.")).state) == list(bare)
    assert list(weights_of(bare).state) == list(bare)
    half = {key: t for key, t in shaped("us_mobilenet_v1").items() if key.startswith("features.1.")}
    assert list(weights_of(half).state) == list(half), "damage is named by the network's own keys"


# -------------------------------------------------------------------------------------------- tables around state dicts


def optimizer_state(state: State, by: str) -> Any:
    """What optimizers keep: tables by number or by name, as large as the weights."""
    names = [key for key in state if key.endswith(("weight", "bias"))]
    if by == "number":
        return {"state": {i: {"momentum_buffer": state[k], "step": torch.tensor(7.0)} for i, k in enumerate(names)}}
    if by == "name":
        return {
            "state": {k: {"exp_avg": state[k], "exp_avg_sq": state[k]} for k in names},
            "param_groups": [{"params": names}],
        }
    return {"exp_avg": {k: torch.zeros_like(state[k]) for k in names}}


@pytest.mark.parametrize("by", ["number", "name", "table"])
def test_what_optimizers_keep_is_never_taken(by: str, state: State, caplog: pytest.LogCaptureFixture) -> None:
    content = {"optimizer": optimizer_state(state, by), "model": state}
    with caplog.at_level(logging.INFO):
        assert_same(weights_of(content), state)
    assert not caplog.records
    if by != "table":
        with pytest.raises(CheckpointError, match="no tensors"):
            weights_of({"optimizer": optimizer_state(state, by)})


@pytest.mark.parametrize(
    ("path", "beside"),
    [
        ("model", {"optimizer": {}, "epoch": 3}),
        ("state_dict", {"callbacks": {"ModelCheckpoint": {"best": torch.tensor(0.5)}}, "hyper_parameters": {"lr": 0.1}}),
        ("checkpoint.model", {"epoch": 3}),
        ("whatever.it.is.called", {}),
        ("module", {"ds_config": {}}),
        ("params", {}),
        ("models.0", {}),
    ],
)
def test_state_dicts_are_known_by_what_they_hold(path: str, beside: dict[str, Any], state: State) -> None:
    content: Any = prefixed(state, "module.")
    for word in reversed(path.split(".")):
        content = [content] if word.isdigit() else {**beside, word: content}
    weights = weights_of(content)
    assert_same(weights, state)
    assert weights.key == path


AVERAGES = ["ema", "ema_state_dict", "model_ema", "state_dict_ema", "ema.module", "modelEma", "swa_model", "averaged_model"]


def nested(path: str, value: Any) -> dict[str, Any]:
    for word in reversed(path.split(".")):
        value = {word: value}
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("key", AVERAGES)
def test_what_was_trained_comes_before_its_average(
    key: str, first: bool, state: State, other: State, caplog: pytest.LogCaptureFixture
) -> None:
    average, plain = nested(key, other), {"checkpoint": {"model": state}, "epoch": 3}
    content = {**average, **plain} if first else {**plain, **average}
    with caplog.at_level(logging.INFO):
        assert_same(weights_of(content), state)
    (line,) = (record.getMessage() for record in caplog.records)
    assert (
        "holds 2 sets" in line and "Taken: checkpoint.model." in line and f"{key} (an average)" in line and "--weights" in line
    )
    caplog.clear()
    for wanted, expected in (
        (key, other),
        ("ema", other),
        ("model", state),
        ("checkpoint.model", state),
        ("checkpoint", state),
    ):
        with caplog.at_level(logging.INFO):
            assert_same(weights_of(content, wanted), expected)
    assert not caplog.records, "nothing is said of a choice that was made"


def test_an_averages_counter_tells_it_whatever_it_is_called(state: State, other: State) -> None:
    content = {"best": {"n_averaged": torch.tensor(5), **prefixed(other, "module.")}, "last": state}
    assert_same(weights_of(content), state)
    assert_same(weights_of(content, "ema"), other)


@pytest.mark.parametrize("first", [True, False])
def test_an_average_of_a_network_that_is_none_of_ours_is_known_by_its_keys(
    first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """As of a detector of torchvision's, and of any module."""
    plain = {"stem.weight": torch.zeros(3, 3), "head.weight": torch.zeros(2, 3)}
    other = {key: tensor + 1 for key, tensor in plain.items()}
    tables: tuple[dict[str, Any], ...] = ({"state_dict": plain}, {"model_ema": other})
    content = {**tables[not first], **tables[first], "optimizer": {"lr": torch.ones(1)}}
    assert_same(weights_of(content), plain)
    assert "holds 2 sets of weights. Taken: state_dict. Others, which --weights KEY takes: model_ema (an av" in caplog.text
    assert_same(weights_of(content, "ema"), other)
    assert_same(weights_of(content, "model"), plain)
    averaged = {"n_averaged": torch.tensor(5), **prefixed(other, "module.")}
    assert_same(weights_of({"last": plain, "best": averaged}, "ema"), other)


def test_two_networks_in_one_table_are_told_apart(state: State, other: State) -> None:
    """A Lightning module with an average of its network beside it."""
    flat = {**prefixed(state, "model."), "loss.weight": torch.ones(3), **prefixed(other, "ema.module.")}
    for content, head in ((flat, ""), ({"state_dict": OrderedDict(flat)}, "state_dict.")):
        assert_same(weights_of(content), state)
        assert weights_of(content).key == f"{head}model"
        assert_same(weights_of(content, "ema"), other)
        assert_same(weights_of(content, f"{head}ema.module"), other)
    assert_same(weights_of({**state, **prefixed(other, "ema.")}), state)  # bare keys, and the average's among them


def test_the_counter_of_an_average_says_nothing_of_its_neighbour(state: State, other: State) -> None:
    flat = {"copy.n_averaged": torch.tensor(5), **prefixed(other, "copy.module."), **prefixed(state, "net.")}
    assert_same(weights_of(flat), state)
    assert_same(weights_of(flat, "ema"), other)


@pytest.mark.parametrize("head", ["", "head.", "module."])
def test_a_classifier_beside_a_wrapped_backbone_belongs_to_it(head: str, state: State) -> None:
    wrapped = {("backbone." if key.startswith("features.") else head) + key: t for key, t in state.items()}
    weights = weights_of({**wrapped, "loss.weight": torch.ones(3)})
    assert_same(weights, state)
    assert weights.left_out == ("loss.weight",)


def test_parameters_alone_come_after_complete_weights(state: State, other: State) -> None:
    parameters = {key: t for key, t in other.items() if ".bn." not in key}
    assert_same(weights_of({"model": parameters, "full": state}), state)
    assert weights_of({"model": parameters, "full": state}, "model").key == "model"


def test_weights_that_are_not_there_are_refused_and_the_advice_leads_on(state: State, other: State) -> None:
    content = {"model": state, "model_ema": other}
    for wanted, words in (("model_emma", "did you mean 'model_ema'"), ("optimizer", "nothing is called so")):
        with pytest.raises(UserError, match=words) as caught:
            weights_of(content, wanted)
        assert "It holds model, model_ema (an average)." in str(caught.value)
    several = {**content, "swa": other}
    with pytest.raises(UserError, match="several are called so"):
        weights_of(several, "ema")
    assert_same(weights_of(several, "swa"), other)  # as the message says
    assert_same(weights_of(several), state)
    assert_same(weights_of({"model": state}, "model"), state)
    with pytest.raises(UserError, match="nothing is called so"):
        weights_of({"model": state}, "ema")


# -------------------------------------------------------------------------------------------------------- what comes off


def test_counters_of_profilers_are_ignored_and_counted(
    network: nn.Module, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    modules = list(network.modules())
    for module in modules:  # as thop does
        module.register_buffer("total_ops", torch.zeros(1, dtype=torch.float64) + 12.0)
        module.register_buffer("total_params", torch.zeros(1, dtype=torch.float64))
    with caplog.at_level(logging.INFO):
        weights = weights_of({"model": nn.DataParallel(network).state_dict()})
    assert_same(weights, state)
    assert weights.counters == 2 * len(modules)
    assert f"ignored {2 * len(modules)} counters" in caplog.text


def test_one_number_that_belongs_to_a_layer_is_no_counter() -> None:
    spec = NetworkSpec("mobilenet_v1", "us", (0.25, 0.5), 1, width_range=(0.25, 0.5))
    state = random_state(spec)
    state["classifier.0.bias"] = torch.ones(1)
    assert_same(weights_of(state), state)
    temperature = {**state, "temperature": torch.tensor([0.5])}  # which changes what the network computes
    assert "temperature" in weights_of(temperature).state


def test_a_cycle_of_tables_ends(state: State) -> None:
    content: dict[str, Any] = {"model": state}
    content["self"] = content
    content["list"] = [content]
    assert_same(weights_of(content), state)


def test_tables_are_looked_at_in_files_too(state: State, other: State, tmp_path: Path) -> None:
    from slimtrain.checkpoints.checkpoint import open_checkpoint

    torch.save({"epoch": 3, "ema": {"module": other}, "net": prefixed(state, "module.")}, tmp_path / "a.pt")
    for wanted, expected in ((None, state), ("ema", other)):
        checkpoint = open_checkpoint(tmp_path / "a.pt", weights=wanted)
        assert all(torch.equal(checkpoint.network.state_dict()[key], value) for key, value in expected.items())
        assert checkpoint.weights == wanted


def test_what_an_optimizer_keeps_is_no_average_of_weights() -> None:
    state = {"stem.weight": torch.ones(3), "head.bias": torch.zeros(2)}
    moments = {key: torch.full_like(tensor, 7) for key, tensor in state.items()}
    for content in ({"model": state, "exp_avg": moments}, {"model": state, "optimizer": {"swa": moments}}):
        with pytest.raises(UserError, match="--weights ema"):
            find_weights(content, "a.pt", "ema")
    assert find_weights({"model": state, "ema": moments, "exp_avg": state}, "a.pt", "ema").state.keys() == moments.keys()
