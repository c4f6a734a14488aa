"""What `last.pt` holds beside the network is compared with what such a run holds, before it is used."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from slimtrain.training.records.saved_state import (
    check_counts,
    check_optimizer,
    check_progress,
    check_scaler,
    check_tensors,
)

ROW = {"step": 4, "epoch": 1.0, "plan": "x0_5", "width": 0.5, "loss": 2.5, "top5": ""}
PROGRESS = {"step": 4, "best": math.inf, "rows": [ROW]}
SHAPES = [(2, 3), (2,)]
CHANGES: tuple[dict[str, Any], ...] = (
    *({"plan": value} for value in ([1], 3, "x" * 2000)),
    *({"loss": value} for value in (" ", "2.5", None, True, 10**30, [2.5])),
    *({key: value} for key in ("step", "epoch", "width") for value in ("", "1", None, math.nan)),
)


def optimizer() -> dict[str, Any]:
    """The state of one that has done a step, as torch.optim.SGD gives it."""
    group = {"lr": 0.1, "momentum": 0.9, "dampening": 0, "weight_decay": 1e-4, "nesterov": True, "foreach": None}
    momenta = {number: {"momentum_buffer": torch.ones(shape)} for number, shape in enumerate(SHAPES)}
    return {"state": momenta, "param_groups": [{**group, "params": [0, 1]}]}


def put(value: Any, *path: Any) -> Callable[[Any], Any]:
    """A change: another value at a path."""

    def change(state: Any) -> Any:
        place = state
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        return state

    return change


@pytest.mark.parametrize("step", [-1, 9, 1.0, True, "4", None, 10**40, math.nan, torch.tensor(4)])
def test_a_step_is_one_of_the_runs(step: Any) -> None:
    check_progress(PROGRESS, 8)
    with pytest.raises(ValueError, match="its step is"):
        check_progress({**PROGRESS, "step": step}, 8)


@pytest.mark.parametrize("best", [math.nan, -1.0, True, "0.5", None, torch.tensor(0.5)])
def test_the_best_error_is_a_number(best: Any) -> None:
    with pytest.raises(ValueError, match="its best error"):
        check_progress({**PROGRESS, "best": best}, 8)


@pytest.mark.parametrize(
    "rows", [3, {}, [3], [{3: 4}], [ROW, {"step": 4}], [{"loss": 3}], *([{**ROW, **change}] for change in CHANGES)]
)
def test_rows_are_those_of_a_table(rows: Any) -> None:
    with pytest.raises(ValueError, match="its rows"):
        check_progress({**PROGRESS, "rows": rows}, 8)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: None,
        lambda state: [],
        lambda state: {},
        put([], "param_groups"),
        put([3], "param_groups"),
        put("0.9", "param_groups", 0, "momentum"),
        lambda state: state["param_groups"][0].pop("dampening") or state,
        put(0.5, "param_groups", 0, "momentum"),
        put(math.nan, "param_groups", 0, "lr"),
        put(-1.0, "param_groups", 0, "lr"),
        put([0, 0], "param_groups", 0, "params"),
        put(1, "param_groups", 0, "nesterov"),
        put({}, "state", 2),
        put({}, "state", "0"),
        put(3, "state", 0),
        put(torch.ones(2, 3), "state", 0, "other"),
        put(torch.ones(3, 2), "state", 0, "momentum_buffer"),
        put(torch.ones(2, 3, dtype=torch.int64), "state", 0, "momentum_buffer"),
        put(torch.ones(2, 3, dtype=torch.complex64), "state", 0, "momentum_buffer"),
        put(torch.ones(2, 3, device="meta"), "state", 0, "momentum_buffer"),
        put(torch.full((2, 3), math.nan), "state", 0, "momentum_buffer"),
        put("x", "state", 0, "momentum_buffer"),
    ],
)
def test_an_optimizers_state_is_of_this_one(change: Callable[[Any], Any]) -> None:
    own = optimizer()
    check_optimizer(copy.deepcopy(own), own, SHAPES)
    check_optimizer({**own, "state": {}}, own, SHAPES)  # before the first step
    with pytest.raises(ValueError, match="optimizer"):
        check_optimizer(change(copy.deepcopy(own)), own, SHAPES)


def test_a_scaler_has_positive_numbers() -> None:
    own = {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 3}
    for state, pattern in ((own, own), ({}, {}), ({}, own), (own, {})):
        check_scaler(state, pattern)
    for key, value in (("scale", math.nan), ("scale", "1"), ("growth_interval", 0), ("_growth_tracker", None)):
        with pytest.raises(ValueError, match="its scaler"):
            check_scaler({**own, key: value}, own)
    with pytest.raises(ValueError, match="its scaler"):
        check_scaler(3, own)


def test_tensors_have_the_shapes_and_types_of_the_pattern() -> None:
    pattern = {"a": torch.ones(2, 3), "n": torch.tensor(3)}
    check_tensors({"a": torch.zeros(2, 3), "n": torch.tensor(5)}, pattern, "its average")
    for bad in (3, {}, {"a": torch.ones(2, 3)}, {**pattern, "b": torch.ones(1)}, {**pattern, "a": torch.ones(3)}):
        with pytest.raises(ValueError, match="its average"):
            check_tensors(bad, pattern, "its average")
    for value in (3, None, torch.full((2, 3), math.inf), torch.ones(2, 3, device="meta"), torch.ones(2, 3).bool()):
        with pytest.raises(ValueError, match="its average, a"):
            check_tensors({**pattern, "a": value}, pattern, "its average")


def test_numbers_of_images_are_whole() -> None:
    check_counts({"train": 3})
    check_counts({})
    for counts in (3, {"train": "3"}, {"train": 1.5}, {3: 3}, None):
        with pytest.raises(ValueError, match="numbers of images"):
            check_counts(counts)
