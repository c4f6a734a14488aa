"""Positions taken by their numbers."""

from __future__ import annotations

import math

import numpy as np

from slimexport.onnx_files.operators.registry import Call, Operand, Shape, form, ints
from slimexport.onnx_files.operators.sheet import Array
from slimtrain.graph.graph import Value


@form("index", "_unsafe_index")
def index(call: Call) -> str:
    """x[..., numbers, ...]: the indexed dimensions become one, of which the numbers of both together are taken."""
    x, indices = call.x, list(call["indices"])
    where = [dim for dim, part in enumerate(indices) if isinstance(part, Value)]
    shape = call.shape(x)
    if any(call.dtype(indices[dim]) == "bool" for dim in where):
        call.refuse("takes as many positions as a mask says", "Multiply by the mask instead.")
    if len(where) == 1 and call.stored(indices[where[0]]) is None:
        (dim,) = where
        call.sizes(x, [dim], "takes positions of")
        return call.emit("Gather", x, indices[dim], axis=dim)
    numbers: list[Array] = []
    for dim in where:
        array = call.stored(indices[dim])
        if array is None:
            call.refuse("takes positions of several dimensions that the images decide on")
        numbers.append(array)
    sizes = call.sizes(x, where, "takes positions of")
    line = np.zeros((), np.int64)
    for size, number in zip(sizes, numbers, strict=True):
        line = line * size + np.where(number < 0, number + size, number)
    first = where[0]
    operand: Operand = x
    if where != list(range(first, first + len(where))):  # scattered: torch puts what is taken in front
        rest = [dim for dim in range(len(shape)) if dim not in where]
        operand = call.transpose(x, [*where, *rest])
        shape, first = (*sizes, *(shape[dim] for dim in rest)), 0
    joined: Shape = (*shape[:first], math.prod(sizes), *shape[first + len(where) :])
    return call.emit("Gather", call.reshape(operand, shape, joined), line.astype(np.int64), axis=first)


@form("index_select")
def index_select(call: Call) -> str:
    dim = call.dim("dim", call.x)
    call.sizes(call.x, [dim], "takes positions of")
    return call.emit("Gather", call.x, call.value("index"), axis=dim)


@form("gather", "take_along_dim")
def gather(call: Call) -> str:
    numbers = call.value("index", "indices")
    return call.emit("GatherElements", call.x, numbers, axis=call.dim("dim", call.x))


@form("embedding")
def embedding(call: Call) -> str:
    return call.emit("Gather", call.value("weight"), call.value("indices"), axis=0)


@form("unfold")
def unfold(call: Call) -> str:
    """A window that slides along a dimension, as a new last one."""
    dim = call.dim("dimension", call.x)
    (size,) = call.sizes(call.x, [dim], "slides over")
    width, step = int(call["size"]), int(call["step"])
    numbers = np.arange((size - width) // step + 1)[:, None] * step + np.arange(width)
    taken = call.emit("Gather", call.x, numbers.astype(np.int64), axis=dim)
    rank = call.rank(call.x) + 1
    return call.transpose(taken, [*(d for d in range(rank) if d != dim + 1), dim + 1])


@form("diagonal")
def diagonal(call: Call) -> str:
    """Both dimensions become one, of which every so many positions are taken; it comes last."""
    x, shape = call.x, call.shape(call.x)
    first, second = call.dim("dim1", x), call.dim("dim2", x, 1)
    rows, columns = call.sizes(x, [first, second], "takes positions of")
    rest = [dim for dim in range(len(shape)) if dim not in (first, second)]
    offset = int(call.get("offset", 0))
    numbers = [row * columns + row + offset for row in range(rows) if 0 <= row + offset < columns]
    turned = call.transpose(x, [*rest, first, second])
    outer: Shape = tuple(shape[dim] for dim in rest)
    flat = call.reshape(turned, (*outer, rows, columns), (*outer, rows * columns))
    return call.emit("Gather", flat, ints(*numbers), axis=len(rest))


@form("affine_grid_generator")
def affine_grid(call: Call) -> str:
    """Where every place of a map [N, C, H, W] lies under a matrix [N, 2, 3]: -1 and 1 are its edges, or its outer places."""
    theta, size = call.value("theta"), call["size"]
    if len(size) != 4:
        call.refuse("of volumes has no form before opset 20")
    height, width = (call.fixed(side, "places") for side in size[2:])
    ends = [1.0 if call["align_corners"] else 1 - 1 / side for side in (height, width)]
    rows, columns = (
        np.linspace(-end, end, side) if side > 1 else np.zeros(1) for end, side in zip(ends, (height, width), strict=True)
    )
    y, x = np.meshgrid(rows, columns, indexing="ij")
    places = np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3).astype(np.float32)
    moved, images = call.emit("MatMul", places, call.transpose(theta, [0, 2, 1])), call.shape(theta)[0]
    return call.reshape(moved, (images, height * width, 2), (images, height, width, 2))


@form("grid_sampler", "grid_sampler_2d")
def grid_sampler(call: Call) -> str:
    """Modes are torch's numbers: bilinear, nearest, bicubic; zeros, border, reflection."""
    if call.rank(call.x) != 4:
        call.refuse("of volumes has no form before opset 20")
    return call.emit(
        "GridSample",
        call.x,
        call.value("grid"),
        mode=("bilinear", "nearest", "bicubic")[int(call["interpolation_mode"])],
        padding_mode=("zeros", "border", "reflection")[int(call["padding_mode"])],
        align_corners=int(bool(call["align_corners"])),
    )


@form("roi_align")
def roi_align(call: Call) -> str:
    """Rows of regions are (the image's number, x1, y1, x2, y2)."""
    rois = call.value("rois")
    numbers = call.cast(call.reshape(call.slice(rois, 1, 0, 1), (*call.shape(rois)[:1], 1), call.shape(rois)[:1]), np.int64)
    return call.emit(
        "RoiAlign",
        call.x,
        call.slice(rois, 1, 1, 5),
        numbers,
        coordinate_transformation_mode="half_pixel" if call["aligned"] else "output_half_pixel",
        mode="avg",
        output_height=int(call["pooled_height"]),
        output_width=int(call["pooled_width"]),
        sampling_ratio=max(0, int(call["sampling_ratio"])),
        spatial_scale=float(call["spatial_scale"]),
    )


UNORDERED = "orders values, whose ties runtimes order otherwise"


@form("sort")
def sort(call: Call) -> list[str]:
    """A stable sort of which the first positions are read is ONNX's TopK: of equal values it takes the first."""
    dim = call.dim("dim", call.x, -1)
    (size,) = call.sizes(call.x, [dim], "orders")
    if not call.get("stable"):
        call.refuse(UNORDERED, "Give it stable=True.")
    count = max((_leading(call, output, dim, size) for output in range(2) if call.read(output)), default=size)
    return call.several("TopK", 2, call.x, ints(count), axis=dim, largest=int(bool(call["descending"])), sorted=1)


def _leading(call: Call, output: int, dim: int, size: int) -> int:
    """How many positions of a result are read: all, unless slices from its beginning are all that reads it."""
    value = call.result(output)
    counts = [0]
    for action in call.program.readers.get(value, []):
        part = action.arguments
        first = action.kind == "slice" and not part.get("start") and part.get("step", 1) == 1
        end = part.get("end") if first and int(str(part.get("dim", 0))) % call.rank(value) == dim else None
        counts.append(min(end, size) if isinstance(end, int) and end >= 0 else size)
    return size if value in call.program.outputs() else max(counts)


@form("non_maximum_suppression")
def non_maximum_suppression(call: Call) -> str:
    """Which boxes stay, 0 or 1 [B, n], by the operator that gives the numbers of those that do. Scores are ranks, so that no
    two are alike; boxes of a label are a class of theirs."""
    boxes, valid, labels = call.value("boxes"), call.value("valid"), call.optional("labels")
    images, count = call.shape(valid)
    places = call.fixed(count, "suppresses")
    ranks = call.emit("Mul", valid, np.arange(places, 0, -1, dtype=np.float32))
    scores = call.emit("Unsqueeze", ranks, ints(1))  # [B, 1, n]
    if labels is not None:
        classes = np.arange(1, int(call["classes"]) + 1, dtype=np.int64).reshape(-1, 1)
        own = call.cast(call.emit("Equal", call.emit("Unsqueeze", labels, ints(1)), classes), np.float32)
        scores = call.emit("Mul", scores, own)
    chosen = call.emit(
        *("NonMaxSuppression", boxes, scores, ints(places)),
        *(np.asarray([call["threshold"]], np.float32), np.asarray([0.5], np.float32)),
    )  # rows of image, class and box
    pairs = call.emit("Gather", chosen, ints(0, 2), axis=1)
    ones = call.emit("Expand", np.float32(1), call.emit("Gather", call.emit("Shape", chosen), ints(0), axis=0))
    nothing = call.emit("Expand", np.zeros((1, 1), np.float32), call.vector((images, count)))
    return call.emit("ScatterND", nothing, pairs, ones)


PLUGINS = "trt.plugins"  # the domain that onnxruntime knows TensorRT's plugins by; TensorRT's own parser asks for none


@form("efficient_nms")
def efficient_nms(call: Call) -> list[str]:
    """TensorRT's plugin, which no other runtime has; boxes are corners, there is no background among the classes."""
    return call.several(
        "EfficientNMS_TRT",
        4,
        call.value("boxes"),
        call.value("scores"),
        domain=PLUGINS,
        plugin_version="1",
        background_class=-1,
        max_output_boxes=int(call["detections"]),
        score_threshold=float(call["score_threshold"]),
        iou_threshold=float(call["iou_threshold"]),
        score_activation=0,
        class_agnostic=0,
        box_coding=0,
    )


REFUSED = {
    **dict.fromkeys(("topk", "argsort", "kthvalue", "median"), UNORDERED),
    **dict.fromkeys(("nonzero", "unique_dim", "_unique2", "masked_select"), "makes as many numbers as the images decide on"),
    **dict.fromkeys(
        ("bernoulli", "rand_like", "randn_like", "rand", "randn", "multinomial", "uniform"), "draws random numbers"
    ),
    **dict.fromkeys(("_fft_r2c", "_fft_c2c", "_fft_c2r", "fft_rfft2", "fft_irfft2", "fft_fft2"), "is a Fourier transform"),
}


@form(*REFUSED)
def refused(call: Call) -> str:
    call.refuse(REFUSED[call.kind])
