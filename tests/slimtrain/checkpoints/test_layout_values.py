"""Values that no network can have are refused and named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from slimtrain.base.errors import CheckpointError
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.models.spec import NetworkSpec
from tests.support.slimtrain_states import State, images, random_state, saved

SPEC = NetworkSpec("mobilenet_v1", "us", (0.25, 0.5), 10, width_range=(0.25, 0.5))
KEY = "features.3.body.3.weight"


@pytest.fixture(scope="module")
def state() -> State:
    return {key: t.float() if t.is_floating_point() else t for key, t in random_state(SPEC).items()}


def refusal(folder: Path, state: State) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(saved(folder, state))
    assert str(caught.value).startswith("us_mbv1.pt: ")
    return str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("key", [KEY, "features.0.0.weight", "classifier.0.bias", "features.5.body.4.bn.1.running_var"])
def test_nan_and_infinite_weights_are_named(state: State, tmp_path: Path, key: str, value: float) -> None:
    bad = state[key].clone()
    bad.view(-1)[-1] = value
    message = refusal(tmp_path, {**state, key: bad})
    assert f"NaN or infinite values in {key} (1 of {bad.numel()})" in message


def test_of_many_bad_tensors_a_few_are_listed(state: State, tmp_path: Path) -> None:
    message = refusal(tmp_path, {key: t * float("nan") if t.is_floating_point() else t for key, t in state.items()})
    floats = sum(t.is_floating_point() for t in state.values())
    assert "features.0.0.weight" in message and f"{floats - 4} more tensors" in message and len(message) < 600


def test_a_half_precision_infinity_is_found(state: State, tmp_path: Path) -> None:
    half = {key: t.half() if t.is_floating_point() else t for key, t in state.items()}
    half[KEY] = half[KEY] * 1e6  # over 65504
    assert f"infinite values in {KEY}" in refusal(tmp_path, half)


def test_weights_that_float32_cannot_hold_are_named(state: State, tmp_path: Path) -> None:
    wide = {key: t.double() if t.is_floating_point() else t for key, t in state.items()}
    wide[KEY] = wide[KEY] * 1e200  # finite in the file, infinite in the network
    assert KEY in refusal(tmp_path, wide)


@pytest.mark.parametrize("key", ["features.0.1.bn.0.running_var", "features.13.body.4.bn.1.running_var"])
def test_negative_variances_are_named(state: State, tmp_path: Path, key: str) -> None:
    variance = state[key].clone()
    variance[3] = -1e-3
    assert f"{key} holds negative variances" in refusal(tmp_path, {**state, key: variance})


@pytest.mark.parametrize(
    "convert",
    [
        lambda t: t.to(torch.complex64),
        lambda t: t.to_sparse(),
        lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
        lambda t: t.to("meta"),
        lambda t: t.to(torch.float8_e4m3fn),
        lambda t: (t * 10).to(torch.int64),
        lambda t: t > 0,
    ],
    ids=["complex", "sparse", "quantized", "meta", "float8", "integers", "truth values"],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_no_plain_real_numbers_are_named(
    state: State, tmp_path: Path, convert: Callable[[Tensor], Tensor]
) -> None:
    assert KEY in refusal(tmp_path, {**state, KEY: convert(state[KEY])})


def test_zero_variance_and_other_unusual_but_lawful_values_are_taken(state: State, tmp_path: Path) -> None:
    key = "features.0.1.bn.0.running_var"
    checkpoint = open_checkpoint(saved(tmp_path, {**state, key: torch.zeros_like(state[key])}))
    with torch.inference_mode(), checkpoint.network.at(SPEC.plans[0]):
        assert bool(torch.isfinite(checkpoint.network(images().float())).all())
