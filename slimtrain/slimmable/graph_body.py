"""A graph as the body of a slimmable network: its parameters under the user's names, sliced by the active plan."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from slimtrain.graph.graph import CONSTANT, Value
from slimtrain.graph.pieces import Pieces
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan
from slimtrain.slimmable.graph_norms import GraphNorm, graph_norms
from slimtrain.slimmable.norms import PlanNorm, SwitchableNorm, UniversalNorm
from slimtrain.slimmable.program import Operation, Program, Run, keep
from slimtrain.slimmable.stages import Stage, StageInput

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
        held = {parameter.name for norm in self.of_nodes.values() for parameter in norm.stored.values()}
        # Where each parameter that no norm holds is stored: the module, and its name there.
        self.places: dict[str, tuple[nn.Module, str]] = {}
        self.nodes = {p.node: p.name for p in spec.graph.parameters if p.name not in held}
        self.norms: dict[str, PlanNorm] = {}
        for parameter in spec.graph.parameters:  # in the graph's order, which is the module's own
            if parameter.name in held:
                self._place_norm(parameter.name.rpartition(".")[0])
                continue
            self.places[parameter.name] = place, name = self._container(parameter.name)
            if parameter.kind == CONSTANT:  # the graph's, no weights
                place._buffers[name] = torch.from_numpy(spec.graph.constants[parameter.name].copy())
                place._non_persistent_buffers_set.add(name)
            else:
                tensor = torch.zeros(parameter.type.at(1), dtype=getattr(torch, parameter.type.dtype))
                place._parameters[name] = nn.Parameter(tensor, requires_grad=tensor.is_floating_point())
        self.programs: OrderedDict[tuple[ChannelPlan, torch.dtype], Program] = OrderedDict()
        self.program = Program.full(spec.graph)

    def _place_norm(self, path: str) -> None:
        if path not in self.norms:
            norm = next(norm for norm in self.of_nodes.values() if norm.path == path)
            self.norms[path] = module = _norm(self.spec, norm)
            place, name = self._container(path)
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

    def activate(self, plan: ChannelPlan) -> None:
        number = next((p.dtype for p in self.parameters()), torch.float32)
        key = (plan, number)
        program = self.programs.pop(key, None) or Program.of(self.spec.sizing(plan), number)
        self.programs[key] = self.program = program
        if len(self.programs) > PROGRAMS:
            self.programs.popitem(last=False)

    def forward(self, *images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What the user's module gives: a tensor, or several."""
        values = {Value(name): x for (name, _), x in zip(self.spec.graph.inputs, images, strict=True)}
        run = Run(images[0].shape[0], self.training, images[0].device)
        for operation in self.program.operations:
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
                values[value] = self.program.sliced(name, self.stored(name))
            keep(values, node, operation(values, run))
            for value in stored:
                values.pop(value, None)
        for value in operation.drops:
            values.pop(value, None)

    def _outputs(self, values: Mapping[Value, Tensor]) -> Tensor | tuple[Tensor, ...]:
        outputs = tuple(values[value] for value in self.spec.graph.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

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
        self._run(self.program.operations[index], values, Run(images.shape[0], self.training, images.device))
        return StageInput(values, images)

    def __getstate__(self) -> dict[str, object]:
        """Programs are made again: they are no part of what a copy or a file needs."""
        return {**self.__dict__, "programs": OrderedDict()}


def _norm(spec: GraphSpec, norm: GraphNorm) -> PlanNorm:
    universal = spec.family == "us"
    module = UniversalNorm(norm.dim, spec.plans, spec.widest) if universal else SwitchableNorm(norm.dim, spec.plans)
    module.eps, module.momentum = norm.eps, norm.momentum
    if "weight" not in norm.stored:  # no scale and shift: they stay at 1 and 0, and nothing trains them
        for parameter in (p for name, p in module.named_parameters()):
            parameter.requires_grad_(False)
    return module
