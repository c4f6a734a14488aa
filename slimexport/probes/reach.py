"""Which channels images move: those whose values differ, at some place of some image, by what a proof could see.

A channel that is the same everywhere on all probe images, as one behind a ReLU that never opens, hides what is wrong with it:
two such channels may be exchanged, their weights may be anything, and outputs stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slimexport.target.arrays import Array
from slimtrain.data.images import Images
from slimtrain.graph.graph import Node, Value
from slimtrain.models.channels import ChannelPlan
from slimtrain.slimmable.graph_body import WEIGHTED
from slimtrain.slimmable.network import SlimmableNetwork

SEEN = 1e-3  # of the widest range in its layer: what a channel has to move by
BATCH, LARGE_BATCH, BATCH_VALUES = 8, 64, 2**18  # small images many at a time: calling a layer costs the same for a few
LITTLE_MORE = 1 / 8  # of a batch, which is none of its own
FEW = 16  # places of a map: torch takes longer to look through many short rows than to lay them across


@dataclass(frozen=True)
class Reach:
    """The least and the largest value of every channel that a weighted layer reads, for each image: [images, channels].
    `layers` are the channels of each layer, after each other."""

    low: Array
    high: Array
    layers: tuple[int, ...]

    @property
    def channels(self) -> int:
        return self.low.shape[1]

    def moved(self, low: Array, high: Array) -> Array:
        """Whether channels [..., channels] that are between these values are moved, as much as others of their layer are."""
        return np.asarray(high - low >= self.visible)

    def still(self, images: Array) -> int:
        """How many channels none of these images (indices, or a mask) moves."""
        return int((~self.moved(self.low[images].min(0), self.high[images].max(0))).sum())

    @cached_property
    def visible(self) -> Array:
        """By how much each channel has to move."""
        if not self.layers:
            return np.empty(0)
        ranges = np.split(self.high.max(0) - self.low.min(0), np.cumsum(self.layers)[:-1])
        widest = [np.full(len(part), SEEN * part.max(initial=0.0)) for part in ranges]
        return np.maximum(np.concatenate(widest), np.finfo(np.float32).tiny)  # a layer that stands still is not moved


def joined(parts: list[Reach]) -> Reach:
    """Of the same images, the channels of all parts."""
    low, high = (np.concatenate([getattr(part, name) for part in parts], 1) for name in ("low", "high"))
    return Reach(low, high, tuple(count for part in parts for count in part.layers))


def of_all_images(parts: list[Reach]) -> Reach:
    """Of the same channels, the images of all parts."""
    low, high = (np.concatenate([getattr(part, name) for part in parts]) for name in ("low", "high"))
    return Reach(low, high, parts[0].layers)


@dataclass
class Watcher:
    """Takes down what weighted layers read while a network runs `images` images."""

    images: int
    read: dict[Value, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def __call__(self, node: Node, get: Callable[[Value], Any]) -> None:
        value = node.arguments.get("input")
        if not node.kind.startswith(WEIGHTED) or not isinstance(value, Value) or value in self.read:
            return
        x = get(value)
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 2 or x.shape[0] % self.images:
            return  # such as a layer that makes something of weights alone
        by_channel = x.movedim(-1, 1) if node.kind.startswith("linear") else x
        rows = by_channel.reshape(*by_channel.shape[:2], -1)
        if rows.shape[2] <= FEW:
            across = rows.permute(2, 0, 1).contiguous()
            low, high = across.amin(0), across.amax(0)
        else:
            low, high = rows.amin(2), rows.amax(2)
        of_image = self.images, -1, low.shape[1]  # a network may make several rows of an image, as of its windows
        self.read[value] = low.reshape(of_image).amin(1), high.reshape(of_image).amax(1)

    def reach(self) -> Reach:
        if not self.read:  # a network without weighted layers
            return Reach(np.empty((self.images, 0)), np.empty((self.images, 0)), ())
        low, high = (torch.cat([pair[i] for pair in self.read.values()], 1).double().numpy() for i in (0, 1))
        return Reach(low, high, tuple(pair[0].shape[1] for pair in self.read.values()))


@contextmanager
def watching(network: SlimmableNetwork, images: int) -> Iterator[Watcher]:
    """What weighted layers read in the block, which runs so many images at once, once."""
    watcher = Watcher(images)
    network.body.watch = watcher
    try:
        yield watcher
    finally:
        network.body.watch = None


@torch.inference_mode()
def reach_of(network: SlimmableNetwork, plan: ChannelPlan, images: Images) -> Reach:
    """What images [N, ...] move at a plan."""
    parts = []
    most = min(max(BATCH, BATCH_VALUES // math.prod(images.shape[1:])), LARGE_BATCH)
    batches = max(1, math.ceil(len(images) / most - LITTLE_MORE))  # alike: torch prepares every layer for each other size anew
    size = math.ceil(len(images) / batches)
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        with network.at(plan), watching(network, len(batch)) as watcher:
            network(torch.from_numpy(np.ascontiguousarray(batch)))
        parts.append(watcher.reach())
    return of_all_images(parts)
