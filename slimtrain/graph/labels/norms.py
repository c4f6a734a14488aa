"""Normalizations."""

from __future__ import annotations

from slimtrain.graph.labels.labelling import Axis, Labels
from slimtrain.graph.labels.registry import Call, rule

PARAMETERS = "a norm's parameters run along a dimension that no parameter stands behind"
AFFINE = ("weight", "bias")


def _with_parameters(call: Call, x: Labels, names: tuple[str, ...]) -> Axis | None:
    """Channels and the parameters that run along them."""
    along = [x.axes[1], *(labels.axes[0] for name in names if (labels := call.optional(name)) is not None)]
    return call.run.match(along, PARAMETERS) if x.shape[1] > 1 else None


@rule("batch_norm", "_native_batch_norm_legit", "instance_norm", "native_batch_norm")
def batch_norm(call: Call) -> list[Labels]:
    x = call.labels("input")
    channels = _with_parameters(call, x, (*AFFINE, "running_mean", "running_var"))
    first = Labels.along(x.shape, {**dict(enumerate(x.axes)), 1: channels})
    return [first, *(Labels.none(shape) for shape in call.shapes[1:])]


@rule("layer_norm", "rms_norm", "native_layer_norm")
def layer_norm(call: Call) -> list[Labels]:
    """Statistics are taken over the last dimensions: over what stays of them."""
    x = call.labels("input")
    count = len(call["normalized_shape"])
    first = len(x.shape) - count
    axes = dict(enumerate(x.axes))
    parameters = [labels for name in AFFINE if (labels := call.optional(name)) is not None]
    for dim in range(first, len(x.shape)):
        if x.shape[dim] > 1:
            axes[dim] = call.run.match([x.axes[dim], *(p.axes[dim - first] for p in parameters)], PARAMETERS)
    if any(axes[dim] is not None for dim in range(first, len(x.shape))):
        call.run.notes.add("norms over channels")
    normalized = Labels.along(x.shape, axes)
    return [normalized, *(Labels.none(shape) for shape in call.shapes[1:])]


@rule("group_norm", "native_group_norm")
def group_norm(call: Call) -> list[Labels]:
    """Groups stay as many, and get narrower: what stands at one place of every group is tied."""
    x, groups = call.labels("input"), int(call["num_groups"])
    channels = x.axes[1]
    if channels is not None and groups not in (1, len(channels)):
        ids = channels.ids.reshape(groups, -1)
        call.run.tie(ids, ids[:1])
    call.run.notes.add("norms over channels")
    axis = _with_parameters(call, x, AFFINE)
    normalized = Labels.along(x.shape, {**dict(enumerate(x.axes)), 1: axis})
    return [normalized, *(Labels.none(shape) for shape in call.shapes[1:])]


@rule("_weight_norm")
def weight_norm(call: Call) -> list[Labels]:
    """A weight's length in every position of one dimension is a parameter (arXiv 1602.07868): it is taken over what stays."""
    v, g = call.labels("v"), call.labels("g")
    axes = dict(enumerate(v.axes))
    for dim, size in enumerate(g.shape):
        if size > 1:
            axes[dim] = call.run.match([v.axes[dim], g.axes[dim]], PARAMETERS)
    return [Labels.along(v.shape, axes)]
