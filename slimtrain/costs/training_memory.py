"""What training a plan takes of memory: an estimate made before anything is allocated. No torch.

Of every layer, three maps at most wait for the backward pass: what a convolution made (its norm reads it), what the norm made
(the next layer reads it, behind a ReLU in place), and for a ReLU6 a copy of its input. Gradients of maps are short-lived: the
largest few are there at once. Beside them stand the weights, their gradients and the optimizer's momentum.
"""

from __future__ import annotations

from dataclasses import dataclass

from slimtrain.costs.cost import CostCounter
from slimtrain.costs.layer_shapes import network_layers
from slimtrain.groups.costs import graph_maps
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import published
from slimtrain.models.width_spec import WidthSpec

FLOAT = 4  # bytes
COPIES = 4  # of every weight: itself, its gradient, its momentum, and in a step's kernels one in another layout
GRADIENTS = 3  # maps as large as the largest that are there at once in a backward pass
WITHOUT_ACTIVATION, PER_ACTIVATION = 2, {"relu6": 1}  # maps that wait for the backward pass, per layer
SHARED = 48 * 2**20  # bytes of workspaces, whatever the batch
MARGIN = 1.2  # over all of it: what allocators lose. Peaks of ten networks and batches lay 4 to 23 % below the estimate


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that a step takes: `fixed`, and `per_image` for every image that is computed at once."""

    fixed: int
    per_image: int

    def __call__(self, images: int) -> int:
        """Bytes of a step whose parts have so many images."""
        return self.fixed + images * self.per_image

    def images(self, free: int) -> int:
        """The most images that fit into `free` bytes; 0 where none do."""
        return max(0, (free - self.fixed) // self.per_image)


def training_memory(spec: WidthSpec, image_size: int, *, averaged: bool = False, half: bool = False) -> TrainingMemory:
    """Of the widest plan of `spec`, whose step decides the peak: the plans of a step run one after the other. `averaged`:
    with averaged weights beside; `half`: maps of 16 bits, and 16-bit copies of the weights."""
    widest = max(spec.plans, key=lambda plan: sum(plan.channels.values()))
    weights = CostCounter(spec, image_size)(widest).params * FLOAT
    copies = COPIES + averaged + 0.5 * half
    element = FLOAT // 2 if half else FLOAT
    pixels = 3 * image_size**2 * FLOAT
    waiting, largest = _maps(spec, widest, image_size)
    per_image = element * (waiting + GRADIENTS * largest) + 2 * pixels
    return TrainingMemory(round(MARGIN * (SHARED + weights * copies)), round(MARGIN * per_image))


def _maps(spec: WidthSpec, plan: ChannelPlan, image_size: int) -> tuple[int, int]:
    """Elements of one image's maps that wait for the backward pass, and of the largest map that a weighted layer makes."""
    if isinstance(spec, GraphSpec):
        return graph_maps(spec.sizing(plan))
    layers = network_layers(published(spec, "memory"), image_size)
    kept = sum(
        (WITHOUT_ACTIVATION + PER_ACTIVATION.get(layer.activation, 0)) * layer.activations(plan) for layer in layers.weighted
    )
    largest = max(layer.activations(plan) for layer in layers.weighted)
    return kept + sum(pool.elements(plan) for pool in layers.pools), largest


def testing_memory(spec: WidthSpec, image_size: int) -> TrainingMemory:
    """Of the widest plan of `spec` without a backward pass: the largest few maps are there at once."""
    widest = max(spec.plans, key=lambda plan: sum(plan.channels.values()))
    weights = 2 * CostCounter(spec, image_size)(widest).params * FLOAT  # and a copy in another layout
    _, largest = _maps(spec, widest, image_size)
    per_image = (GRADIENTS * largest + 2 * 3 * image_size**2) * FLOAT
    return TrainingMemory(round(MARGIN * (SHARED + weights)), round(MARGIN * per_image))


testing_memory.__test__ = False  # type: ignore[attr-defined]  # pytest is not to take it for a test
