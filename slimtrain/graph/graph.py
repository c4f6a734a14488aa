"""The graph: nodes (operator, arguments, what they make), and the parameters they read. Plain values, no torch.

Operators are PyTorch's ATen ones by name (`conv2d`, `batch_norm`, `add.Tensor`), arguments bear the names of their schemas and
are complete: an argument that was left out holds its default. A graph is in evaluation mode and functional: no node changes
what another made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:  # numpy takes longer to load than all else here
    from numpy.typing import NDArray

from slimtrain.graph.structure import Structure, usual_structure


@dataclass(frozen=True)
class Batch:
    """A size that is `factor` times the batch: 1 for images, the number of windows where windows stand in the batch."""

    factor: int = 1

    def at(self, batch: int) -> int:
        return self.factor * batch


Size = int | Batch


@dataclass(frozen=True)
class Value:
    """What a node makes, as an argument of another: the node's name, and which of its outputs."""

    node: str
    output: int = 0


# An argument: a value, a plain number, text, a size, or a list of these. `dtype`s are text (`float32`), devices do not occur.
Argument: TypeAlias = "Value | Batch | int | float | bool | str | tuple[Argument, ...] | None"


@dataclass(frozen=True)
class TensorType:
    """Shape and number type of a tensor."""

    shape: tuple[Size, ...]
    dtype: str = "float32"

    def at(self, batch: int) -> tuple[int, ...]:
        """The shape with `batch` images."""
        return tuple(size.at(batch) if isinstance(size, Batch) else size for size in self.shape)

    @property
    def floating(self) -> bool:
        return "float" in self.dtype


@dataclass(frozen=True)
class Node:
    """One operation. `module`: the path of the user's module that runs it (`layer3.0.conv2`); `line`: where, as
    `resnet.py:93`."""

    name: str
    op: str
    arguments: Mapping[str, Argument]
    outputs: tuple[TensorType, ...]
    module: str = ""
    line: str = ""

    @cached_property
    def kind(self) -> str:
        """The operator without its overload: `add` of `add.Tensor`."""
        return self.op.split(".")[0]

    @cached_property
    def inputs(self) -> tuple[Value, ...]:
        """Every value that it reads, in the order of its arguments."""
        return tuple(values_of(tuple(self.arguments.values())))

    @property
    def place(self) -> str:
        """Where it stands, as a message says it: `layer3.0.conv2 (resnet.py:93)`."""
        where = self.module or "the network"
        return f"{where} ({self.line})" if self.line else where


def values_of(argument: Argument) -> Iterator[Value]:
    """The values within an argument."""
    if isinstance(argument, Value):
        yield argument
    elif isinstance(argument, tuple):
        for part in argument:
            yield from values_of(part)


PARAMETER, STATISTIC, CONSTANT = "parameter", "statistic", "constant"


@dataclass(frozen=True)
class Parameter:
    """A stored tensor: what is trained, a batch norm's running statistics, or a constant (any other buffer of the module,
    and what was computed while tracing). `name` is the user's (`layer3.0.conv2.weight`); nodes read it as `Value(node)`."""

    node: str
    name: str
    type: TensorType
    kind: str = PARAMETER


@dataclass(frozen=True)
class Graph:
    """A network. `inputs` and `outputs` are what it takes and gives; `nodes` stand in the order in which they run.
    `constants`: name -> array, of the parameters that are some. `structure`: what the outputs stand in, None where that is
    nothing, or a tuple of them."""

    inputs: tuple[tuple[str, TensorType], ...]
    parameters: tuple[Parameter, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Value, ...]
    constants: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False, compare=False)
    structure: Structure | None = None
    by_name: Mapping[str, Node] = field(init=False, repr=False, compare=False)
    form: Structure = field(init=False, repr=False, compare=False)  # `structure`, or what None stands for

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {node.name: node for node in self.nodes})
        object.__setattr__(self, "form", self.structure or usual_structure(len(self.outputs)))

    @cached_property
    def results(self) -> tuple[tuple[str, TensorType], ...]:
        """What it gives out: names, as files have them, and types."""
        return tuple((name, self.types[value]) for name, value in zip(self.form.names, self.outputs, strict=True))

    @cached_property
    def classifies(self) -> bool:
        """Whether it gives logits [N, classes] and nothing else."""
        (_, type_), *others = self.results
        sizes = type_.shape
        return not others and len(sizes) == 2 and sizes[0] == Batch() and isinstance(sizes[1], int) and type_.floating

    def given(self, outputs: Sequence[Any]) -> Any:
        """Outputs as the module gives them, in their dictionaries, tuples and lists. Logits of a classifier stand alone,
        whatever they stood in: that is what trains and tests classifiers."""
        return outputs[0] if self.classifies else self.form.filled(outputs)

    @cached_property
    def types(self) -> dict[Value, TensorType]:
        """The type of every value: of inputs, parameters and nodes."""
        types = {Value(name): type_ for name, type_ in self.inputs}
        types |= {Value(parameter.node): parameter.type for parameter in self.parameters}
        for node in self.nodes:
            types |= {Value(node.name, index): type_ for index, type_ in enumerate(node.outputs)}
        return types

    @cached_property
    def by_node(self) -> dict[str, Parameter]:
        """Parameters by the name under which nodes read them."""
        return {parameter.node: parameter for parameter in self.parameters}

    @cached_property
    def last_use(self) -> dict[str, int]:
        """Node or input -> the position of the last node that reads it; the length of `nodes` for outputs."""
        last = {value.node: index for index, node in enumerate(self.nodes) for value in node.inputs}
        return last | {value.node: len(self.nodes) for value in self.outputs}
