"""An exported program, read as a graph of ours: functional, its constants computed, every argument by its schema's name."""

from __future__ import annotations

import logging
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from slimtrain.graph.graph import CONSTANT, PARAMETER, STATISTIC, Argument, Batch, Graph, Node, Parameter, TensorType, Value
from slimtrain.tracing.exported import NotExportable, size_of, user_line
from slimtrain.tracing.outputs import exported_structure

log = logging.getLogger(__name__)

IGNORED = ("_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range", "sym_constrain_range_for_size")
CASTS = ("to", "_to_copy", "type_as", "float", "half", "double", "bfloat16")
DECOMPOSED_NORMS = ("_native_batch_norm_legit_no_training",)
SOMETIMES_VIEWS = ("reshape", "contiguous", "to", "flatten", "dropout", "feature_dropout")
CREATING = (
    "new_zeros",
    "new_full",
    "new_ones",
    "new_empty",
    "zeros_like",
    "ones_like",
    "full_like",
    "empty_like",
    "new_empty_strided",
)


@dataclass(frozen=True)
class Traced:
    """A graph, and the tensors that its parameters hold, by name."""

    graph: Graph
    tensors: Mapping[str, Tensor]


def read_program(program: ExportedProgram) -> Traced:
    """`program` as a graph. NotExportable where it branches on values or changes memory in a way that cannot be undone."""
    try:
        return _Reader(program).read()
    except _MemoryChanged as error:  # torch can undo what this reader cannot, at the price of tracing once more
        if any("dropout" in str(node.target) and node.args[1] for node in program.graph.nodes):
            log.warning("%s: torch rewrites it, and leaves its dropouts out: they do not act in training", error)
    try:
        return _Reader(program.run_decompositions({})).read()
    except NotExportable:
        raise
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise NotExportable(f"the exported graph cannot be read: {reason}.") from error


class _MemoryChanged(Exception):
    """A value is read after a view of it was written to, or an operator holds a graph of its own."""


@dataclass
class _Reader:
    program: ExportedProgram
    parameters: list[Parameter] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    inputs: list[tuple[str, TensorType]] = field(default_factory=list)
    # fx node -> what it is here: a value, the values of a tuple, a computed constant, or a plain number
    known: dict[fx.Node, Any] = field(default_factory=dict)
    # fx node -> the fx node whose memory it shares; what was written to, and when
    memory: dict[fx.Node, fx.Node] = field(default_factory=dict)
    stale: set[fx.Node] = field(default_factory=set)

    @cached_property
    def batch(self) -> int:
        """The images that the program was exported with."""
        signature = self.program.graph_signature
        placeholders = {node.name: node for node in self.program.graph.nodes if node.op == "placeholder"}
        return int(placeholders[signature.user_inputs[0]].meta["val"].shape[0])

    def read(self) -> Traced:
        specs = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs}
        outputs: tuple[Value, ...] = ()
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node, specs[node.name])
            elif node.op == "output":
                outputs = self._outputs(node)
            elif node.op == "call_function":
                self._call(node)
            else:  # the graph of a block, such as one without autocast
                raise _MemoryChanged(f"{node.target} is a graph of its own")
        structure = exported_structure(self.program)
        return self._without_unused(
            Graph(tuple(self.inputs), tuple(self.parameters), tuple(self.nodes), outputs, structure=structure)
        )

    def _placeholder(self, node: fx.Node, spec: Any) -> None:
        value = node.meta["val"]
        if spec.kind == InputKind.USER_INPUT:
            if not isinstance(value, Tensor):
                raise NotExportable(f"input {node.name} is no tensor: expected a module that takes one batch of images.")
            self.inputs.append((node.name, self._type(value)))
        else:
            kind = {InputKind.PARAMETER: PARAMETER, InputKind.BUFFER: STATISTIC}.get(spec.kind, CONSTANT)
            tensor = self._stored(spec)
            if kind == CONSTANT and not isinstance(tensor, Tensor):
                raise NotExportable(f"the exported graph holds an object, {spec.target}, that is no tensor.")
            if kind == CONSTANT:
                self.known[node] = tensor.detach().clone()
                return
            self._parameter(node.name, spec.target, tensor, kind)
        self.known[node] = Value(node.name)

    def _stored(self, spec: Any) -> Tensor:
        program = self.program
        holder: Mapping[str, Any] = program.constants
        if spec.kind == InputKind.PARAMETER or (spec.kind == InputKind.BUFFER and spec.target in program.state_dict):
            holder = program.state_dict
        tensor: Tensor = holder[spec.target]
        return tensor

    def _parameter(self, node: str, name: str, tensor: Tensor, kind: str) -> None:
        shape = tuple(tensor.shape)  # stored: no size of it counts images
        self.parameters.append(Parameter(node, name, TensorType(shape, _dtype(tensor)), kind))
        self.tensors[name] = tensor.detach()

    def _outputs(self, node: fx.Node) -> tuple[Value, ...]:
        values = []
        kinds = [spec.kind for spec in self.program.graph_signature.output_specs]
        for part, kind in zip(_flat(node.args[0]), kinds, strict=True):
            if kind != OutputKind.USER_OUTPUT or part is None:  # what the module writes to a buffer of its own
                continue
            known = self._constant(part) if isinstance(part, fx.Node) else None
            if not isinstance(known, Value):
                raise NotExportable(
                    f"the network gives out {part!r}, which is no tensor: expected tensors and None, in dictionaries, tuples "
                    "and lists."
                )
            values.append(known)
        if not values:
            raise NotExportable("the network gives out no tensor: expected one at least.")
        return tuple(values)

    def _call(self, node: fx.Node) -> None:
        if node.target is operator.getitem:
            whole, index = node.args
            assert isinstance(whole, fx.Node)
            self.known[node] = self.known[whole][index]
            self.memory[node] = self._root(whole)
            return
        target = node.target
        if not isinstance(target, torch._ops.OpOverload):
            self._other(node)
            return
        kind = target._schema.name.split("::")[1]
        if kind in IGNORED:
            return
        if kind in DECOMPOSED_NORMS:
            self._batch_norm(node, target)
            return
        arguments: dict[str, Any] = _arguments(node, target)
        if self._computable(node, kind):
            self._compute(node, target)
            return
        self._check_memory(node)
        written = self._share_memory(node, target, kind)
        if written is not None:
            kind = kind.removesuffix("_")
        overload = target._overloadname
        if written is not None:  # the same arguments, which may bear other names
            schema = getattr(getattr(torch.ops.aten, kind), overload)._schema
            names = (argument.name for argument in schema.arguments)
            arguments = dict(zip(names, arguments.values(), strict=True))
        if kind in CASTS:  # to whatever it is: a device is none of the graph's concern
            kind, overload = "to", "dtype"
            arguments = {"self": arguments["self"], "dtype": node.meta["val"].dtype, "non_blocking": False, "copy": False}
        values = node.meta["val"]
        single = isinstance(values, Tensor)
        outputs = tuple(self._type(value) for value in ([values] if single else values))
        if kind == "copy" and arguments["src"].meta["val"].dtype == values.dtype:
            # What is written, as large as what it is written to: torch's own operator has no gradient.
            kind, overload = "expand", "default"
            arguments = {"self": arguments["src"], "size": (), "implicit": False}
        op = kind if overload == "default" else f"{kind}.{overload}"
        converted = {name: self._argument(value) for name, value in arguments.items()}
        if kind == "expand" and not converted["size"]:
            converted["size"] = outputs[0].shape
        line = user_line(node.meta.get("stack_trace") or "")
        self.nodes.append(Node(node.name, op, converted, outputs, _module_path(node), line))
        results = [Value(node.name, index) for index in range(len(outputs))]
        self.known[node] = results[0] if single else results
        if written is not None:  # whoever reads what was written to reads the result from now on
            before = self.known[written]
            self.known |= {other: results[0] for other, known in self.known.items() if known == before}

    def _batch_norm(self, node: fx.Node, target: Any) -> None:
        """A batch norm as it is called in graphs whose views torch undid, as in others."""
        given = {name: self._argument(value) for name, value in _arguments(node, target).items()}
        names = ("input", "weight", "bias", "running_mean", "running_var", "momentum", "eps")
        arguments = {name: given[name] for name in names} | {"training": False, "cudnn_enabled": False}
        first, *_ = node.meta["val"]
        line = user_line(node.meta.get("stack_trace") or "")
        self.nodes.append(Node(node.name, "batch_norm", arguments, (self._type(first),), _module_path(node), line))
        self.known[node] = [Value(node.name), None, None]

    def _other(self, node: fx.Node) -> None:
        """Python arithmetic on sizes, which are plain numbers here, and blocks that torch puts around some operators."""
        values = [self.known.get(argument) for argument in node.all_input_nodes]
        if node.meta.get("val") is None and not node.users:
            return
        if all(isinstance(value, int | float | bool) for value in values) and callable(node.target):
            args = fx.node.map_arg(node.args, lambda argument: self.known[argument])
            self.known[node] = node.target(*args)
            return
        raise _MemoryChanged(f"{node.target} holds a graph of its own")  # torch can inline it

    # -- constants: what depends on no parameter and no input is computed now

    def _computable(self, node: fx.Node, kind: str) -> bool:
        if node.meta.get("val") is None or any(isinstance(size_of(n, self.batch), Batch) for n in _sizes(node.meta["val"])):
            return False
        if kind in CREATING:
            return not any(isinstance(self.known[n], Value) for n in node.all_input_nodes[1:])
        return all(isinstance(self.known[n], Tensor | int | float) for n in node.all_input_nodes)

    def _compute(self, node: fx.Node, target: Any) -> None:
        def real(argument: fx.Node) -> Any:
            known = self.known[argument]
            return _like(argument.meta["val"]) if isinstance(known, Value) else known

        positional: Any = fx.node.map_arg(node.args, real)
        named: Any = fx.node.map_arg(node.kwargs, real)
        with torch.no_grad():
            self.known[node] = target(*positional, **{name: _on_cpu(value) for name, value in named.items()})

    def _constant(self, node: fx.Node) -> Any:
        """What a node is, a computed constant being stored as a parameter now that something reads it."""
        known = self.known[node]
        if isinstance(known, Tensor):
            name = node.name
            self._parameter(name, name, known.clone(), CONSTANT)
            self.known[node] = known = Value(name)
        return known

    # -- arguments

    def _argument(self, argument: Any) -> Argument:
        if isinstance(argument, fx.Node):
            known = self._constant(argument)
            return tuple(known) if isinstance(known, list) else known
        if isinstance(argument, list | tuple):
            return tuple(self._argument(part) for part in argument)
        if isinstance(argument, int) and not isinstance(argument, bool):
            return size_of(argument, self.batch)
        if argument is None or isinstance(argument, bool | float | str):
            return argument
        if isinstance(argument, torch.dtype):
            return str(argument).removeprefix("torch.")
        if isinstance(argument, torch.device | torch.layout | torch.memory_format):
            return None
        raise NotExportable(f"an argument of the exported graph is a {type(argument).__name__}, which has no form here.")

    # -- memory: an operator that writes to what it reads becomes one that does not

    def _root(self, node: fx.Node) -> fx.Node:
        return self.memory.get(node, node)

    def _check_memory(self, node: fx.Node) -> None:
        if any(argument in self.stale for argument in node.all_input_nodes):
            raise _MemoryChanged(f"{node.name} reads memory that was written to")

    def _share_memory(self, node: fx.Node, target: Any, kind: str) -> fx.Node | None:
        """Note whose memory a node shares. The node that it writes to, where it does: what else looks at that memory through
        a view is stale afterwards."""
        aliases = [argument.alias_info for argument in target._schema.arguments]
        written = [index for index, alias in enumerate(aliases) if alias is not None and alias.is_write]
        if not written:
            if any(alias is not None for alias in aliases) or kind in SOMETIMES_VIEWS:
                for source in node.all_input_nodes[:1]:
                    self.memory[node] = self._root(source)
            return None
        first = node.args[written[0]]
        assert isinstance(first, fx.Node)
        root, before = self._root(first), self.known[first]
        if not isinstance(before, Value) or root.op == "placeholder":
            raise _MemoryChanged(f"{node.name} writes to what is stored")
        self.stale |= {n for n, known in self.known.items() if self._root(n) is root and known != before}
        self.memory[node] = root
        return first

    def _type(self, value: Tensor) -> TensorType:
        return TensorType(tuple(size_of(int(size), self.batch) for size in value.shape), _dtype(value))

    def _without_unused(self, graph: Graph) -> Traced:
        """The graph without nodes and parameters that nothing reads; buffers that are no running statistics are constants."""
        needed = {value.node for value in graph.outputs}
        kept = []
        for node in reversed(graph.nodes):
            if node.name in needed:
                kept.append(node)
                needed |= {value.node for value in node.inputs}
        statistics = {
            value.node
            for node in kept
            for value in (node.arguments.get("running_mean"), node.arguments.get("running_var"))
            if isinstance(value, Value)
        }
        parameters = []
        for parameter in (p for p in graph.parameters if p.node in needed):
            running = parameter.kind == STATISTIC and parameter.node in statistics
            kind = parameter.kind if running or parameter.kind == PARAMETER else CONSTANT
            parameters.append(replace(parameter, kind=kind))
        constants = {p.name: self.tensors[p.name].numpy() for p in parameters if p.kind == CONSTANT}
        nodes = tuple(reversed(kept))
        graph = replace(graph, parameters=tuple(parameters), nodes=nodes, constants=constants)
        return Traced(graph, {p.name: self.tensors[p.name] for p in parameters})


def _flat(output: Any) -> list[Any]:
    if isinstance(output, list | tuple):
        return [part for item in output for part in _flat(item)]
    return list(output.values()) if isinstance(output, dict) else [output]


def _sizes(value: Any) -> list[int]:
    parts = value if isinstance(value, list | tuple) else [value]
    return [int(size) for part in parts if isinstance(part, Tensor) for size in part.shape]


def _like(value: Tensor) -> Tensor:
    """A tensor of an exported value's number type, for what is created like it."""
    return torch.empty((), dtype=value.dtype).expand(tuple(value.shape))


def _on_cpu(value: Any) -> Any:
    return torch.device("cpu") if isinstance(value, torch.device) else value


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _arguments(node: fx.Node, target: Any) -> dict[str, Any]:
    """Every argument of the schema, in its order."""
    arguments = {}
    for index, argument in enumerate(target._schema.arguments):
        if index < len(node.args):
            arguments[argument.name] = node.args[index]
        elif argument.name in node.kwargs:
            arguments[argument.name] = node.kwargs[argument.name]
        else:
            arguments[argument.name] = argument.default_value if argument.has_default_value() else None
    return arguments


def _module_path(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    return str(paths[-1]).replace("L['self'].", "") if paths else ""
