"""The norms of a state dict: stored in which way, and how many channels each has at every switch or width.

S and AutoSlim networks store a whole batch norm per switch (`PATH.bn.0.weight` and so on), US networks one scale and shift
(`PATH.weight`) and statistics per width (`PATH.bn.0.running_mean`). A norm of a fixed group is an ordinary one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from slimtrain.base.errors import CheckpointError
from slimtrain.base.text import some
from slimtrain.checkpoints.reading import StateDict
from slimtrain.checkpoints.skeleton import NormSite, Sizes
from slimtrain.slimmable.norms import AFFINE, RUNNING


def norm_layout(state: StateDict, norms: Sequence[NormSite], name: str, architecture: str) -> str:
    """`switchable` or `universal`, by what most norms are. CheckpointError for a network with ordinary norms."""

    def kind(path: str) -> str:
        if f"{path}.bn.0.weight" in state:
            return "switchable"
        return "universal" if any(f"{path}.bn.0.{entry}" in state for entry in RUNNING) else "plain"

    layout = Counter(kind(norm.path) for norm in norms).most_common(1)[0][0]
    if layout == "plain":
        raise CheckpointError(
            f"{name}: looks like a {architecture}, but its norms are ordinary ones, not one per switch or width: it is "
            "not a slimmable network's checkpoint, it has one width only."
        )
    return layout


def stored_entries(state: StateDict, norms: Sequence[NormSite], layout: str, name: str, architecture: str) -> list[Sizes]:
    """For every switch or width, in stored order: the size of each norm that stores statistics for it.

    CheckpointError, naming the tensors, where one is missing or differs from the others of its norm.
    """
    kinds = (*AFFINE, *RUNNING) if layout == "switchable" else RUNNING
    switched = [norm.path for norm in norms if any(f"{norm.path}.bn.0.{kind}" in state for kind in kinds)]
    # A norm that is there, but not per switch, is one of a fixed group. A norm that is not there at all is missing.
    shared = [n.path for n in norms if n.path not in switched and any(f"{n.path}.{kind}" in state for kind in RUNNING)]
    counts = Counter(sum(1 for _ in _consecutive(state, path, kinds)) for path in switched)
    number = counts.most_common(1)[0][0]
    problems = [
        f"{path}.{kind} is missing"
        for path in (norm.path for norm in norms if norm.path not in (*switched, *shared))
        for kind in (*(AFFINE if layout == "universal" else ()), *(f"bn.{i}.{k}" for i in range(number) for k in kinds))
    ]
    fixed = {path: _norm_size(state, path, (*AFFINE, *RUNNING), problems) for path in shared}
    entries = [{path: _norm_size(state, f"{path}.bn.{i}", kinds, problems) for path in switched} for i in range(number)]
    if problems:
        raise CheckpointError(f"{name}: looks like a {architecture}, but {some(problems)}. The file is damaged.")
    widest = max(entries, key=lambda entry: sum(entry.values()))
    weights = {path: state[key].numel() for path in switched if (key := f"{path}.weight") in state}
    if all(widest[path] == size for path, size in weights.items()):
        widest.update(fixed)  # above 1.0x the size of a fixed group tells the widest width
    return list(entries)


def _norm_size(state: StateDict, path: str, kinds: Sequence[str], problems: list[str]) -> int:
    """A norm's channels, by most of its tensors; what is missing or unlike the others is added to `problems`."""
    present = {f"{path}.{kind}": tuple(state[f"{path}.{kind}"].shape) for kind in kinds if f"{path}.{kind}" in state}
    problems += [f"{path}.{kind} is missing" for kind in kinds if f"{path}.{kind}" not in present]
    shapes = Counter(present.values()).most_common()
    if len(shapes) > 1:
        tie = shapes[0][1] == shapes[1][1]
        odd = {key: shape for key, shape in present.items() if tie or shape != shapes[0][0]}
        problems += [f"{key} is {list(shape)}, unlike the rest of its norm" for key, shape in odd.items()]
    if not shapes or len(shapes[0][0]) != 1:
        problems += [f"{key} is {list(shape)}, expected [channels]" for key, shape in present.items()]
        return 0
    return shapes[0][0][0]


def _consecutive(state: StateDict, path: str, kinds: Sequence[str]) -> Iterator[int]:
    """The numbers of a norm's entries, from 0 on as far as there is one."""
    i = 0
    while any(f"{path}.bn.{i}.{kind}" in state for kind in kinds):
        yield i
        i += 1
