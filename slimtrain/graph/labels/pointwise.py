"""Operators that compute element by element, or that leave every dimension as it is or resize it."""

from __future__ import annotations

from collections.abc import Iterable

from slimtrain.graph.labels.labelling import Axis, Labels
from slimtrain.graph.labels.registry import Call, rule

UNIFORM = ("zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty")  # what creates one number
UNLABELLED = "it is combined with a tensor that no parameter stands behind"


@rule(
    *(
        "drop_path",
        "abs",
        "add",
        "addcdiv",
        "addcmul",
        "alias",
        "bernoulli",
        "bitwise_and",
        "bitwise_not",
        "bitwise_or",
        "celu",
        "clamp",
    ),
    *(
        "clamp_max",
        "clamp_min",
        "clone",
        "contiguous",
        "copy",
        "cos",
        "detach",
        "detach_",
        "div",
        "dropout",
        "elu",
        "eq",
        "erf",
    ),
    *("exp", "expm1", "feature_dropout", "fill", "floor", "ge", "gelu", "gt", "hardsigmoid", "hardswish", "hardtanh", "le"),
    *("leaky_relu", "lerp", "lift_fresh_copy", "log", "log1p", "log_sigmoid", "logical_and", "logical_not", "logical_or"),
    *("logsigmoid", "lt", "masked_fill", "maximum", "minimum", "mish", "mul", "ne", "neg", "pow", "reciprocal", "relu"),
    *("relu6", "remainder", "round", "rsqrt", "rsub", "selu", "sigmoid", "sign", "silu", "sin", "softplus", "sqrt", "square"),
    *("sub", "tan", "tanh", "threshold", "to", "type_as", "where", "zero", "_to_copy", "float", "half", "bfloat16", "double"),
    *("alpha_dropout", "feature_alpha_dropout", "clip", "true_divide", "multiply", "subtract", "divide", "softsign"),
    *(
        "hardshrink",
        "softshrink",
        "tanhshrink",
        "rrelu",
        "nan_to_num",
        "floor_divide",
        "fmod",
        "square_",
        "sinc",
        "logit",
        "atan",
    ),
)
def pointwise(call: Call) -> list[Labels]:
    return [call.run.broadcast(call.inputs, call.shape, UNLABELLED)]


@rule("prelu")
def prelu(call: Call) -> list[Labels]:
    x, weight = call.labels("self"), call.labels("weight")
    if weight.shape and weight.shape[0] > 1:
        axis = call.run.match([x.axes[1], weight.axes[0]], UNLABELLED)
        return [Labels.along(x.shape, {**dict(enumerate(x.axes)), 1: axis})]
    return [x]


@rule(
    *("max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "avg_pool1d", "avg_pool2d", "avg_pool3d"),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d"),
    *("_adaptive_avg_pool2d", "upsample_nearest1d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"),
    *("upsample_linear1d", "upsample_trilinear3d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "reflection_pad1d"),
    *("reflection_pad2d", "replication_pad1d", "replication_pad2d", "upsample_nearest3d", "_upsample_nearest_exact2d"),
)
def window(call: Call) -> list[Labels]:
    """Pools, resizes and pads run over the last dimensions, whose positions meet each other there."""
    x = call.labels("self", "input")
    over = next(int(digit) for digit in call.node.kind if digit.isdigit())
    return _kept_but(call, x, range(max(len(x.shape) - over, 0), len(x.shape)), "a window runs over it")


@rule("roi_align")
def pooled_regions(call: Call) -> list[Labels]:
    """Regions [R, 5] of maps [N, C, H, W] -> [R, C, h, w]: rows are regions, channels pass."""
    maps, regions = call.labels("input"), call.labels("rois")
    for axis in (*maps.axes[2:], *regions.axes):
        call.run.pin_axis(axis, "a window runs over it")
    return [Labels.along(call.shape, {1: maps.axes[1]})]


@rule("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")
def sampled(call: Call) -> list[Labels]:
    """Places of maps [N, C, ...] that a grid names: channels pass."""
    maps, grid = call.labels("input"), call.labels("grid")
    for axis in (maps.axes[0], *maps.axes[2:], *grid.axes):
        call.run.pin_axis(axis, "places are taken of it")
    return [Labels.along(call.shape, {1: maps.axes[1]})]


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", "softmin", "zeros_like", "ones_like", "empty_like", "full_like")
def keep(call: Call) -> list[Labels]:
    """Every dimension stays what it is; what softmax sums over is what stays."""
    return _kept_but(call, call.labels("self", "input"), (), "")


@rule("cumsum", "cumprod", "sort")
def ordered(call: Call) -> list[Labels]:
    """Along one dimension every position depends on those before it."""
    x = call.labels("self", "input")
    return _kept_but(call, x, (call.dim("dim", len(x.shape), -1),), "its positions depend on their order")


def _kept_but(call: Call, x: Labels, dims: Iterable[int], reason: str) -> list[Labels]:
    """The ids of `x`, but for dimensions that are pinned: `dims`, and what is resized."""
    axes = list(x.axes)
    for dim, axis in enumerate(axes):
        if axis is None:
            continue
        if dim in dims:
            call.run.pin(axis.ids, reason)
            axes[dim] = None
        elif any(dim >= len(shape) or shape[dim] != x.shape[dim] for shape in call.shapes):
            call.run.pin(axis.ids, "it is resized")
    return [_kept(Labels(x.shape, tuple(axes)), shape) for shape in call.shapes]


def _kept(x: Labels, shape: tuple[int, ...]) -> Labels:
    axes: dict[int, Axis | None] = {
        dim: axis for dim, axis in enumerate(x.axes) if dim < len(shape) and shape[dim] == x.shape[dim]
    }
    return Labels.along(shape, axes)


@rule(*UNIFORM)
def create(call: Call) -> list[Labels]:
    """The same number everywhere: its positions are as many as whatever it meets has."""
    (type_,) = call.node.outputs
    sizes = {dim: size for dim, size in enumerate(type_.shape) if isinstance(size, int) and size > 1 and type_.floating}
    return [Labels.along(call.shape, {dim: Axis(call.run.fresh(size).ids, free=True) for dim, size in sizes.items()})]


@rule("scalar_tensor", "arange", "eye", "linspace")
def count(call: Call) -> list[Labels]:
    return [Labels.none(shape) for shape in call.shapes]
