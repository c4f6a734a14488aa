"""Activation functions."""

from __future__ import annotations

import math

import numpy as np

from slimexport.onnx_files.operators.registry import Call, form

NAMED = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "hardswish": "HardSwish",  # its slope and offset, 1/6 and 1/2, are torch's
    "selu": "Selu",
}


@form(*NAMED)
def named(call: Call) -> str:
    return call.emit(NAMED[call.kind], call.x)


@form("hardsigmoid")
def hardsigmoid(call: Call) -> str:
    return call.emit("HardSigmoid", call.x, alpha=1 / 6, beta=0.5)


@form("relu6")
def relu6(call: Call) -> str:
    return call.emit("Clip", call.x, 0.0, 6.0)


@form("hardtanh")
def hardtanh(call: Call) -> str:
    return call.emit("Clip", call.x, float(call["min_val"]), float(call["max_val"]))


@form("leaky_relu", "rrelu")
def leaky_relu(call: Call) -> str:
    """In evaluation the random slope is the mean of its bounds."""
    slope = call["negative_slope"] if call.kind == "leaky_relu" else (call["lower"] + call["upper"]) / 2
    return call.emit("LeakyRelu", call.x, alpha=float(slope))


@form("elu")
def elu(call: Call) -> str:
    if call.get("scale", 1) != 1 or call.get("input_scale", 1) != 1:
        call.refuse("with scales has no form here")
    return call.emit("Elu", call.x, alpha=float(call["alpha"]))


@form("celu")
def celu(call: Call) -> str:
    return call.emit("Celu", call.x, alpha=float(call["alpha"]))


@form("prelu")
def prelu(call: Call) -> str:
    """A slope for every channel, which is dimension 1."""
    weight = call.value("weight")
    (count,) = call.shape(weight) or (1,)
    shape = (count, *(1,) * (call.rank(call.x) - 2))
    return call.emit("PRelu", call.x, call.reshape(weight, call.shape(weight), shape))


@form("gelu")
def gelu(call: Call) -> str:
    x = call.x
    if call.get("approximate", "none") == "tanh":
        cube = call.emit("Mul", call.emit("Mul", call.emit("Mul", x, x), x), 0.044715)
        inner = call.emit("Tanh", call.emit("Mul", call.emit("Add", x, cube), math.sqrt(2 / math.pi)))
    else:
        inner = call.emit("Erf", call.emit("Div", x, math.sqrt(2)))
    return call.emit("Mul", call.emit("Mul", x, call.emit("Add", inner, 1.0)), 0.5)


@form("silu")
def silu(call: Call) -> str:
    return call.emit("Mul", call.x, call.emit("Sigmoid", call.x))


@form("softplus")
def softplus(call: Call) -> str:
    """log(1 + exp(beta x)) / beta; x itself where beta x is beyond the threshold."""
    beta, limit = float(call.get("beta", 1)), float(call.get("threshold", 20))
    scaled = call.name(call.x) if beta == 1 else call.emit("Mul", call.x, beta)
    result = call.emit("Softplus", scaled)
    result = result if beta == 1 else call.emit("Div", result, beta)
    if limit >= 20:  # where log(1 + exp x) is x in float32
        return result
    return call.emit("Where", call.emit("Greater", scaled, limit), call.x, result)


@form("mish")
def mish(call: Call) -> str:
    return call.emit("Mul", call.x, call.emit("Tanh", call.emit("Softplus", call.x)))


@form("log_sigmoid")
def log_sigmoid(call: Call) -> str:
    return call.emit("Neg", call.emit("Softplus", call.emit("Neg", call.x)))


@form("hardshrink", "softshrink")
def shrink(call: Call) -> str:
    limit = float(call["lambd"])
    return call.emit("Shrink", call.x, lambd=limit, bias=limit if call.kind == "softshrink" else 0.0)


@form("logit")
def logit(call: Call) -> str:
    eps = call.get("eps")
    x = call.x if eps is None else call.emit("Clip", call.x, float(eps), 1 - float(eps))
    return call.emit("Log", call.emit("Div", x, call.emit("Sub", 1.0, x)))


@form("softmax", "_softmax", "_safe_softmax")
def softmax(call: Call) -> str:
    return call.emit("Softmax", call.typed(call.x, np.float32), axis=call.dim("dim", call.x))


@form("log_softmax", "_log_softmax")
def log_softmax(call: Call) -> str:
    return call.emit("LogSoftmax", call.typed(call.x, np.float32), axis=call.dim("dim", call.x))


@form("glu")
def glu(call: Call) -> str:
    dim = call.dim("dim", call.x, -1)
    (size,) = call.sizes(call.x, [dim], "splits")
    half, gate = call.several("Split", 2, call.x, np.array([size // 2] * 2, np.int64), axis=dim)
    return call.emit("Mul", half, call.emit("Sigmoid", gate))
