"""Convolutions: ordinary, grouped, depthwise, transposed, of one to three dimensions."""

from __future__ import annotations

import numpy as np

from slimtrain.graph.labels.labelling import Axis, Ids, Labels
from slimtrain.graph.labels.registry import Call, rule

KERNEL = "it is a dimension that a convolution's kernel runs over"
IMAGES = "a convolution reads it, and nothing labels it (image channels, or a fixed input)"


@rule("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def convolution(call: Call) -> list[Labels]:
    run, x, weight = call.run, call.labels("input"), call.labels("weight")
    transposed = bool(call.get("transposed")) or "transpose" in call.node.kind
    groups = int(call.get("groups") or 1)
    if len(x.shape) != len(weight.shape):
        for operand in call.inputs:
            run.pin_all(operand, "a convolution of a single image")
        return [Labels.none(call.shape)]
    for operand in (x, weight):
        for axis in operand.axes[2:]:
            run.pin_axis(axis, KERNEL)
    w_out, w_in = (weight.axes[1], weight.axes[0]) if transposed else weight.axes[:2]
    channels, outputs = x.shape[1], call.shape[1]
    if groups == 1:
        run.match([axis for axis, size in ((x.axes[1], channels), (w_in, channels)) if size > 1], IMAGES)
        out = w_out
    elif transposed:
        out = _transposed_groups(call, x.axes[1], weight, groups)
    elif groups == channels:
        read = x.axes[1] and Axis(np.repeat(x.axes[1].ids, outputs // channels))
        out = run.match([read, w_out], IMAGES)
    else:
        out = _groups(call, x.axes[1], w_out, w_in, groups)
    bias = call.optional("bias")
    if bias is not None and outputs > 1:
        out = run.match([out, bias.axes[0]], "the bias of a convolution whose outputs are fixed")
    return [Labels.along(call.shape, {0: x.axes[0], 1: out})]


def _groups(call: Call, x: Axis | None, w_out: Axis | None, w_in: Axis | None, groups: int) -> Axis | None:
    """Whole groups go (`outer`), or every group gets narrower (`inner`)."""
    run = call.run
    run.notes.add("grouped convolutions")
    outs = w_out.ids.reshape(groups, -1) if w_out else None
    ins = x.ids.reshape(groups, -1) if x else None
    if run.policy.conv_groups == "outer":
        if w_in is not None:
            run.pin(w_in.ids, "it is a channel within a group, and groups are kept whole (--conv-groups inner narrows them)")
        for ids in (outs, ins):
            if ids is not None:
                run.tie(ids, ids[:, :1])
        heads = [Axis(ids[:, 0]) if ids is not None else None for ids in (ins, outs)]
        run.match(heads, IMAGES)
        return w_out if ins is not None else None
    if outs is not None:
        run.tie(outs, outs[:1])
    if ins is not None:
        run.tie(ins, ins[:1])
    if ins is None or ins.shape[1] > 1:
        run.match([Axis(ins[0]) if ins is not None else None, w_in], IMAGES)
    else:  # one channel per group cannot get narrower
        run.pin(ins, "a group of one channel")
    return w_out


def _transposed_groups(call: Call, x: Axis | None, weight: Labels, groups: int) -> Axis | None:
    """The weight is [inputs, outputs of a group, ...]: only whole groups can go, and with one output each they do."""
    run = call.run
    w_in, w_out = weight.axes[:2]
    per_group = call.shape[1] // groups
    run.pin_axis(w_out, "it is a channel within a group of a transposed convolution")
    run.match([x, w_in], IMAGES)
    if x is None:
        return None
    ids: Ids = x.ids.reshape(groups, -1)
    run.tie(ids, ids[:, :1])
    return Axis(np.repeat(ids[:, 0], per_group))


@rule("im2col")
def im2col(call: Call) -> list[Labels]:
    x = call.labels("self")
    axis = x.axes[1] and Axis(np.repeat(x.axes[1].ids, call.shape[1] // x.shape[1]))
    return [Labels.along(call.shape, {1: axis})]


@rule("col2im")
def col2im(call: Call) -> list[Labels]:
    return _to_space(call, 1)


@rule("pixel_shuffle")
def pixel_shuffle(call: Call) -> list[Labels]:
    return _to_space(call, len(call.shape) - 3)


def _to_space(call: Call, dim: int) -> list[Labels]:
    """Several channels make one: they are tied."""
    x, channels = call.labels("self"), call.shape[dim]
    axes = {d: axis for d, axis in enumerate(x.axes) if d < dim}
    axis = x.axes[dim]
    if axis is not None:
        ids = axis.ids.reshape(channels, -1)
        call.run.tie(ids, ids[:, :1])
        axes[dim] = Axis(ids[:, 0])
    return [Labels.along(call.shape, axes)]


@rule("pixel_unshuffle")
def from_space(call: Call) -> list[Labels]:
    x, dim = call.labels("self"), len(call.shape) - 3
    axes = {d: axis for d, axis in enumerate(x.axes) if d < dim}
    axis = x.axes[dim]
    axes[dim] = axis and Axis(np.repeat(axis.ids, call.shape[dim] // x.shape[dim]))
    return [Labels.along(call.shape, axes)]


@rule("channel_shuffle")
def channel_shuffle(call: Call) -> list[Labels]:
    x, groups = call.labels("self"), int(call["groups"])
    if x.axes[1] is None:
        return [x]
    ids = x.axes[1].ids.reshape(groups, -1)
    call.run.tie(ids, ids[:1])
    free = call.run.policy.shuffles == "free"
    if free:
        call.run.reordered.add(call.node.name)
    shuffled = np.tile(ids[0], groups) if free else np.repeat(ids[0], groups)
    return [Labels.along(call.shape, {1: Axis(shuffled, tied=True)})]
