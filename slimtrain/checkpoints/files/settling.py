"""What a pickle said, as values that may be used: plain dictionaries and lists of limited depth and number, and tensors that
are as large as what the file holds for them. The one place where they are checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from slimtrain.base.untrusted.quoting import quoted
from slimtrain.checkpoints.files.claims import GIB, Claim, Damaged, OddTensor
from slimtrain.checkpoints.files.inert import Inert
from slimtrain.checkpoints.files.shards import TENSORS

DEPTH = 200  # of containers within each other
VALUES = 20_000_000  # that containers hold, those that are stored once and named many times counted every time
KEY = 1000  # letters of a tensor's
LEAVES = frozenset({str, int, float, bool, bytes, type(None)})
CONTAINERS = (dict, list, tuple, Inert)
BEYOND = GIB  # bytes that tensors may take beyond what is stored of them, as where an element is repeated


def described(root: Any) -> list[Claim]:
    """The different tensors that a value holds, however deep. Damaged where they are too many."""
    claims: dict[Claim, None] = {}
    left, seen, number = [root], set(), 0
    while left:
        value = left.pop()
        if type(value) in LEAVES:
            continue
        if isinstance(value, Claim | OddTensor):
            number += 1
            if isinstance(value, Claim):
                claims.setdefault(value)
        elif isinstance(value, dict | list | tuple | Inert) and id(value) not in seen:
            seen.add(id(value))
            left.extend(_inside(value))
    if number > TENSORS:
        raise Damaged(f"{number:,} tensors, expected at most {TENSORS:,}")
    return list(claims)


def _inside(value: Any) -> Iterable[Any]:
    """What a container, or an object, holds."""
    if isinstance(value, Inert):
        return (_unwrapped(value),) if type(value).container else (value.state,)
    return value.values() if isinstance(value, dict) else value


def _unwrapped(value: Any) -> Any:
    """Of an object that is filled as a dictionary or list, what it is filled with."""
    if not isinstance(value, Inert) or not type(value).container:
        return value
    if type(value).container is dict:
        value.entries = {} if value.entries is None else value.entries
        return value.entries
    value.elements = [] if value.elements is None else value.elements
    return value.elements


def check_claims(claims: Iterable[Claim]) -> None:
    """Damaged where tensors would take much more than what is stored of them."""
    wanted = sum(claim.bytes for claim in claims)
    stored = sum({claim.storage.key: claim.storage.whole * claim.storage.elements.size for claim in claims}.values())
    if wanted > stored + BEYOND:
        raise Damaged(f"tensors of {wanted / GIB:,.1f} GiB, and {stored / GIB:,.1f} GiB are stored of them")


def settled(root: Any, tensors: Mapping[Claim, Tensor]) -> Any:
    """`root` with tensors in place of their claims. Damaged where containers hold themselves, are deeper or hold more than
    those of any checkpoint. What inert objects hold is settled too, each for itself: these may refer to each other."""
    settling = _Settling(tensors)
    value = settling.value(root)
    while settling.objects:
        thing = settling.objects.pop()
        thing.state = settling.value(thing.state)
    return value


class _Settling:
    """What containers become, by identity."""

    def __init__(self, tensors: Mapping[Claim, Tensor]) -> None:
        self.tensors = tensors
        self.done: dict[int, Any] = {}  # the new containers
        self.weights: dict[int, int] = {}  # how many values these hold
        self.kept: list[Any] = []  # the old ones, so that their identities stay theirs
        self.objects: list[Inert] = []  # whose state is still to be settled
        self.met: set[int] = set()

    def value(self, root: Any) -> Any:
        """Without recursion: a container is done when all within it are."""
        above: set[int] = set()
        left: list[tuple[Any, int, bool]] = [(_unwrapped(root), 0, False)]
        while left:
            value, depth, whole = left.pop()
            if whole:
                above.discard(id(value))
                self._finish(value)
            elif isinstance(value, Inert):
                if id(value) not in self.met:
                    self.met.add(id(value))
                    self.objects.append(value)
            elif isinstance(value, dict | list | tuple) and id(value) not in self.done:
                if id(value) in above:
                    raise Damaged(f"a {type(value).__name__} that contains itself")
                if depth >= DEPTH:
                    raise Damaged(f"containers in each other, deeper than {DEPTH}")
                above.add(id(value))
                left.append((value, depth, True))
                left.extend((_unwrapped(v), depth + 1, False) for v in _inside(value) if isinstance(v, CONTAINERS))
        return self._result(root)

    def _finish(self, value: Any) -> None:
        parts = [part for part in _inside(value) if type(part) not in LEAVES]
        weight = 1 + len(value) + sum(self.weights.get(id(_unwrapped(part)), 1) for part in parts)
        if weight > VALUES:
            raise Damaged(f"more than {VALUES:,} values")
        if isinstance(value, dict):
            for key, part in value.items():
                if isinstance(part, Claim | OddTensor) and isinstance(key, str) and len(key) > KEY:
                    raise Damaged(f"a tensor's name of {len(key):,} letters, {quoted(key)}")
        result = value
        if parts and isinstance(value, dict):
            result = {key: self._result(part) for key, part in value.items()}
        elif parts:
            result = type(value)(self._result(part) for part in value)
        self.kept.append(value)
        self.done[id(value)], self.weights[id(value)] = result, weight

    def _result(self, value: Any) -> Any:
        if isinstance(value, Claim):
            return self.tensors[value]
        value = _unwrapped(value)
        return self.done.get(id(value), value) if isinstance(value, dict | list | tuple) else value
