"""A graph as the body of a slimmable network: its parameters under the network's own names, sliced by the active plan."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from slimtrain.graph.graph import CONSTANT, PARAMETER, Node, Parameter, Value
from slimtrain.graph.order import Order, results
from slimtrain.graph.recurrence import recurrent_weights
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.width_spec import WidthSpec
from slimtrain.slimmable.graph_norms import GraphNorm, graph_norms
from slimtrain.slimmable.norms import PlanNorm, SharedNorm, SwitchableNorm, UniversalNorm
from slimtrain.slimmable.prepared import Layout, Prepared, Slots, prepared
from slimtrain.slimmable.program import Run
from slimtrain.slimmable.stages import Stage, StageInput

WEIGHTED = ("conv", "linear")  # the beginnings of the names of operators that multiply by a weight
PROGRAMS = 64  # plans whose programs are kept at hand: a training step draws from a grid, and comes back to it
NO_TENSOR = torch.empty(0)
Watch = Callable[[Node, Callable[[Value], Any]], None]  # a node, and what gives a value as it is then


@dataclass(frozen=True)
class Weight:
    """What multiplies: the last node that reads it, its whole shape, and the name of the bias that is added."""

    node: Node
    shape: tuple[int, ...]
    bias: str | None

    @property
    def groups(self) -> int:
        groups = self.node.arguments.get("groups") or 1
        assert isinstance(groups, int)
        return groups

    @property
    def depthwise(self) -> bool:
        return self.groups != 1 and self.shape[1] == 1

    @property
    def linear(self) -> bool:
        return self.node.kind == "linear"


class Container(nn.Module):
    """A place for parameters: one step of a user's name for them (`layer3` of `layer3.0.conv2.weight`)."""


class GraphBody(nn.Module):
    """The graph of `spec`, with storage for the widest plan. In training mode dropouts drop and norms take the batch's
    statistics, as in the user's module. `tensors`: what is stored, by name, and its own from now on; zeros where there is
    none of that shape and type."""

    def __init__(self, spec: WidthSpec, tensors: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.spec = spec
        _ = spec.graph.classifies  # remembered before a compiler sees the graph: it would compile anew once that is there
        self.of_nodes = graph_norms(spec.graph, spec.dims)
        held: dict[str, list[GraphNorm]] = {}
        for norm in self.of_nodes.values():
            for parameter in norm.stored.values():
                held.setdefault(parameter.name, []).append(norm)
        # Where each parameter that no norm holds is stored: the module, and its name there.
        self.places: dict[str, tuple[nn.Module, str]] = {}
        self.nodes = {p.node: p.name for p in spec.graph.parameters if p.name not in held}
        self.norms: dict[str, PlanNorm] = {}
        self.layouts: dict[torch.dtype, Layout] = {}
        self.programs: OrderedDict[tuple[ChannelPlan, torch.dtype, torch.device], Prepared] = OrderedDict()
        self.program: Prepared | None = None
        self.order = Order(spec.graph, spec.dims, frozenset(self.of_nodes))
        # What it gives: slots, or the names of stored tensors.
        self.outputs = [self.nodes.get(value.node, self.order.slots[value]) for value in spec.graph.outputs]
        self.plan = spec.widest
        self.rounding: torch.dtype | None = None  # what the result of every operation is rounded to, where it is tried out
        self.watch: Watch | None = None  # called before every node, where somebody wants to see what it reads
        shared: dict[tuple[str, int], nn.Parameter] = {}
        for parameter in spec.graph.parameters:  # in the graph's order, which is the module's own
            for norm in held.get(parameter.name, ()):
                self._place_norm(norm, shared)
            if parameter.name in held:
                continue
            self.places[parameter.name] = place, name = self._container(parameter.name)
            if parameter.kind == CONSTANT:  # the graph's, no weights
                place._buffers[name] = torch.from_numpy(spec.graph.constants[parameter.name].copy())
                place._non_persistent_buffers_set.add(name)
                continue
            tensor = _storage(parameter, tensors or {})
            if parameter.kind == PARAMETER and tensor.is_floating_point():
                place._parameters[name] = nn.Parameter(tensor)
            else:
                place._buffers[name] = tensor

    def __setattr__(self, name: str, value: object) -> None:
        """Attributes of this class are none of the tables' entries, which may have the same names."""
        object.__setattr__(self, name, value)

    def _place_norm(self, norm: GraphNorm, shared: dict[tuple[str, int], nn.Parameter]) -> None:
        """Make a norm where it is not there yet. Scales and shifts that the user's norms share are one parameter here too."""
        if norm.path in self.norms:
            return
        self.norms[norm.path] = module = _norm(self.spec, norm)
        for entry in ("weight", "bias"):
            owners: list[Any] = [module] if entry in module._parameters else [*module.bn.children()]  # type: ignore[union-attr]
            for index, owner in enumerate(owners):
                if entry in norm.stored:
                    key = norm.stored[entry].name, index
                    owner._parameters[entry] = shared.setdefault(key, owner._parameters[entry])
        place, name = self._container(norm.path)
        inside = place._modules.get(name)
        if inside is not None:  # a norm with parts of its own
            module._modules.update({key: part for key, part in inside._modules.items() if key not in module._modules})
            module._parameters.update({key: part for key, part in inside._parameters.items() if key not in module._parameters})
            self.places = {stored: (module if owner is inside else owner, key) for stored, (owner, key) in self.places.items()}
        place._modules[name] = module

    def _container(self, name: str) -> tuple[nn.Module, str]:
        """The module that holds a name, made where it is not there yet, and the last part of the name. Into its tables things
        are written directly: torch's own functions refuse names that are attributes of this class, which users' may be."""
        place: nn.Module = self
        *path, last = name.split(".")
        for part in path:
            inner = place._modules.get(part)
            if inner is None:
                place._modules[part] = inner = Container()
            place = inner
        return place, last

    def stored(self, name: str) -> Tensor:
        """A parameter or buffer that no norm holds, by the user's name."""
        place, last = self.places[name]
        tensor: Tensor | None = place._parameters.get(last)
        if tensor is None:
            tensor = place._buffers[last]
        assert tensor is not None
        return tensor

    @cached_property
    def weights(self) -> dict[str, Weight]:
        """Name -> weight of a convolution or a linear layer, in the order in which they are stored."""
        graph, readers = self.order.graph, {}
        for node in graph.nodes:
            value = node.arguments.get("weight")
            stored = self.nodes.get(value.node) if isinstance(value, Value) else None
            if stored is not None and node.kind.startswith(WEIGHTED) and isinstance(self.stored(stored), nn.Parameter):
                readers[stored] = node
        weights = {}
        for stored, name in self.nodes.items():
            if name in readers:
                bias = readers[name].arguments.get("bias")
                shape = graph.types[Value(stored)].at(1)
                weights[name] = Weight(readers[name], shape, self.nodes.get(bias.node) if isinstance(bias, Value) else None)
        return weights

    @torch.no_grad()
    def reset(self) -> None:
        """Random weights as torch's own layers begin with (He et al., arXiv 1502.01852, with its gain of 1/3)."""
        for name, weight in self.weights.items():
            bound = 1 / math.sqrt(math.prod(weight.shape[1:]))
            for entry in (name, weight.bias):
                if entry is not None:
                    self.stored(entry).uniform_(-bound, bound)

    def decayed(self) -> list[nn.Parameter]:
        """The weights of convolutions, depthwise ones left out, of linear and of recurrent layers: those that weight decay is
        for."""
        parameters = [self.stored(name) for name, weight in self.weights.items() if not weight.depthwise]
        cells = [value for node in self.order.graph.nodes for value in recurrent_weights(node)]
        parameters += [self.stored(self.nodes[value.node]) for value in dict.fromkeys(cells) if value.node in self.nodes]
        by_identity = {id(parameter): parameter for parameter in parameters if isinstance(parameter, nn.Parameter)}
        return [*by_identity.values()]  # layers may share one

    def activate(self, plan: ChannelPlan) -> None:
        first = next(self.parameters(), NO_TENSOR)
        key = (plan, first.dtype, first.device)
        ready = self.programs.pop(key, None) or prepared(self._layout(first.dtype), self.spec.sizing(plan), first.device)
        self.programs[key] = self.program = ready
        self.plan = plan
        if len(self.programs) > PROGRAMS:
            self.programs.popitem(last=False)

    def _layout(self, number: torch.dtype) -> Layout:
        """What all plans have in common, for a network of this number type."""
        if number not in self.layouts:
            norms = {node: self.norms[norm.path] for node, norm in self.of_nodes.items()}
            places = {name: self._place(name) for name in self.places}
            self.layouts[number] = Layout(self.order, self.spec.sizing(self.spec.widest), norms, places, number)
        return self.layouts[number]

    def _place(self, name: str) -> tuple[dict[str, Any], str]:
        """The table that a stored tensor is in, and its name there."""
        place, last = self.places[name]
        return (place._parameters if last in place._parameters else place._buffers), last

    def forward(self, *images: Tensor) -> Any:
        """What the user's module gives: a tensor, or several in what they stand in."""
        slots = self.begin(*images)
        self.run(slots, images[0], 0, len(self.order.graph.nodes))
        return self.given(slots)

    def begin(self, *images: Tensor | None) -> Slots:
        """The slots of all values, the images in theirs, which are the first; None for an input that comes later."""
        if len(images) != len(self.order.graph.inputs):
            raise TypeError(f"{self.spec.name}: {len(images)} inputs, expected {len(self.order.graph.inputs)}")
        return [*images, *[None] * (len(self.order.graph.types) - len(images))]

    def run(self, slots: Slots, images: Tensor, begin: int, end: int) -> None:
        """Some of the active program's steps, one after the other."""
        run = Run(images.shape[0], self.training, images.device, torch.is_grad_enabled())
        steps = self.ready.steps if end - begin == len(self.ready.steps) else self.ready.steps[begin:end]
        if self.rounding is None and self.watch is None:
            for step in steps:
                step(slots, run)
            return
        for node, step in zip(self.order.graph.nodes[begin:end], steps, strict=True):
            if self.watch is not None:
                self.watch(node, partial(self._read, slots))
            step(slots, run)
            if self.rounding is None:
                continue
            for slot in map(self.order.slots.__getitem__, results(node)):
                if slots[slot] is not None and slots[slot].is_floating_point():
                    slots[slot] = slots[slot].to(self.rounding).to(slots[slot].dtype)

    def _read(self, slots: Slots, value: Value) -> Any:
        """What a value is at the moment."""
        return slots[self.order.slots[value]]

    def given(self, slots: Slots) -> Any:
        """The outputs, once all has run."""
        outputs = [self.sliced(out) if isinstance(out, str) else slots[out] for out in self.outputs]
        return self.order.graph.given(outputs)

    def sliced(self, name: str) -> Tensor:
        """What stays of a stored tensor that no norm holds, by the user's name."""
        return self.ready.cuts[name](self.stored(name))

    def stages(self) -> Iterator[Stage]:
        """The graph taken apart where plans can begin to differ. What passes between stages are the slots of all values."""
        yield Stage(lambda given: StageInput(self.begin(given.x), given.x))
        for span in self.order.spans:
            yield Stage(partial(self._stage, span.begin, span.end), span.groups)
        yield Stage(lambda given: StageInput(self.given(given.x)))

    def _stage(self, begin: int, end: int, given: StageInput) -> StageInput:
        slots, images = [*given.x], given.images
        assert images is not None
        self.run(slots, images, begin, end)
        return StageInput(slots, images)

    @property
    def ready(self) -> Prepared:
        """The active plan's program, made where a copy has none yet."""
        if self.program is None:
            self.activate(self.plan)
        assert self.program is not None
        return self.program

    def __getstate__(self) -> dict[str, object]:
        """Programs are made again: they hold functions, which no file does."""
        return {**self.__dict__, "programs": OrderedDict(), "layouts": {}, "program": None}


def _storage(parameter: Parameter, tensors: Mapping[str, Tensor]) -> Tensor:
    """What a parameter is stored in: its tensor, or zeros."""
    shape, number = parameter.type.at(1), getattr(torch, parameter.type.dtype)
    tensor = tensors.get(parameter.name)
    if tensor is None or tensor.shape != shape or tensor.dtype != number or not tensor.is_contiguous():
        return torch.zeros(shape, dtype=number)
    return tensor


def _norm(spec: WidthSpec, norm: GraphNorm) -> PlanNorm:
    module: PlanNorm
    if norm.dim.groups and norm.dim.groups <= spec.fixed_groups:
        module = SharedNorm(norm.dim, spec.widest)
    elif spec.family == "us":
        module = UniversalNorm(norm.dim, spec.plans, spec.widest)
    else:
        module = SwitchableNorm(norm.dim, spec.plans)
    number = getattr(torch, norm.stored["running_mean"].type.dtype)  # the module's, whatever torch's default is
    module.to(number).eps, module.momentum = norm.eps, norm.momentum
    for name, parameter in module.named_parameters():  # where it has no scale or shift, 1 and 0 stay, and nothing trains them
        if name.rpartition(".")[2] not in norm.stored:
            parameter.requires_grad_(False)
    return module
