"""Probe images that move a network's channels: some that are there anyway, and of others those that move most of the rest.

More images are cheaper: fp32 files are held against the network in float32 on them, and files of fewer bits, wherever they are
verified, against what they gave themselves. They move what probe images leave standing still, and the more of them there are,
the less room is between what roundings do and what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from slimexport.probes.reach import Reach, joined, reach_of
from slimexport.target.arrays import Array
from slimtrain.data.images import Images
from slimtrain.models.channels import ChannelPlan
from slimtrain.slimmable.network import SlimmableNetwork

STILL = 0.01  # share of the channels that may be moved by no probe image
MORE, MORE_PIXELS = 96, 2**17  # at most, and of all of them together: 2 of 224 x 224, 0.6 MB
MORE_EXACT_PIXELS = 2**15  # of those that the network runs, too: 32 of 32 x 32, none of 224 x 224


@dataclass(frozen=True)
class Chosen:
    """Probe images, and the share of the channels that they leave standing still though others, which were not taken, move
    them, at the worst of the plans that were looked at; and `more`, float16, as `others` takes them."""

    images: Images
    unreached: float = 0.0
    more: Array | None = None


def choose(
    network: SlimmableNetwork, plans: Sequence[ChannelPlan], images: Images, more: Callable[[], Images], most: int
) -> Chosen:
    """`images`, [N, ...] of at least two, and as many of `more` as it takes until at most STILL of the channels stand still at
    the widest and the narrowest of the `plans`, or there are `most`. `more` is asked only where there are too many."""
    ends = list(dict.fromkeys((max(plans, key=_size), min(plans, key=_size))))
    if not any(_too_many(reach_of(network, plan, images), np.arange(len(images))) for plan in ends):
        return Chosen(images)
    pool = np.concatenate([images, more()])
    reaches = [reach_of(network, plan, pool) for plan in ends]
    chosen = greedy(joined(reaches), list(range(len(images))), most)
    every = np.arange(len(pool))
    shares = [(reach.still(np.array(chosen)) - reach.still(every)) / reach.channels for reach in reaches]
    return Chosen(np.ascontiguousarray(pool[chosen]), max(shares))


def most_others(shape: Sequence[int]) -> int:
    """How many images [channels, ...] there may be more."""
    return min(MORE, max(1, MORE_PIXELS // math.prod(shape[1:])))


def most_exact(shape: Sequence[int]) -> int:
    """On how many of these fp32 files are held against the network, for each plan: as many as cost next to nothing."""
    return min(MORE, MORE_EXACT_PIXELS // math.prod(shape[1:]))


def others(images: Images, pool: Images) -> Array:
    """Those of a pool that are not among `images`, float16, as they are kept, as many as they may be."""
    most = most_others(images.shape[1:])
    known = {image.tobytes() for image in images}
    with np.errstate(over="ignore"):
        halves = [image.astype(np.float16) for image in pool if image.tobytes() not in known]
    kept = [image for image in halves if np.isfinite(image).all()][:most]
    return np.stack(kept) if kept else np.empty((0, *images.shape[1:]), np.float16)


def greedy(reach: Reach, chosen: list[int], most: int) -> list[int]:
    """`chosen` images, and then one after the other the one that moves most of the channels that stand still, as long as too
    many do."""
    chosen = list(chosen)
    while len(chosen) < most and _too_many(reach, np.array(chosen)):
        low, high = reach.low[chosen].min(0), reach.high[chosen].max(0)
        moved = reach.moved(np.minimum(low, reach.low), np.maximum(high, reach.high)).sum(1)
        best = int(moved.argmax())
        if moved[best] <= reach.moved(low, high).sum():
            break
        chosen.append(best)
    return chosen


def _too_many(reach: Reach, images: Array) -> bool:
    return reach.still(images) > STILL * reach.channels


def _size(plan: ChannelPlan) -> int:
    return sum(plan.channels.values())
