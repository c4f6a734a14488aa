"""Probe images run through a file, in batches, and what it gives of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.errors import BundleError
from slimexport.target.proof.comparing import Comparison, Pair, compare_all, worst
from slimexport.target.reference import Expected, Probes
from slimexport.target.runners import Given, Runner


def run_on_probes(run: Callable[[Array], Given], probes: Probes, batches: Sequence[Array]) -> list[Pair]:
    """What `run` gives for the probe images, in batches of these indices, next to what it should, output by output."""
    chosen = np.concatenate(batches)
    return [
        Pair(expected.name, output, expected.of(len(probes.images), chosen))
        for output, expected in zip(outputs_of(run, probes.images, probes.expected, batches), probes.expected, strict=True)
    ]


def outputs_of(
    run: Callable[[Array], Given], images: Array, like: Sequence[Expected], batches: Sequence[Array]
) -> list[Array]:
    """What `run` gives for images, in batches of these indices: each of the outputs that are `like` these, at their places."""
    parts: list[list[Array]] = [[] for _ in like]
    for chosen in batches:
        given = run(np.ascontiguousarray(images[chosen]))
        for arrays, expected in zip(parts, like, strict=True):
            arrays.append(expected.picked(_output(given, expected.name)))
    return [_joined(arrays) for arrays in parts]


def _output(given: Given, name: str) -> Array:
    """An output by its name. BundleError where a file has no such output."""
    if not isinstance(given, dict):
        return np.asarray(given)
    if name not in given:
        raise BundleError(f"a file gives {', '.join(given)}, its manifest names {name}. Export again.")
    return np.asarray(given[name])


def _joined(arrays: Sequence[Array]) -> Array:
    """Batches after each other; nothing where they do not fit each other, which equals no reference."""
    alike = {array.shape[1:] for array in arrays}
    return np.concatenate(arrays) if len(alike) == 1 and all(array.ndim for array in arrays) else np.empty(0)


def partitions(count: int, most: int | None = None) -> list[list[Array]]:
    """How `count` images are run: each alone, in pairs, all at once, or `most` of them. What an image gives depends on no
    other one, and a file that takes one size of batch only shows it."""
    every = np.arange(count)
    sizes = dict.fromkeys((1, 2, count if most is None else min(most, count)))
    return [[every[start : start + size] for start in range(0, count, size)] for size in sizes]


def run_apart(runner: Runner, probes: Probes) -> list[list[Pair]]:
    """What a file gives of all probe images, for each of their partitions."""
    return [run_on_probes(runner, probes, batches) for batches in partitions(len(probes.images))]


def run_probes(runner: Runner, probes: Probes) -> Comparison:
    """The worst of all partitions."""
    return worst([compare_all(pairs) for pairs in run_apart(runner, probes)])
