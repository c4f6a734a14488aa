"""State dicts with one damaged tensor, and whether the damage is named."""

from __future__ import annotations

import torch

from slimtrain.base.errors import CheckpointError
from tests.support.slimtrain_states import PUBLISHED, State, identified, shaped

WAYS = ("missing", "longer", "shorter", "scalar", "another rank")
AUTOSLIM = tuple(name for name in PUBLISHED if name.startswith("autoslim"))


def damaged(state: State, key: str, way: str) -> State:
    """`state` with one tensor changed."""
    shape, state = list(state[key].shape), dict(state)
    if way == "missing":
        del state[key]
        return state
    changed = {
        "longer": [shape[0] + 8, *shape[1:]],
        "shorter": [shape[0] // 2, *shape[1:]],
        "scalar": [],
        "another rank": [*shape, 1],
    }[way]
    state[key] = torch.empty(changed, device="meta")
    return state


def outcome(state: State, key: str, network: str | None = None) -> str | None:
    """What is wrong with how a damaged file is received; None where it is refused and `key` named."""
    try:
        spec = identified(state, network=network)
    except CheckpointError as error:
        return None if key in str(error) and "weights.pt" in str(error) else f"not named: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return f"accepted as {spec.name}"


def assert_named(name: str, keys: list[str], ways: tuple[str, ...] = WAYS, network: str | None = None) -> None:
    """Every one of `keys`, damaged in one of the ways, in turn."""
    state = shaped(name)
    cases = {}
    for i, key in enumerate(keys):
        way = ways[i % len(ways)]
        cases[f"{key} {way}"] = outcome(damaged(state, key, way), key, network)
    wrong = {case: what for case, what in cases.items() if what}
    assert not wrong, f"{len(wrong)} of {len(cases)}: {wrong}"


def decides(key: str) -> bool:
    """Whether a tensor is one that switches and widths are read off."""
    return ".bn." in key and key.endswith(("weight", "running_mean"))
