"""A slimmable network taken apart into stages, so that plans that begin alike share what is computed before they differ.

Two plans that differ in some channel groups compute the same up to the first layer that reads or writes one of these. Here
a network is a list of stages, a layer each, and what passes between them is the activation and, within a block that is
added to its input, that input. So the part of the network before a stage can run once, at one plan, and the part after
it many times, at many plans. It is the same layers in the same order on tensors of the same shapes as in the network's own
forward pass: the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from slimtrain.models.channels import ChannelPlan, Dim
from slimtrain.search.slimming import changed_groups
from slimtrain.slimmable.blocks import Block, Bottleneck, Network
from slimtrain.slimmable.layers import SlimConv2d, SlimLinear
from slimtrain.slimmable.network import SlimmableNetwork


@dataclass(frozen=True)
class State:
    """Between two stages: the activation, and within a residual block the block's input."""

    x: Tensor
    block_input: Tensor | None = None


@dataclass(frozen=True)
class Stage:
    """`run` computes the next state at the network's active plan. `groups`: those that its convolutions or linear layer read
    or write, none for the norms and activations that follow. A stage with groups leaves its input as it is, so that several
    plans can go on from there; an activation may not."""

    run: Callable[[State], State]
    groups: frozenset[str] = frozenset()


class Stages:
    """The stages of `network`. TypeError for a network of other blocks than those of MobileNets and ResNets."""

    def __init__(self, network: SlimmableNetwork) -> None:
        self.network = network
        body = network.body
        if not isinstance(body, Network) or body.heads:
            raise TypeError(f"{network.spec.name}: has blocks that cannot be taken apart")
        self.stages = [stage for block in body.features for stage in _block_stages(block)]
        self.stages += [_layer(body.pool), _layer(body.flatten), *map(_layer, body.classifier)]

    def first_difference(self, a: ChannelPlan, b: ChannelPlan) -> int:
        """The first stage that computes something else at `b` than at `a`; the last one where the plans are equal."""
        changed = set(changed_groups(a, b))
        return next((i for i, stage in enumerate(self.stages) if stage.groups & changed), len(self.stages) - 1)

    def run(self, state: State, begin: int, end: int) -> State:
        """`state` before stage `begin` -> the state before stage `end`, at the network's active plan."""
        for stage in self.stages[begin:end]:
            state = stage.run(state)
        return state

    def sweep(self, current: ChannelPlan, plans: Sequence[ChannelPlan], images: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The number and the logits [N, classes] of every plan, for images [N, 3, H, W], in the order of where the plans
        begin to differ from `current`. What comes before is computed at `current`, once."""
        firsts = [self.first_difference(current, plan) for plan in plans]
        state, reached = State(images), 0
        for number in sorted(range(len(plans)), key=firsts.__getitem__):
            with self.network.at(current):
                state, reached = self.run(state, reached, firsts[number]), firsts[number]
            with self.network.at(plans[number]):
                logits = self.run(state, reached, len(self.stages)).x
            yield number, logits


def _block_stages(block: nn.Module) -> Iterator[Stage]:
    if isinstance(block, nn.Sequential):
        yield from map(_layer, block)
    elif isinstance(block, Block):
        assert isinstance(block.body, nn.Sequential)
        if block.residual:
            yield Stage(_enter)
        yield from map(_layer, block.body)
        if block.residual:
            yield Stage(_add)
    elif isinstance(block, Bottleneck):
        assert isinstance(block.body, nn.Sequential)
        yield Stage(_enter)
        yield from map(_layer, block.body)
        yield _bottleneck_end(block)
    else:
        raise TypeError(f"{type(block).__name__} cannot be taken apart")


def _layer(module: nn.Module) -> Stage:
    return Stage(lambda state: State(module(state.x), state.block_input), _groups(module))


def _enter(state: State) -> State:
    return State(state.x, state.x)


def _add(state: State) -> State:
    assert state.block_input is not None
    return State(state.block_input + state.x)


def _bottleneck_end(block: Bottleneck) -> Stage:
    """The sum and its activation. The shortcut runs here, last: its output group is that of the body's last convolution,
    which thus comes first."""

    def run(state: State) -> State:
        assert state.block_input is not None
        shortcut = state.block_input if block.shortcut is None else block.shortcut(state.block_input)
        return State(block.relu(state.x + shortcut))

    return Stage(run, frozenset() if block.shortcut is None else _groups(block.shortcut))


def _groups(module: nn.Module) -> frozenset[str]:
    """The groups that the convolutions and linear layers of `module` read or write."""
    dims: list[Dim | int] = []
    for layer in module.modules():
        if isinstance(layer, SlimConv2d):
            dims += [layer.inp, layer.out]
        elif isinstance(layer, SlimLinear):
            dims.append(layer.inp)
    return frozenset(group for dim in dims if isinstance(dim, Dim) for group, _ in dim.terms)
