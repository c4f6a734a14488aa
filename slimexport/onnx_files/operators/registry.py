"""The table of forms, and what a form is given: a node at a plan, the shapes of what it reads, and a sheet to write on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, Union

import numpy as np
import onnx
from onnx import helper

from slimexport.onnx_files.operators.program import Action, Program
from slimexport.onnx_files.operators.sheet import PENDING, Array, Sheet
from slimtrain.base.errors import UserError
from slimtrain.graph.graph import Batch, Size, Value

Operand = Union[Value, str, float, Array, "np.generic[Any]", None]  # of an ONNX node; a float is a float32, None is left out
Shape = tuple[Size, ...]

# Numbers of any floating type are the file's float32: a narrower type inside the user's module is refused where it is cast to.
NUMPY: dict[str, Any] = {
    "float32": np.float32,
    "float64": np.float32,
    "int64": np.int64,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "uint8": np.uint8,
    "bool": np.bool_,
}
ADVICE = "Write this part of the module with other operators, or leave it out of what is exported."


class NoOnnxForm(UserError):
    """A node that opset 17 has no form for, or none that was written here."""

    exit_code = 2


def refusal(action: Action, why: str, advice: str = ADVICE) -> NoOnnxForm:
    return NoOnnxForm(f"{action.node.place}: {action.node.op} {why}. {advice}")


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


@dataclass
class Call:
    """A node about to be written."""

    action: Action
    program: Program
    sheet: Sheet
    names: dict[Value, str]
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    # -- what it reads

    def __getitem__(self, argument: str) -> Any:
        return self.action.arguments[argument]

    def get(self, argument: str, otherwise: Any = None) -> Any:
        value = self.action.arguments.get(argument)
        return otherwise if value is None else value

    @property
    def kind(self) -> str:
        return self.action.kind

    def value(self, *names: str) -> Value:
        """The first of these arguments that is a value; schemas name the same thing differently."""
        for name in names:
            value = self.action.arguments.get(name)
            if isinstance(value, Value):
                return value
        raise KeyError(names[0])

    def optional(self, name: str) -> Value | None:
        value = self.action.arguments.get(name)
        return value if isinstance(value, Value) else None

    @property
    def x(self) -> Value:
        """What most operators read: their first tensor."""
        return self.value("self", "input", "x")

    def shape(self, value: Value) -> Shape:
        return self.program.shape(self.program.same.get(value, value))

    def rank(self, value: Value) -> int:
        return len(self.shape(value))

    def dtype(self, value: Value) -> str:
        return self.program.dtype(value)

    def result(self, output: int = 0) -> Value:
        return Value(self.action.node.name, output)

    @property
    def out(self) -> Shape:
        """The shape of what it makes."""
        return self.shape(self.result())

    @property
    def out_type(self) -> Any:
        """numpy's type of what it makes."""
        return self.number_type(self.action.node.outputs[0].dtype)

    def number_type(self, dtype: str) -> Any:
        if dtype not in NUMPY:
            self.refuse(f"computes in {dtype}", "Expected a module that computes in float32: build it without half precision.")
        return NUMPY[dtype]

    def dim(self, name: str, value: Value, otherwise: int = 0) -> int:
        """A dimension argument, counted from the front."""
        return int(self.get(name, otherwise)) % max(self.rank(value), 1)

    def dims(self, argument: Any, value: Value) -> list[int]:
        """Dimensions from the front, ascending; all of them where none are given."""
        rank = max(self.rank(value), 1)
        numbers = [argument] if isinstance(argument, int) else list(argument or range(self.rank(value)))
        return sorted(number % rank for number in numbers)

    def fixed(self, size: Size, what: str) -> int:
        """A size that does not count images."""
        if isinstance(size, Batch):
            self.refuse(f"{what} the dimension of the images", "Images of a batch are to be independent of each other.")
        return size

    def sizes(self, value: Value, dims: Sequence[int], what: str = "depends on") -> list[int]:
        shape = self.shape(value)
        return [self.fixed(shape[dim], what) for dim in dims]

    def stored(self, value: Value | None) -> Array | None:
        """The numbers of a value that does not depend on the images, floating ones in float64."""
        stored = None if value is None else self.program.stored.get(value)
        if stored is None:
            return None
        tensor = stored.tensor.detach().cpu()
        return (tensor.double() if tensor.is_floating_point() else tensor).numpy()

    def read(self, output: int) -> bool:
        """Whether anything reads an output."""
        value = self.result(output)
        return bool(self.program.readers.get(value)) or value in self.program.outputs()

    # -- what it writes

    def name(self, value: Value) -> str:
        """What a value is called in the file; a stored tensor is put there when it is first asked for."""
        value = self.program.same.get(value, value)
        if value not in self.names:
            stored = self.program.stored[value]
            array = stored.tensor.detach().cpu().numpy()
            self.names[value] = self.sheet.store(stored.name, array.astype(self.number_type(self.dtype(value)), copy=False))
        return self.names[value]

    def operand(self, operand: Operand) -> str:
        if operand is None:
            return ""
        if isinstance(operand, str):
            return operand
        if isinstance(operand, Value):
            return self.name(operand)
        if isinstance(operand, float | int):
            operand = np.float32(operand)
        return self.sheet.constant(np.asarray(operand))

    def weight(self, value: Value, array: Array, suffix: str = "") -> str:
        """An initializer that holds `array` in place of the stored `value`: transposed, folded. Written once for a suffix."""
        key = (value, suffix)
        if key not in self.sheet.stored:
            self.sheet.stored[key] = self.sheet.store(self.program.stored[value].name, array.astype(np.float32))
        return self.sheet.stored[key]

    def several(self, op: str, count: int, *operands: Operand, **attributes: Any) -> list[str]:
        """A node of `count` outputs."""
        outputs = [f"{PENDING}{self.sheet.pending + place}" for place in range(count)]
        self.sheet.pending += count
        inputs = [self.operand(operand) for operand in operands]
        while inputs and not inputs[-1]:
            inputs.pop()
        self.nodes.append(helper.make_node(op, inputs, outputs, **attributes))
        return outputs

    def emit(self, op: str, *operands: Operand, **attributes: Any) -> str:
        return self.several(op, 1, *operands, **attributes)[0]

    def refuse(self, why: str, advice: str = ADVICE) -> NoReturn:
        raise refusal(self.action, why, advice)

    # -- shapes

    def vector(self, sizes: Shape) -> Operand:
        """Sizes as int64 [rank]: a constant, or computed from the number of images."""
        if not any(isinstance(size, Batch) for size in sizes):
            return ints(*(int(size) for size in sizes if not isinstance(size, Batch)))
        parts: list[Operand] = []
        run: list[int] = []
        for size in (*sizes, None):
            if isinstance(size, int):
                run.append(size)
                continue
            if run:
                parts.append(ints(*run))
                run = []
            if isinstance(size, Batch):
                images = self.sheet.images()
                parts.append(images if size.factor == 1 else self.emit("Mul", images, ints(size.factor)))
        return parts[0] if len(parts) == 1 else self.emit("Concat", *parts, axis=0)

    def reshape(self, x: Operand, source: Shape, shape: Shape) -> str:
        """`x` of shape `source` under another one."""
        if source == shape:
            return self.operand(x)
        if 0 in shape:
            self.refuse("makes an empty tensor")
        target = [
            size if not isinstance(size, Batch) else 0 if dim < len(source) and source[dim] == size else -1
            for dim, size in enumerate(shape)
        ]
        return self.emit("Reshape", x, ints(*target) if target.count(-1) < 2 else self.vector(shape))

    def transpose(self, x: Operand, order: Sequence[int]) -> str:
        order = list(order)
        return self.operand(x) if order == sorted(order) else self.emit("Transpose", x, perm=order)

    def expand(self, x: Operand, source: Shape, shape: Shape) -> str:
        """`x` of shape `source` broadcast to another one: sizes that stay are 1 there, so that only new ones are computed."""
        source = (1,) * (len(shape) - len(source)) + tuple(source)
        if source == shape:
            return self.reshape(x, source, shape)
        return self.emit("Expand", x, self.vector(tuple(1 if a == b else b for a, b in zip(source, shape, strict=True))))

    def slice(self, x: Operand, dim: int, start: int, end: int, step: int = 1) -> str:
        return self.emit("Slice", x, ints(start), ints(end), ints(dim), ints(step) if step != 1 else None)

    def cast(self, x: Operand, number: Any) -> str:
        return self.emit("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(number)))

    def typed(self, argument: Any, number: Any) -> Operand:
        """A value or a plain number as an operand of numpy's type `number`."""
        if isinstance(argument, Value):
            return argument if self.number_type(self.dtype(argument)) == number else self.cast(argument, number)
        if isinstance(argument, Batch):
            self.refuse("computes with the number of images")
        return np.asarray(argument, number)


# A form: writes the nodes of an operator, and says what its outputs are called. One that does nothing gives its input's name.
Form = Callable[[Call], "str | list[str]"]
FORMS: dict[str, Form] = {}


def form(*kinds: str) -> Callable[[Form], Form]:
    """Enter a function as the form of operators."""

    def enter(function: Form) -> Form:
        for kind in kinds:
            assert kind not in FORMS, kind
            FORMS[kind] = function
        return function

    return enter
