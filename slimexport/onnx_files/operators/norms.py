"""Norms: by stored statistics, over channels, over groups of them."""

from __future__ import annotations

import math

import numpy as np

from slimexport.onnx_files.operators.registry import Call, Operand, Shape, form, ints
from slimtrain.graph.folding import BATCH_NORMS
from slimtrain.graph.graph import Value


@form(*BATCH_NORMS)
def batch_norm(call: Call) -> list[str]:
    """One that no layer before it takes in."""
    if call.get("training") or call.optional("running_mean") is None:
        call.refuse(
            "takes statistics of the batch, so that images depend on each other",
            "Give the norm running statistics (track_running_stats=True), or use a group or layer norm.",
        )
    return [_by_statistics(call)] * len(call.action.node.outputs)


def _by_statistics(call: Call) -> str:
    mean, variance = call.value("running_mean"), call.value("running_var")
    channels = _channels(call.shape(mean))
    more = _affine(call, channels)
    return call.emit("BatchNormalization", call.x, *more, mean, variance, epsilon=float(call["eps"]))


def _channels(shape: Shape) -> int:
    (channels,) = shape
    assert isinstance(channels, int), "parameters do not count images"
    return channels


def _affine(call: Call, channels: int) -> list[Operand]:
    """Scale and shift of every channel; 1 and 0 where a norm has none."""
    scale, shift = call.optional("weight"), call.optional("bias")
    return [
        np.ones(channels, np.float32) if scale is None else scale,
        np.zeros(channels, np.float32) if shift is None else shift,
    ]


@form("instance_norm")
def instance_norm(call: Call) -> str:
    if not call.get("use_input_stats", True):
        return _by_statistics(call)
    channels = call.fixed(call.shape(call.x)[1], "takes statistics over")
    return call.emit("InstanceNormalization", call.x, *_affine(call, channels), epsilon=float(call["eps"]))


@form("layer_norm", "native_layer_norm")
def layer_norm(call: Call) -> list[str]:
    sizes = tuple(call["normalized_shape"])
    scale, shift = call.optional("weight"), call.optional("bias")
    operands: list[Operand] = [np.ones(sizes, np.float32) if scale is None else scale, shift]
    result = call.emit("LayerNormalization", call.x, *operands, axis=-len(sizes), epsilon=float(call["eps"]))
    return [result] * len(call.action.node.outputs)


@form("rms_norm")
def rms_norm(call: Call) -> str:
    """x / sqrt(mean(x^2) + eps) * weight."""
    axes = list(range(-len(tuple(call["normalized_shape"])), 0))
    eps = float(call.get("eps", np.finfo(np.float32).eps))
    squares = call.emit("ReduceMean", call.emit("Mul", call.x, call.x), axes=axes, keepdims=1)
    result = call.emit("Div", call.x, call.emit("Sqrt", call.emit("Add", squares, eps)))
    weight = call.optional("weight")
    return result if weight is None else call.emit("Mul", result, weight)


@form("group_norm", "native_group_norm")
def group_norm(call: Call) -> list[str]:
    """[N, C, ...] as [N, groups, rest], an instance norm there, then scale and shift of every channel."""
    x, shape = call.x, call.shape(call.x)
    groups = int(call.get("num_groups", call.get("group", 0)))
    channels, *rest = (call.fixed(size, "takes statistics over") for size in shape[1:])
    inner: Shape = (shape[0], groups, channels // groups * math.prod(rest))
    result = call.emit(
        "InstanceNormalization",
        call.reshape(x, shape, inner),
        np.ones(groups, np.float32),
        np.zeros(groups, np.float32),
        epsilon=float(call["eps"]),
    )
    result = call.reshape(result, inner, shape)
    for operator, parameter in (("Mul", call.optional("weight")), ("Add", call.optional("bias"))):
        if parameter is not None:
            result = call.emit(operator, result, per_channel(call, parameter, len(rest)))
    return [result] * len(call.action.node.outputs)


def per_channel(call: Call, parameter: Value, rest: int) -> str:
    """A parameter [C] as [C, 1, ...], which meets dimension 1."""
    array = call.stored(parameter)
    channels = _channels(call.shape(parameter))
    if array is None:
        return call.reshape(parameter, (channels,), (channels, *(1,) * rest))
    return call.weight(parameter, array.reshape(channels, *(1,) * rest), f"channels{rest}") if rest else call.name(parameter)


@form("linalg_vector_norm", "norm")
def vector_norm(call: Call) -> str:
    order = float(call.get("ord", call.get("p", 2)))
    axes = call.dims(call.get("dim"), call.x)
    keep = int(bool(call.get("keepdim")))
    if order in (1, 2):
        return call.emit("ReduceL1" if order == 1 else "ReduceL2", call.x, axes=axes, keepdims=keep)
    absolute = call.emit("Abs", call.x)
    if math.isinf(order):
        return call.emit("ReduceMax" if order > 0 else "ReduceMin", absolute, axes=axes, keepdims=keep)
    if order == 0:
        call.refuse("counts what is not zero, which has no form here")
    total = call.emit("ReduceSum", call.emit("Pow", absolute, order), ints(*axes), keepdims=keep)
    return call.emit("Pow", total, 1 / order)
