"""The weights within whatever was saved: state dicts are known by what they hold, not by what they are called.

Every table of tensors in the file is looked at, however deep. Training code wraps networks (DataParallel, torch.compile,
Lightning modules, averaging models), and each wrapper puts a name before all keys; a table is the weights of a network where
its keys end as one of ours do, and what stands before these ends comes off, in any order and depth (`_network_tables`). So
weights and their moving average are told apart even where both are in one table, and optimizers' state is no network's.

Where several sets of weights are there, the default is: complete ones (with batch-norm statistics) before parameters alone,
those that training changed before averages of them, the outermost, then the usual names. Which was taken is logged.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor

from slimtrain.base.errors import CheckpointError, UserError, nearest
from slimtrain.base.text import count, some
from slimtrain.base.untrusted.quoting import quoted
from slimtrain.checkpoints.files.inert import Inert
from slimtrain.checkpoints.files.unpickling import WHOLE_MODULE
from slimtrain.checkpoints.skeleton import ALIKE, likeness, skeleton
from slimtrain.checkpoints.stored_forms import MASK, refuse_other_forms, without_counters, without_masks
from slimtrain.models.registry import ARCHITECTURES

log = logging.getLogger(__name__)

MODEL, EMA = "model", "ema"  # what --weights takes beside keys: those that were trained, their average
USUAL = ("model", "state_dict", "model_state_dict", "net")  # which come first among equals
AVERAGES = frozenset({"ema", "swa", "avg", "average", "averaged", "averager", "polyak", "shadow"})  # words in their keys
COUNTER = "n_averaged"  # which torch's averaging models keep beside theirs
DEEPEST = 8  # levels of containers that are looked into


@dataclass(frozen=True)
class Weights:
    """A set of weights in a file: bare key -> tensor.

    `key` is its dotted path in the file, "" of the file's own table, `prefix` what stood before its keys. `alike` says that it
    is one of the networks, `complete` that statistics are there too, `averaged` that it is an average. `counters` is
    the number of entries that only count, `masks` that of pruning masks that were applied; `left_out` are entries of the same
    table that belong to something else.
    """

    key: str
    state: Mapping[str, Tensor]
    prefix: str = ""
    alike: bool = False
    complete: bool = False
    averaged: bool = False
    counters: int = 0
    masks: int = 0
    left_out: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """How messages call it."""
        return (self.key or "the file's own table") + (" (an average)" if self.averaged else "")

    @property
    def rank(self) -> tuple[Any, ...]:
        """Sorts what is taken before others; equal ranks stay in the file's order."""
        path = self.key.split(".") if self.key else []
        usual = USUAL.index(path[-1]) if path and path[-1] in USUAL else len(USUAL)
        size = 0 if self.alike else -sum(t.dim() > 1 for t in self.state.values())
        return not self.alike, not self.complete, size, self.averaged, len(path), usual


def find_weights(content: Any, name: str, wanted: str | None = None) -> Weights:
    """The weights to take from whatever was saved: those that `wanted` names (a dotted key, `model` or `ema`), or the first by
    the rule above. `name` is the file's, for messages.

    CheckpointError where there are none, or stored in a form that cannot be read; UserError where none is `wanted`.
    """
    sets = sorted(_all_weights(content), key=lambda weights: weights.rank)
    if not sets:
        raise CheckpointError(_nothing(content, name))
    first = sets[0]
    if first.alike:
        equals = [w for w in sets if (w.alike, w.complete) == (first.alike, first.complete)]
    else:  # none of our networks: the same keys are the same network
        equals = [w for w in sets if w.state.keys() == first.state.keys()]
    taken = sets[0] if wanted is None else _wanted(sets, equals, wanted, name)
    if wanted is None and len(equals) > 1:
        others = ", ".join(weights.title for weights in equals[1:])
        log.warning(
            "%s: holds %d sets of weights. Taken: %s. Others, which --weights KEY takes: %s",
            *(name, len(equals), taken.title, others),
        )
    refuse_other_forms(taken.state, name)
    if taken.counters:
        log.info("%s: ignored %s beside the weights", name, count(taken.counters, "counter"))
    if taken.masks:
        log.info("%s: applied %s", name, count(taken.masks, "pruning mask"))
    if taken.left_out:
        log.info("%s: left out what is not the network's: %s", name, some(taken.left_out))
    return taken


def _wanted(sets: Sequence[Weights], equals: Sequence[Weights], wanted: str, name: str) -> Weights:
    """The set that `wanted` names."""
    by_key = [w for w in sets if wanted in (w.key, f"{w.key}.{w.prefix}")]
    by_kind = [w for w in equals if w.averaged == (wanted == EMA)] if wanted in (MODEL, EMA) else []
    within = [w for w in sets if w.key.startswith(f"{wanted}.")]
    for candidates in (by_key, by_kind[:1] if wanted == MODEL else by_kind, within):
        if len(candidates) == 1:
            return candidates[0]
    known = [w for w in sets if w.alike] or sets
    raise UserError(
        f"{name}: --weights {wanted}: {'several are' if by_kind or within else 'nothing is'} called so"
        f"{nearest(wanted, [w.key for w in known])}. It holds {', '.join(w.title for w in known)}. Give one of these keys, or "
        "leave --weights out."
    )


# ------------------------------------------------------------------------------------------------------ what a file holds


def _all_weights(content: Any) -> Iterator[Weights]:
    """All sets of weights in a file, in its order."""
    for path, table, named in _tables(content, (), True, set()):
        tensors = {key: value for key, value in table.items() if isinstance(key, str) and isinstance(value, Tensor)}
        if not tensors:
            continue
        key = ".".join(path)
        kept = without_counters(tensors)
        counters, plain = len(tensors) - len(kept), without_masks(kept)
        masks = sum(k.endswith(MASK) for k in kept.keys() - plain.keys())
        networks = _network_tables(plain)
        averages = [k.rpartition(".")[0] for k in tensors if k.rpartition(".")[2] == COUNTER]
        for prefix, state in networks:
            place = ".".join(filter(None, (key, prefix))) if len(networks) > 1 else key
            averaged = _is_average(place) or any(f"{prefix}.".startswith(f"{head}.") or not head for head in averages)
            complete = any(k.endswith("running_var") for k in state)
            rest = () if len(networks) > 1 else _left_out(plain, state)
            yield Weights(place, state, prefix, True, complete, averaged, counters, masks, rest)
        outer = len(path) < 2 or any(k.endswith("weight") for k in plain)
        if not networks and named and outer:
            averaged = _is_average(key) or "" in averages
            yield Weights(key, _without_common_prefix(plain), averaged=averaged, counters=counters, masks=masks)


def _is_average(place: str) -> bool:
    """Whether the words of a dotted key call what it holds an average: of weights, not of gradients, as optimizers keep."""
    if "optim" in place.lower() or place.rpartition(".")[2].startswith("exp_avg"):
        return False
    return not AVERAGES.isdisjoint(word.lower() for word in re.split(r"[^a-zA-Z]+|(?<=[a-z])(?=[A-Z])", place))


def _left_out(table: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The keys of a table whose tensors are not among those of a network in it."""
    taken = {id(tensor) for tensor in state.values()}
    return tuple(key for key, tensor in table.items() if id(tensor) not in taken)


def _tables(value: Any, path: tuple[str, ...], named: bool, seen: set[int]) -> Iterator[tuple[tuple[str, ...], Any, bool]]:
    """Every table in a file with its path, and whether all keys of that are text: optimizers number what they keep."""
    if not isinstance(value, Mapping | list | tuple) or len(path) > DEEPEST:
        return
    if isinstance(value, Mapping):
        yield path, value, named  # also where it is stored under two keys
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Mapping):
        for key, inside in value.items():
            if isinstance(inside, dict | list | tuple):  # of millions of numbers none is asked any further
                yield from _tables(inside, (*path, str(key)), named and isinstance(key, str), seen)
    else:
        for number, inside in enumerate(value):
            if isinstance(inside, dict | list | tuple):
                yield from _tables(inside, (*path, str(number)), False, seen)


# --------------------------------------------------------------------------------------------------- what stands before keys


@cache
def _known_keys() -> frozenset[str]:
    """The weighted layers' keys of all networks."""
    return frozenset(key for arch in ARCHITECTURES.values() for key in skeleton(arch).weights)


@cache
def _words() -> frozenset[str]:
    """The names that networks' keys are made of; a wrapper's is none of them."""
    return frozenset(word for key in _known_keys() for word in key.split(".")) | {"bn"}


def _network_tables(tensors: Mapping[str, Tensor]) -> list[tuple[str, dict[str, Tensor]]]:
    """The tables of networks within one, in its order: what stands before all keys of each, and it without that."""
    known = _known_keys()
    tensors = _without_inner_wrappers(tensors, known)
    order = {prefix: None for key in tensors for prefix in _prefixes(key, known)}
    tables, rest = {}, dict(tensors)
    for prefix in sorted(order, key=lambda prefix: -len(prefix)):  # longest first: one may be within another
        head = f"{prefix}." if prefix else ""
        inside = {key.removeprefix(head): t for key, t in rest.items() if key.startswith(head)}
        if likeness(inside)[1] >= ALIKE:
            tables[prefix] = inside
            rest = {key: t for key, t in rest.items() if not key.startswith(head)}
    if len(tables) == 1:
        (inside,) = tables.values()
        inside.update(_missing_layers(inside, rest, known))
    return [(prefix, tables[prefix]) for prefix in order if prefix in tables]


def _prefixes(key: str, known: Set[str]) -> Iterator[str]:
    """What stands before a network's key, for each that `key` ends as."""
    words = key.split(".")
    return (".".join(words[:i]) for i in range(len(words)) if ".".join(words[i:]) in known)


def _missing_layers(table: Mapping[str, Tensor], rest: Mapping[str, Tensor], known: Set[str]) -> dict[str, Tensor]:
    """The layers that a network's table lacks and that are in `rest` under another prefix: a classifier beside a wrapped
    backbone."""
    layers = {}
    for key in rest:
        for prefix in _prefixes(key, known):
            bare = key[len(prefix) :].removeprefix(".")
            if bare not in table:
                layer = bare.rpartition(".")[0]
                start = f"{prefix}.{layer}." if prefix else f"{layer}."
                layers.update({f"{layer}.{k.removeprefix(start)}": t for k, t in rest.items() if k.startswith(start)})
    return layers


def _without_inner_wrappers(tensors: Mapping[str, Tensor], known: Set[str]) -> Mapping[str, Tensor]:
    """`tensors` without the names of wrappers around parts of a network, as in `features.module.0.0.weight`, where keys are a
    network's without them."""
    words, renamed = _words(), {}
    for key, value in tensors.items():
        *path, entry = key.split(".")
        start = next((i for i, word in enumerate(path) if word in words and not word.isdigit()), len(path))
        inner = [word for word in path[start:] if word.isdigit() or word in words]
        renamed[".".join([*path[:start], *inner, entry])] = value

    def recognized(keys: Iterable[str]) -> int:
        return sum(any(True for _ in _prefixes(key, known)) for key in keys)

    return renamed if len(renamed) == len(tensors) and recognized(renamed) > recognized(tensors) else tensors


def _without_common_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` without what stands before all keys, of a network that is none of ours."""
    paths, words = [key.split(".")[:-1] for key in tensors], _words()
    length = 0
    while all(len(path) > length and path[length] == paths[0][length] for path in paths):
        if paths[0][length] in words or len(tensors) == 1:
            break
        length += 1
    return {".".join(key.split(".")[length:]): value for key, value in tensors.items()}


def _nothing(content: Any, name: str) -> str:
    """The message for a file without weights."""
    for _, value in _modules(content):
        return WHOLE_MODULE.format(name, type(value).__name__)
    if not isinstance(content, Mapping):
        return f"{name}: holds a {type(content).__name__}, expected a state dict (name to tensor)."
    held = ", ".join(quoted(key) for key in list(content)[:5]) or "nothing"
    return f"{name}: holds {held} and no tensors, expected a state dict or {{'model': state dict}}."


def _modules(content: Any) -> Iterator[tuple[str, Any]]:
    """Pickled modules: the file's own object, or those that a table holds."""
    if isinstance(content, Inert):
        yield "", content
    for path, table, _ in _tables(content, (), True, set()):
        for key, value in table.items():
            if isinstance(value, Inert) and isinstance(value.state, Mapping) and "_modules" in value.state:
                yield ".".join((*path, str(key))), value
