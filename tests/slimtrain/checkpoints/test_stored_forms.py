"""Weights that are not stored as plain float32 tensors: pruned ones are what their masks leave, half precision is read, others
are refused by name; what a refusal advises leads on."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from slimtrain.base.errors import CheckpointError
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.checkpoints.stored_forms import without_masks
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.slimtrain_states import State, network_of, random_state

SPEC = NetworkSpec("mobilenet_v1", "us", (0.25, 0.5), 10, width_range=(0.25, 0.5))
LAYERS = ("features.0.0", "features.3.body.3", "classifier.0")


@pytest.fixture(scope="module")
def state() -> State:
    return {key: t.float() if t.is_floating_point() else t for key, t in random_state(SPEC).items()}


@pytest.fixture
def network(state: State) -> SlimmableNetwork:
    return network_of(SPEC, {key: t.clone() for key, t in state.items()})


def saved(folder: Path, content: Any) -> Path:
    torch.save(content, folder / "a.pt")
    return folder / "a.pt"


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError, match=r"^a\.pt: ") as caught:
        open_checkpoint(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_holds(path: Path, expected: State) -> None:
    held = open_checkpoint(path).network.state_dict()
    assert all(torch.equal(held[key], value) for key, value in expected.items())


def test_pruned_weights_are_what_pruning_leaves(
    network: SlimmableNetwork, state: State, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prune: Any = nn.utils.prune
    for layer in LAYERS:
        prune.l1_unstructured(network.get_submodule(layer), "weight", amount=0.5)
    prune.random_unstructured(network.get_submodule("classifier.0"), "bias", amount=3)
    masked = {key: t.clone() for key, t in network.state_dict().items()}
    assert "classifier.0.bias_mask" in masked
    for layer in LAYERS:
        prune.remove(network.get_submodule(layer), "weight")
    prune.remove(network.get_submodule("classifier.0"), "bias")
    expected = network.state_dict()
    assert not torch.equal(expected["features.0.0.weight"], state["features.0.0.weight"])
    with caplog.at_level("INFO"):
        assert_holds(saved(tmp_path, {"model": {f"module.{key}": t for key, t in masked.items()}}), expected)
    assert "applied 4 pruning masks" in caplog.text


def test_entries_that_only_look_like_masks_stay() -> None:
    ones = torch.ones(3)
    assert list(without_masks({"a_mask": ones, "b_orig": ones, "c_orig": ones, "c_mask": torch.ones(2)})) == [
        *("a_mask", "b_orig", "c_orig", "c_mask")
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read_as_float32(dtype: torch.dtype, state: State, tmp_path: Path) -> None:
    rounded = {key: t.to(dtype) if t.is_floating_point() else t for key, t in state.items()}
    assert_holds(saved(tmp_path, rounded), {key: t.to(state[key].dtype) for key, t in rounded.items()})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["weight norm", "spectral norm", "old weight norm", "old spectral norm"])
def test_computed_weights_are_named_and_the_advice_leads_on(
    kind: str, network: SlimmableNetwork, state: State, tmp_path: Path
) -> None:
    layer = network.get_submodule("classifier.0")
    apply: Any = {
        "weight norm": parametrizations.weight_norm,
        "spectral norm": parametrizations.spectral_norm,
        "old weight norm": nn.utils.weight_norm,
        "old spectral norm": nn.utils.spectral_norm,
    }[kind]
    apply(layer)
    message = refusal(saved(tmp_path, network.state_dict()))
    assert "computed from others (" in message and "classifier.0" in message
    advice = re.findall(r"remove_\w+", message)
    assert set(advice) == {"remove_parametrizations", "remove_weight_norm", "remove_spectral_norm"}
    if kind.startswith("old"):
        getattr(nn.utils, f"remove_{kind.removeprefix('old ').replace(' ', '_')}")(layer)
    else:
        parametrize.remove_parametrizations(layer, "weight")
    plain = network.state_dict()
    assert_holds(saved(tmp_path, plain), plain)


def quantized(state: State, how: str) -> dict[str, Any]:
    """State dicts as torch.ao.quantization leaves them: weights in integers, packed ones, observers beside weights."""
    quantization: Any = torch.ao.quantization
    content: dict[str, Any] = dict(state)
    if how == "tensors":
        for key in [key for key in state if key.endswith(".0.weight")]:
            content[key] = torch.quantize_per_tensor(state[key], 0.1, 0, torch.qint8)
        return content
    linear: Any = nn.Sequential(nn.Linear(4, 2))
    if how == "packed":
        linear = quantization.quantize_dynamic(linear, {nn.Linear})
    else:
        linear.train()
        linear.qconfig = quantization.get_default_qat_qconfig("x86")
        linear = quantization.prepare_qat(linear)
    for key in ("classifier.0.weight", "classifier.0.bias"):
        del content[key]
    content.update({f"classifier.{key}": value for key, value in linear.state_dict().items()})
    return content


@pytest.mark.parametrize("how", ["tensors", "packed", "observers"])
def test_quantized_networks_are_named_and_the_advice_leads_on(how: str, state: State, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = saved(tmp_path, quantized(state, how))
        message = refusal(path)
    assert "of a quantized network" in message and "before the network is prepared" in message
    assert_holds(saved(tmp_path, state), state)
