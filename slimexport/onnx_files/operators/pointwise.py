"""Arithmetic, comparisons and choices, element by element."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from slimexport.onnx_files.operators.registry import Call, Operand, form
from slimtrain.graph.graph import Value

NOTHING = (
    *(
        "dropout",
        "drop_path",
        "feature_dropout",
        "alpha_dropout",
        "feature_alpha_dropout",
        "native_dropout",
        "contiguous",
        "clone",
        "detach",
    ),
    *("alias", "lift_fresh_copy", "positive"),
)


@form(*NOTHING)
def nothing(call: Call) -> str:
    """What does nothing in evaluation mode, or to values."""
    if call.get("train", call.get("training", False)):
        call.refuse("is in training mode", "Put the module into evaluation mode: .eval().")
    return call.name(call.x)


@form("to")
def to(call: Call) -> str:
    number = call.out_type
    return call.name(call.x) if call.number_type(call.dtype(call.x)) == number else call.cast(call.x, number)


UNARY = {
    **{
        kind: kind.capitalize()
        for kind in ("abs", "exp", "log", "sqrt", "reciprocal", "neg", "floor", "ceil", "sign", "round")
    },
    **{kind: kind.capitalize() for kind in ("sin", "cos", "tan", "sinh", "cosh", "asin", "acos", "atan", "asinh", "acosh")},
    **{kind: kind.capitalize() for kind in ("atanh", "erf")},
    "isnan": "IsNaN",
    "isinf": "IsInf",
    "logical_not": "Not",
    "bitwise_not": "Not",
}


@form(*UNARY)
def unary(call: Call) -> str:
    operator = UNARY[call.kind]
    if call.kind == "bitwise_not" and call.dtype(call.x) != "bool":
        call.refuse("of whole numbers has no form before opset 18")
    if call.get("decimals"):
        call.refuse("to decimals has no form in opset 17")
    return call.emit(operator, call.typed(call.x, np.bool_ if operator == "Not" else _argument_type(call)))


def _argument_type(call: Call) -> Any:
    """Functions of whole numbers are computed on floating ones, but for those that keep them whole."""
    return call.out_type if call.out_type is not np.bool_ else call.number_type(call.dtype(call.x))


@form("rsqrt")
def rsqrt(call: Call) -> str:
    return call.emit("Reciprocal", call.emit("Sqrt", call.typed(call.x, call.out_type)))


@form("square")
def square(call: Call) -> str:
    return call.emit("Mul", call.x, call.x)


@form("log1p")
def log1p(call: Call) -> str:
    return call.emit("Log", call.emit("Add", call.x, 1.0))


@form("expm1")
def expm1(call: Call) -> str:
    return call.emit("Sub", call.emit("Exp", call.x), 1.0)


@form("log2", "log10")
def logarithm(call: Call) -> str:
    return call.emit("Mul", call.emit("Log", call.x), 1 / math.log(2 if call.kind == "log2" else 10))


@form("exp2")
def exp2(call: Call) -> str:
    return call.emit("Pow", 2.0, call.x)


@form("trunc", "fix")
def trunc(call: Call) -> str:
    return _truncated(call, call.x)


def _truncated(call: Call, x: Operand) -> str:
    return call.emit("Mul", call.emit("Sign", x), call.emit("Floor", call.emit("Abs", x)))


BINARY = {
    "add": "Add",
    **dict.fromkeys(("sub", "subtract"), "Sub"),
    **dict.fromkeys(("mul", "multiply"), "Mul"),
    **dict.fromkeys(("div", "divide", "true_divide"), "Div"),
    **dict.fromkeys(("maximum", "fmax"), "Max"),
    **dict.fromkeys(("minimum", "fmin"), "Min"),
}


@form(*BINARY)
def binary(call: Call) -> str:
    number = call.out_type
    if number is np.bool_:
        return call.emit("And" if BINARY[call.kind] == "Mul" else "Or", _first(call), call["other"])
    first, second = call.typed(_first(call), number), call.typed(call["other"], number)
    alpha = call.get("alpha", 1)
    if alpha != 1:
        second = call.emit("Mul", second, np.asarray(alpha, number))
    result = call.emit(BINARY[call.kind], first, second)
    rounding = call.get("rounding_mode")
    if rounding and number is not np.float32:
        if rounding == "trunc":  # as ONNX divides whole numbers
            return result
        call.refuse("of whole numbers with a rounding mode has no form here")
    if rounding == "floor":
        return call.emit("Floor", result)
    return _truncated(call, result) if rounding == "trunc" else result


def _first(call: Call) -> Any:
    return call["self"] if "self" in call.action.arguments else call["input"]


@form("rsub")
def rsub(call: Call) -> str:
    x: Operand = call.typed(call.x, call.out_type)
    if call.get("alpha", 1) != 1:
        x = call.emit("Mul", x, np.asarray(call["alpha"], call.out_type))
    return call.emit("Sub", call.typed(call["other"], call.out_type), x)


@form("floor_divide")
def floor_divide(call: Call) -> str:
    if call.out_type is not np.float32:
        call.refuse("of whole numbers has no form here")
    return call.emit("Floor", call.emit("Div", *(call.typed(call[name], np.float32) for name in ("self", "other"))))


@form("remainder", "fmod")
def remainder(call: Call) -> str:
    """`remainder` has the sign of the divisor, as ONNX's Mod has for whole numbers; `fmod` that of the dividend."""
    first, second = (call.typed(call[name], call.out_type) for name in ("self", "other"))
    if call.kind == "fmod" or call.out_type is not np.float32:
        return call.emit("Mod", first, second, fmod=int(call.kind == "fmod"))
    whole = call.emit("Floor", call.emit("Div", first, second))
    return call.emit("Sub", first, call.emit("Mul", whole, second))


@form("pow")
def power(call: Call) -> str:
    base, exponent = call["self"], call["exponent"]
    if exponent == 2:
        x = call.typed(base, call.out_type)
        return call.emit("Mul", x, x)
    if exponent == 0.5:
        return call.emit("Sqrt", call.typed(base, call.out_type))
    return call.emit("Pow", call.typed(base, call.out_type), call.typed(exponent, call.out_type))


@form("addcmul", "addcdiv")
def addc(call: Call) -> str:
    product = call.emit("Mul" if call.kind == "addcmul" else "Div", call["tensor1"], call["tensor2"])
    if call.get("value", 1) != 1:
        product = call.emit("Mul", product, float(call["value"]))
    return call.emit("Add", call.x, product)


@form("lerp")
def lerp(call: Call) -> str:
    weight = call.typed(call["weight"], np.float32)
    return call.emit("Add", call.x, call.emit("Mul", weight, call.emit("Sub", call["end"], call.x)))


@form("clamp", "clip", "clamp_min", "clamp_max")
def clamp(call: Call) -> str:
    low, high = call.get("min"), call.get("max")
    number = call.out_type
    if isinstance(low, Value) or isinstance(high, Value):
        x = call.operand(call.typed(call.x, number))
        x = call.emit("Max", x, call.typed(low, number)) if low is not None else x
        return call.emit("Min", x, call.typed(high, number)) if high is not None else x
    bounds = [None if bound is None else np.asarray(bound, number) for bound in (low, high)]
    if low is not None and high is not None and low > high:  # torch gives the upper bound, ONNX leaves it open
        bounds[0] = bounds[1]
    return call.emit("Clip", call.typed(call.x, number), *bounds)


COMPARISONS = {"eq": "Equal", "ne": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual"}


@form(*COMPARISONS, *("less", "less_equal", "greater", "greater_equal", "not_equal"))
def comparison(call: Call) -> str:
    kind = {"less": "lt", "less_equal": "le", "greater": "gt", "greater_equal": "ge", "not_equal": "ne"}.get(
        call.kind, call.kind
    )
    number = _common(call, call["self"], call["other"])
    operands = [call.typed(call[name], number) for name in ("self", "other")]
    result = call.emit(COMPARISONS[kind], *operands)
    return call.emit("Not", result) if kind == "ne" else result


def _common(call: Call, *arguments: Any) -> Any:
    """The type that arguments are compared in: float32 where one of them is floating."""
    types = [
        call.number_type(call.dtype(a)) if isinstance(a, Value) else np.float32 if isinstance(a, float) else np.int64
        for a in arguments
    ]
    if all(number is np.bool_ for number in types) and call.kind in ("eq", "ne"):
        return np.bool_
    return np.float32 if np.float32 in types else np.int64


LOGICAL = {"and": "And", "or": "Or", "xor": "Xor"}


@form(*(f"{family}_{kind}" for family in ("logical", "bitwise") for kind in LOGICAL), "__and__", "__or__", "__xor__")
def logical(call: Call) -> str:
    if call.out_type is not np.bool_:
        call.refuse("of whole numbers has no form before opset 18")
    return call.emit(
        LOGICAL[call.kind.strip("_").rpartition("_")[2]], *(call.typed(call[n], np.bool_) for n in ("self", "other"))
    )


@form("where")
def where(call: Call) -> str:
    first, second = (call.typed(call[name], call.out_type) for name in ("self", "other"))
    return call.emit("Where", call.typed(call["condition"], np.bool_), first, second)


@form("masked_fill")
def masked_fill(call: Call) -> str:
    return call.emit("Where", call.typed(call["mask"], np.bool_), call.typed(call["value"], call.out_type), call.x)


@form("nan_to_num")
def nan_to_num(call: Call) -> str:
    limits = np.finfo(np.float32)
    low, high = call.get("neginf", limits.min), call.get("posinf", limits.max)
    x = call.emit("Where", call.emit("IsNaN", call.x), float(call.get("nan", 0)), call.x)
    x = call.emit("Where", call.emit("IsInf", x, detect_negative=0), np.float32(high), x)
    return call.emit("Where", call.emit("IsInf", x, detect_positive=0), np.float32(low), x)


@form("threshold")
def threshold(call: Call) -> str:
    above = call.emit("Greater", call.x, float(call["threshold"]))
    return call.emit("Where", above, call.x, float(call["value"]))
