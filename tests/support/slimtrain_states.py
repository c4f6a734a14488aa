"""What these tests share: the stored oracles of tests/reference, and state dicts of any network, empty or random."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slimtrain.checkpoints.identify import identify
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork
from tests.reference import make_checkpoint
from tests.support import REFERENCE

PUBLISHED = (
    *("s_mobilenet_v1", "s_mobilenet_v2", "s_resnet50", "s_shufflenet", "us_mobilenet_v1", "us_mobilenet_v2"),
    *("autoslim_mobilenet_v1", "autoslim_mobilenet_v2", "autoslim_mnasnet", "autoslim_resnet50"),
)
State = dict[str, Tensor]

torch.set_num_threads(1)  # small networks: on a busy machine two threads wait for each other longer than they work


@lru_cache
def layout(name: str) -> dict[str, Any]:
    """`layouts/NAME.json`: keys, shapes and dtypes in order, switches, channel lists, MACs per switch."""
    content: dict[str, Any] = json.loads((REFERENCE / "layouts" / f"{name}.json").read_text())
    return content


def layout_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Key -> shape of a published network, in stored order."""
    return {key: tuple(shape) for key, shape, _ in layout(name)["layout"]}


def published_state(name: str) -> State:
    """The reference weights of a published network, bare keys."""
    return {key: torch.from_numpy(value) for key, value in make_checkpoint.state_dict(name, prefix="").items()}


def empty_state(spec: NetworkSpec) -> State:
    """Keys and shapes of any network, without values: identification needs no more."""
    with torch.device("meta"):
        return dict(SlimmableNetwork(spec).state_dict())


def shaped(name: str) -> State:
    """As `empty_state`, from the stored layout of a published network."""
    return {key: torch.empty(shape, device="meta") for key, shape in layout_shapes(name).items()}


def random_state(spec: NetworkSpec, seed: int = 0) -> State:
    """Float64 values for any network, every one different from its neighbours; activations stay of order one."""
    draw = torch.Generator().manual_seed(seed)
    state = {}
    for key, empty in empty_state(spec).items():
        shape = empty.shape
        if empty.dtype == torch.int64:
            state[key] = torch.zeros((), dtype=torch.int64)
        elif key.endswith("running_var"):
            state[key] = torch.rand(shape, generator=draw, dtype=torch.float64) + 0.5
        elif len(shape) == 1 and key.endswith("weight"):
            state[key] = 0.4 * torch.rand(shape, generator=draw, dtype=torch.float64) + 0.8
        else:
            scale = 0.1 if len(shape) == 1 else (2 / np.prod(shape[1:])) ** 0.5
            state[key] = scale * torch.randn(shape, generator=draw, dtype=torch.float64)
    return state


def network_of(spec: NetworkSpec, state: State) -> SlimmableNetwork:
    """A slimmable network holding `state` as it is, float64 kept, in evaluation mode."""
    with torch.device("meta"):
        network = SlimmableNetwork(spec)
    network.load_state_dict(state, assign=True)
    return network.eval()


def images(count: int = 2, size: int = 64, seed: int = 3) -> Tensor:
    """Float64 [count, 3, size, size], standard normal."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, size, size, generator=draw, dtype=torch.float64)


def identified(state: State, **options: Any) -> NetworkSpec:
    return identify(state, "weights.pt", **options)


def gap(a: Tensor, b: Tensor) -> float:
    """max |a - b| over max |b|: the error relative to the scale. NaN stays NaN, so that no comparison holds."""
    assert a.shape == b.shape
    return float((a - b).abs().max() / b.abs().max())


def saved(folder: Path, state: State) -> Path:
    torch.save({f"module.{key}": value for key, value in state.items()}, folder / "us_mbv1.pt")
    return folder / "us_mbv1.pt"
