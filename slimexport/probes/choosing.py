"""Probe images that move a network's channels: some that are there anyway, and of others those that move most of the rest.

More images are cheaper: fp32 files are held against the network in float32 on them, and files of fewer bits, wherever they are
verified, against what they gave themselves. They move what probe images leave standing still, and the more of them there are,
the less room is between what roundings do and what is wrong.
"""

from __future__ import annotations

import heapq
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
TURNED = 64  # of a pool, in four ways each: what a trained network's rarest channels answer to is in few images of a hundred


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
    new = {image.tobytes(): image for image in pool if image.tobytes() not in known}  # a pool may hold one twice
    with np.errstate(over="ignore"):
        halves = [image.astype(np.float16) for image in new.values()]
    kept = [image for image in halves if np.isfinite(image).all()][:most]
    return np.stack(kept) if kept else np.empty((0, *images.shape[1:]), np.float16)


def far_reaching(network: SlimmableNetwork, plans: Sequence[ChannelPlan], images: Images, pool: Images) -> Images:
    """A pool for `others`, once with its images turned: those first which move the channels of the widest and the narrowest
    plan farthest from where `images` do, as many as fp32 files are held against. As it is where that is none.

    A channel that hardly any image opens hides the weights that read it; of 256 digits none opened one that a turned one did.
    """
    count = most_exact(pool.shape[1:])
    if not count:
        return pool
    ways = turned(pool[:TURNED])
    every = np.concatenate([images, ways])
    ends = dict.fromkeys((max(plans, key=_size), min(plans, key=_size)))
    reach = joined([reach_of(network, plan, every) for plan in ends])
    first = farthest(reach, len(images), min(count, len(ways)))
    taken = set(first)
    rest = [i for i in range(len(images), len(every)) if i not in taken]
    return np.concatenate([every[first], pool, every[rest]])


def turned(images: Images) -> Images:
    """Images as they are, mirrored, upside down and, square ones, with their axes exchanged; of other inputs than images
    [N, channels, height, width] only as they are."""
    if images.ndim != 4:
        return images
    ways = [images, images[..., ::-1], images[:, :, ::-1]]
    if images.shape[2] == images.shape[3]:
        ways.append(images.swapaxes(2, 3))
    return np.concatenate(ways)


def farthest(reach: Reach, known: int, count: int) -> list[int]:
    """So many images behind the `known` ones, one after the other that which widens the channels' ranges most. Ranges count as
    square roots of their share of all: the first that moves a channel is worth more than one that moves it farther.

    What an image adds never grows with those before it (a concave function of a difference of maximum and minimum is
    submodular), so one that still adds more than the others once added is the best without another look at them.
    """
    low, high = reach.low[:known].min(0), reach.high[:known].max(0)
    whole = np.maximum(reach.high.max(0) - reach.low.min(0), np.finfo(np.float32).tiny)

    def wide(low: Array, high: Array) -> float:
        with np.errstate(invalid="ignore"):  # of a network that computes infinities of some images
            return float(np.sqrt((high - low) / whole).sum())

    def added(image: int) -> float:
        total = wide(np.minimum(low, reach.low[image]), np.maximum(high, reach.high[image])) - before
        return math.inf if math.isnan(total) else total

    before = wide(low, high)

    waiting = [(-added(image), image) for image in range(known, len(reach.low))]
    heapq.heapify(waiting)
    chosen = list[int]()
    while waiting and len(chosen) < count:
        _, image = heapq.heappop(waiting)
        again = (-added(image), image)
        if waiting and again > waiting[0]:
            heapq.heappush(waiting, again)
            continue
        low, high = np.minimum(low, reach.low[image]), np.maximum(high, reach.high[image])
        before = wide(low, high)
        chosen.append(image)
    return chosen


def greedy(reach: Reach, chosen: list[int], most: int) -> list[int]:
    """`chosen` images, and then one after the other the one that moves most of the channels that stand still, as long as too
    many do."""
    chosen = list(chosen)
    while len(chosen) < most and _too_many(reach, np.array(chosen)):
        low, high = reach.low[chosen].min(0), reach.high[chosen].max(0)
        still = np.flatnonzero(~reach.moved(low, high))  # what moves once, moves on
        ranges = np.maximum(high[still], reach.high[:, still]) - np.minimum(low[still], reach.low[:, still])
        moved = (ranges >= reach.visible[still]).sum(1)
        best = int(moved.argmax())
        if not moved[best]:
            break
        chosen.append(best)
    return chosen


def _too_many(reach: Reach, images: Array) -> bool:
    return reach.still(images) > STILL * reach.channels


def _size(plan: ChannelPlan) -> int:
    return sum(plan.channels.values())
