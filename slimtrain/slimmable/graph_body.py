"""A graph as the body of a slimmable network: its parameters under the user's names, sliced by the active plan."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from slimtrain.graph.graph import CONSTANT, PARAMETER, Value
from slimtrain.graph.pieces import Pieces
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan
from slimtrain.slimmable.graph_norms import GraphNorm, graph_norms
from slimtrain.slimmable.norms import PlanNorm, SwitchableNorm, UniversalNorm
from slimtrain.slimmable.program import Operation, Program, Run, keep
from slimtrain.slimmable.stages import Stage, StageInput

WEIGHTED = ("conv", "linear")  # the beginnings of the names of operators that multiply by a weight
PROGRAMS = 64  # plans whose programs are kept at hand: a training step draws from a grid, and comes back to it


class Container(nn.Module):
    """A place for parameters: one step of a user's name for them (`layer3` of `layer3.0.conv2.weight`)."""


class GraphBody(nn.Module):
    """The graph of `spec`, with storage for the widest plan. In training mode dropouts drop and norms take the batch's
    statistics, as in the user's module."""

    def __init__(self, spec: GraphSpec) -> None:
        super().__init__()
        self.spec = spec
        self.of_nodes = graph_norms(spec.graph, spec.groups)
        held: dict[str, list[GraphNorm]] = {}
        for norm in self.of_nodes.values():
            for parameter in norm.stored.values():
                held.setdefault(parameter.name, []).append(norm)
        # Where each parameter that no norm holds is stored: the module, and its name there.
        self.places: dict[str, tuple[nn.Module, str]] = {}
        self.nodes = {p.node: p.name for p in spec.graph.parameters if p.name not in held}
        self.norms: dict[str, PlanNorm] = {}
        self.programs: OrderedDict[tuple[ChannelPlan, torch.dtype], Program] = OrderedDict()
        self.program: Program | None = None
        self.plan = spec.widest
        self.rounding: torch.dtype | None = None  # what the result of every operation is rounded to, where it is tried out
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
            tensor = torch.zeros(parameter.type.at(1), dtype=getattr(torch, parameter.type.dtype))
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

    def decayed(self) -> list[nn.Parameter]:
        """The weights of convolutions, depthwise ones left out, and of linear layers: those that weight decay is for."""
        graph, weights = self.spec.graph, {}
        for node in graph.nodes:
            value = node.arguments.get("weight")
            stored = self.nodes.get(value.node) if isinstance(value, Value) else None
            if stored is None or not node.kind.startswith(WEIGHTED):
                continue
            shape = graph.types[value].shape  # type: ignore[index]
            tensor = self.stored(stored)
            if isinstance(tensor, nn.Parameter) and not (shape[1] == 1 and (node.arguments.get("groups") or 1) != 1):
                weights[stored] = tensor
        return list(weights.values())

    def activate(self, plan: ChannelPlan) -> None:
        number = next((p.dtype for p in self.parameters()), torch.float32)
        key = (plan, number)
        program = self.programs.pop(key, None) or Program.of(self.spec.sizing(plan), number)
        self.programs[key] = self.program = program
        self.plan = plan
        if len(self.programs) > PROGRAMS:
            self.programs.popitem(last=False)

    def forward(self, *images: Tensor) -> Any:
        """What the user's module gives: a tensor, or several in what they stand in."""
        values = {Value(name): x for (name, _), x in zip(self.spec.graph.inputs, images, strict=True)}
        run = Run(images[0].shape[0], self.training, images[0].device)
        for operation in self.ready.operations:
            self._run(operation, values, run)
        return self._outputs(values)

    def _run(self, operation: Operation, values: dict[Value, Tensor], run: Run) -> None:
        """One operation of the active program: what it makes is entered among the values, what nothing reads then goes."""
        node = operation.node
        norm = self.of_nodes.get(node.name)
        if norm is not None:
            values[Value(node.name)] = self.norms[norm.path](values[node.inputs[0]])
        else:
            stored = [value for value in node.inputs if value.node in self.nodes]
            for value in stored:
                name = self.nodes[value.node]
                values[value] = self.ready.sliced(name, self.stored(name))
            keep(values, node, operation(values, run))
            for value in stored:
                values.pop(value, None)
        for value in [Value(node.name, output) for output in range(len(node.outputs))] if self.rounding else ():
            if values[value].is_floating_point():
                values[value] = values[value].to(self.rounding).to(values[value].dtype)
        for value in operation.drops:
            values.pop(value, None)

    def _outputs(self, values: Mapping[Value, Tensor]) -> Any:
        outputs = tuple(
            values[value] if value in values else self._stored_output(value.node) for value in self.spec.graph.outputs
        )
        return self.spec.graph.given(outputs)

    def _stored_output(self, node: str) -> Tensor:
        """A stored tensor that the network gives out as it is."""
        name = self.nodes[node]
        return self.ready.sliced(name, self.stored(name))

    def stages(self) -> Iterator[Stage]:
        """The graph taken apart, a stage for every node. What passes between them are all values that are still read, and
        the images."""
        graph, dims = self.spec.graph, self.spec.groups.dims
        yield Stage(lambda given: StageInput({Value(graph.inputs[0][0]): given.x}, given.x))
        for index, node in enumerate(graph.nodes):
            read = [extent for value in node.inputs if value.node in graph.by_node for extent in dims[value]]
            groups = frozenset[str]().union(*(extent.groups for extent in read if isinstance(extent, Pieces)))
            yield Stage(partial(self._stage, index), groups)
        yield Stage(lambda given: StageInput(self._outputs(given.x)))

    def _stage(self, index: int, given: StageInput) -> StageInput:
        values, images = dict(given.x), given.block_input
        assert images is not None
        self._run(self.ready.operations[index], values, Run(images.shape[0], self.training, images.device))
        return StageInput(values, images)

    @property
    def ready(self) -> Program:
        """The active plan's program, made where a copy has none yet."""
        if self.program is None:
            self.activate(self.plan)
        assert self.program is not None
        return self.program

    def __getstate__(self) -> dict[str, object]:
        """Programs are made again: they hold functions, which no file does."""
        return {**self.__dict__, "programs": OrderedDict(), "program": None}


def _norm(spec: GraphSpec, norm: GraphNorm) -> PlanNorm:
    universal = spec.family == "us"
    module = UniversalNorm(norm.dim, spec.plans, spec.widest) if universal else SwitchableNorm(norm.dim, spec.plans)
    module.eps, module.momentum = norm.eps, norm.momentum
    for name, parameter in module.named_parameters():  # where it has no scale or shift, 1 and 0 stay, and nothing trains them
        if name.rpartition(".")[2] not in norm.stored:
            parameter.requires_grad_(False)
    return module
