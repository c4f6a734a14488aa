"""What `last.pt` holds beside its network, compared with what a run of the kind holds, before any of it is used. No torch.

A run that is to go on has the same parts: the optimizer's groups and momenta, averages, a teacher, random states. What it
would hold now is the pattern, and a file's value fits where it has the same keys, types and shapes, and finite numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from slimtrain.base.untrusted.quoting import quoted, shortened

MOMENTUM = "momentum_buffer"
ROWS = 1_000_000  # of summary.csv
PLAN = "plan"  # its column of names; the others are of numbers
LARGEST = 2**63
NEEDED = ("momentum", "dampening", "weight_decay", "nesterov")  # of an optimizer's group; later versions of torch have more


def check_progress(training: Mapping[str, Any], steps: int) -> None:
    """ValueError unless a file says how far its run of so many `steps` came: the step, the smallest error, the rows."""
    step, best, rows = training["step"], training["best"], training["rows"]
    if type(step) is not int or not 0 <= step <= steps:
        raise ValueError(f"its step is {quoted(step)}, expected a whole number from 0 to {steps}")
    if isinstance(best, bool) or not isinstance(best, int | float) or not best >= 0:
        raise ValueError(f"its best error is {quoted(best)}, expected a number from 0 on")
    if not isinstance(rows, list) or len(rows) > ROWS or not all(map(_is_row, rows)):
        raise ValueError("its rows are no rows of summary.csv")
    if any(list(row) != list(rows[0]) for row in rows):
        raise ValueError("its rows have different columns")


def _is_row(row: object) -> bool:
    """Whether it has a test's place in the run, its plan's name, and figures, of which some may be left empty."""
    if not isinstance(row, dict) or not all(isinstance(key, str) and len(key) < 100 for key in row):
        return False
    placed = type(row.get("step")) is int and _is_number(row.get("epoch")) and _is_number(row.get("width"))
    named = isinstance(row.get(PLAN), str) and len(row[PLAN]) < 1000
    figures = (value for key, value in row.items() if key != PLAN)
    return placed and named and all(value == "" or _is_figure(value) for value in figures)


def _is_figure(value: object) -> bool:
    """A loss may be none, or infinite."""
    return isinstance(value, float) or (type(value) is int and abs(value) < LARGEST)


def check_optimizer(state: Any, pattern: Mapping[str, Any], shapes: Iterable[tuple[int, ...]]) -> None:
    """ValueError unless `state` is one of an optimizer whose own is `pattern`, its momenta of the parameters' `shapes`."""
    groups, own = _part(state, "param_groups", list), pattern["param_groups"]
    if len(groups) != len(own):
        raise ValueError(f"its optimizer has {len(groups)} groups, expected {len(own)}")
    for group, expected in zip(groups, own, strict=True):
        if not isinstance(group, dict) or not _is_number(group.get("lr")) or group["lr"] < 0:
            raise ValueError("a group of its optimizer has no learning rate")
        held = {key: group.get(key) if key in NEEDED else group.get(key, value) for key, value in expected.items()}
        wrong = [key for key, value in expected.items() if key != "lr" and not _same(held[key], value)]
        if wrong or group.get("params") != expected["params"]:
            raise ValueError(f"a group of its optimizer has another {(wrong or ['params'])[0]}")
    momenta, sizes = _part(state, "state", dict), dict(enumerate(shapes))
    for number, entry in momenta.items():
        if type(number) is not int or number not in sizes or not isinstance(entry, dict) or set(entry) - {MOMENTUM}:
            raise ValueError(f"its optimizer's state {quoted(number)} is none")
        if entry.get(MOMENTUM) is not None:
            _check_tensor(entry[MOMENTUM], sizes[number], True, f"its optimizer's momentum {number}")


def check_scaler(state: Any, pattern: Mapping[str, Any]) -> None:
    """ValueError unless `state` is empty or one of a gradient scaler, of positive numbers."""
    if not isinstance(state, dict):
        raise ValueError("its scaler is none")
    numbers = ("scale", "growth_factor", "backoff_factor", "growth_interval")
    wrong = [key for key in numbers if state and not (_is_number(state.get(key)) and state[key] > 0)]
    wrong += [key for key in ("growth_interval", "_growth_tracker") if state and type(state.get(key)) is not int]
    if wrong or (pattern and state and set(pattern) - set(state)):
        raise ValueError(f"its scaler has no {(wrong or ['numbers'])[0]}")


def check_tensors(state: Any, pattern: Mapping[str, Any], what: str) -> None:
    """ValueError unless `state` has the keys, types and shapes of a `pattern` of tensors, and finite numbers."""
    if not isinstance(state, dict) or state.keys() != pattern.keys():
        raise ValueError(f"{what} is of another network")
    for key, tensor in pattern.items():
        _check_tensor(state[key], tuple(tensor.shape), tensor.is_floating_point(), f"{what}, {key}")


def _check_tensor(tensor: Any, shape: tuple[int, ...], floating: bool, what: str) -> None:
    usable = getattr(tensor, "is_meta", True) is False
    if not usable or tuple(tensor.shape) != shape or tensor.is_floating_point() != floating or tensor.is_complex():
        raise ValueError(f"{what} is no tensor of {list(shape)}")
    if floating and not tensor.isfinite().all():
        raise ValueError(f"{what} holds NaN or infinite values")


def check_counts(counts: Any) -> None:
    """ValueError unless `counts` are numbers of images by what they are for."""
    if not isinstance(counts, dict) or not all(isinstance(key, str) and type(n) is int for key, n in counts.items()):
        raise ValueError("its numbers of images are none")


def _part(state: Any, key: str, kind: type) -> Any:
    value = state.get(key) if isinstance(state, dict) else None
    if not isinstance(value, kind):
        raise ValueError(f"its optimizer has no {shortened(key)}")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _same(value: object, expected: object) -> bool:
    return type(value) is type(expected) and value == expected if not _is_number(expected) else _equal(value, expected)


def _equal(value: object, expected: object) -> bool:
    return _is_number(value) and value == expected
