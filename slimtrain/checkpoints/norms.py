"""The norms of a state dict: in which of the published layouts, and the channels that each has at every stored width."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from slimtrain.base.errors import CheckpointError
from slimtrain.base.text import some
from slimtrain.checkpoints.reading import State
from slimtrain.checkpoints.skeleton import NormSite, Sizes

NORM = ("weight", "bias", "running_mean", "running_var")


def norm_layout(state: State, norms: Sequence[NormSite], name: str, architecture: str) -> str:
    """`switchable` or `universal`, by what most norms are. CheckpointError for a network with ordinary norms."""

    def kind(path: str) -> str:
        if f"{path}.bn.0.weight" in state:
            return "switchable"
        if f"{path}.bn.0.running_mean" in state or f"{path}.bn.0.running_var" in state:
            return "universal"
        return "plain"

    layout = Counter(kind(norm.path) for norm in norms).most_common(1)[0][0]
    if layout == "plain":
        raise CheckpointError(
            f"{name}: looks like a {architecture}, but its norms are ordinary ones, not one per switch or width: it is "
            "not a slimmable network's checkpoint, it has one width only."
        )
    return layout


def stored_entries(state: State, norms: Sequence[NormSite], layout: str, name: str, architecture: str) -> list[Sizes]:
    """For every switch or width, in stored order: the size of each norm that stores statistics for it.

    CheckpointError, naming the tensors, where one is missing or differs from the others of its norm.
    """
    kinds = NORM if layout == "switchable" else NORM[2:]
    switched = [norm.path for norm in norms if any(f"{norm.path}.bn.0.{kind}" in state for kind in kinds)]
    # A norm that is there, but not per switch: the shared tail. A norm that is not there at all is missing.
    shared = [n.path for n in norms if n.path not in switched and any(f"{n.path}.{k}" in state for k in NORM[2:])]
    counts = Counter(sum(1 for _ in _consecutive(state, path, kinds)) for path in switched)
    number = counts.most_common(1)[0][0]
    problems = [
        f"{path}.{kind} is missing"
        for path in (norm.path for norm in norms if norm.path not in (*switched, *shared))
        for kind in (*(NORM[:2] if layout == "universal" else ()), *(f"bn.{i}.{k}" for i in range(number) for k in kinds))
    ]
    tail = {path: norm_size(state, path, NORM, problems) for path in shared}
    entries = [{path: norm_size(state, f"{path}.bn.{i}", kinds, problems) for path in switched} for i in range(number)]
    if problems:
        raise CheckpointError(f"{name}: looks like a {architecture}, but {some(problems)}. The file is damaged.")
    widest = max(entries, key=lambda entry: sum(entry.values()))
    weights = {path: state[key].numel() for path in switched if (key := f"{path}.weight") in state}
    if all(widest[path] == size for path, size in weights.items()):
        widest.update(tail)  # above 1.0x the tail's size tells the widest width
    return list(entries)


def norm_size(state: State, path: str, kinds: Sequence[str], problems: list[str]) -> int:
    """A norm's channels, by most of its tensors; what is missing or unlike the others is added to `problems`."""
    found = {f"{path}.{kind}": tuple(state[f"{path}.{kind}"].shape) for kind in kinds if f"{path}.{kind}" in state}
    problems += [f"{path}.{kind} is missing" for kind in kinds if f"{path}.{kind}" not in found]
    shapes = Counter(found.values()).most_common()
    if len(shapes) > 1:
        tie = shapes[0][1] == shapes[1][1]
        odd = {key: shape for key, shape in found.items() if tie or shape != shapes[0][0]}
        problems += [f"{key} is {list(shape)}, unlike the rest of its norm" for key, shape in odd.items()]
    if not shapes or len(shapes[0][0]) != 1:
        problems += [f"{key} is {list(shape)}, expected [channels]" for key, shape in found.items()]
        return 0
    return shapes[0][0][0]


def _consecutive(state: State, path: str, kinds: Sequence[str]) -> Iterator[int]:
    i = 0
    while any(f"{path}.bn.{i}.{kind}" in state for kind in kinds):
        yield i
        i += 1
