"""Int8: quantize-dequantize pairs written into an fp32 ONNX model, with scales measured on images.

Symmetric int8: per-channel weights (a convolution's output channels), per-tensor activations, pairs on the inputs of
weighted operators; at a residual sum on the branch that the convolution before it did not make, so that convolution and
sum fuse. Biases stay float. Convolutions that gain nothing from int8 (under 16 channels in or out, depthwise with a 1x1
kernel) are left alone. The rules are NVIDIA's for TensorRT's explicit quantization.

A model has two emissions: opset 17 with float32 around the pairs, which TensorRT 8.6 reads and onnxruntime runs, and
opset 19 with fp16 around them for TensorRT 10 and later, where types are what the graph says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from slimexport.onnx_files.typed import declare, to_typed
from slimtrain.base.errors import UserError

LEVELS = 127
FLOOR = 1e-6  # of a scale: a channel or tensor that is all zero still needs one above zero
FLOOR_FP16 = 2.0**-14  # the smallest normal fp16 number, for scales that are stored as fp16
LARGEST_FP16 = 65504.0
LEAST_CHANNELS = 16
MAX, PERCENTILE = "max", "percentile"
METHODS = (MAX, PERCENTILE)
PERCENT = 99.99
BINS = 1 << 14
VERSIONS = {False: (17, 8), True: (19, 9)}  # opset and IR version, by `half`
WEIGHTED = ("Conv", "Gemm")
Array = NDArray[Any]
Site = tuple[int, int]  # a node's number and the number of its operand


@dataclass
class Range:
    """What is known of an activation: its largest absolute value, and a histogram of absolute values up to it."""

    largest: float = 0.0
    counts: Array = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def widen(self, values: Array) -> None:
        """Take the largest absolute value of `values` into account."""
        self.largest = max(self.largest, float(np.abs(values).max()))

    def count(self, values: Array) -> None:
        """Add `values` to the histogram; `largest` is known by then."""
        if self.largest > 0:
            bins = (np.abs(values).ravel() * np.float32(BINS / self.largest)).astype(np.int32)
            self.counts += np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)

    def percentile(self, percent: float) -> float:
        """The absolute value that `percent` of all values do not exceed, to the upper edge of its bin."""
        total = self.counts.sum()
        if not total:
            return self.largest
        reached = np.cumsum(self.counts) >= total * percent / 100
        return float((np.argmax(reached) + 1) / BINS * self.largest)


# ---------------------------------------------------------------------------------------------------------- where


def quantized_inputs(model: onnx.ModelProto) -> list[str]:
    """The activations that get a quantize-dequantize pair, in graph order, each once."""
    return list(dict.fromkeys(model.graph.node[number].input[operand] for number, operand in _sites(model.graph)))


def _sites(graph: onnx.GraphProto) -> Iterator[Site]:
    """The operands that are read through a pair, in graph order; a weighted operator's weights go with its operand 0."""
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    made_by = {output: node for node in graph.node for output in node.output}
    readers: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    for number, node in enumerate(graph.node):
        if node.op_type in WEIGHTED and _gains(node, shapes):
            yield number, 0
        elif node.op_type == "Add":
            # Operands that a quantized convolution made for this sum alone: one of them takes the sum into itself.
            fusing = [
                operand
                for operand, name in enumerate(node.input)
                if (maker := made_by.get(name)) is not None
                and maker.op_type == "Conv"
                and _gains(maker, shapes)
                and readers[name] == 1
            ]
            if len(fusing) == 2:  # a shortcut with a convolution: it reads the block's input, as the main branch does
                shared = [operand for operand in fusing if readers[made_by[node.input[operand]].input[0]] > 1]
                fusing.remove(shared[0] if len(shared) == 1 else fusing[1])
            if fusing:
                yield number, 1 - fusing[0]


def _gains(node: onnx.NodeProto, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether a weighted operator is worth quantizing."""
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    shape = shapes[node.input[1]]
    if node.op_type == "Gemm":
        assert attributes.get("transB") == 1, "weights [out, in]: scales belong to axis 0"
        return True
    group = attributes.get("group", 1)
    if group > 1 and shape[1] == 1:  # depthwise
        return max(shape[2:]) > 1 and shape[0] >= LEAST_CHANNELS
    return min(shape[0] // group, shape[1]) >= LEAST_CHANNELS


# ------------------------------------------------------------------------------------------------------ how widely


def measure_ranges(model: onnx.ModelProto, batches: Iterable[NDArray[np.float32]], names: Sequence[str]) -> dict[str, Range]:
    """The ranges of the activations `names` over `batches`, each float32 [N, 3, H, W], run in onnxruntime on the CPU.

    The batches are gone through twice, so they are kept. UserError where there are none, or a value is not finite.
    """
    kept = [np.asarray(batch) for batch in batches]
    if not kept:
        raise UserError("there are no images to calibrate int8 with. Give a folder that has some with --calibration-data.")
    (image,) = (value.name for value in model.graph.input)
    outputs = [name for name in names if name != image]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs)
    session = _session(probe) if outputs else None
    ranges = {name: Range() for name in names}

    def every() -> Iterator[tuple[str, Array]]:
        for batch in kept:
            if image in ranges:
                yield image, batch
            if session is not None:
                yield from zip(outputs, session.run(outputs, {image: batch}), strict=True)

    for name, values in every():
        if not np.isfinite(values).all():
            raise UserError(
                f"{name}: is not finite on the calibration images, expected finite activations. Check that they are "
                "photographs of the kind that the network was trained on."
            )
        ranges[name].widen(values)
    for name, values in every():
        ranges[name].count(values)
    return ranges


def activation_scales(ranges: Mapping[str, Range], method: str) -> dict[str, float]:
    """Scales by `max` or `percentile` (99.99)."""
    assert method in METHODS, method
    largest = {name: r.largest if method == MAX else r.percentile(PERCENT) for name, r in ranges.items()}
    return {name: max(value / LEVELS, FLOOR) for name, value in largest.items()}


def weight_scales(weight: Array) -> Array:
    """One scale per output channel of a weight [out, ...], above zero for channels that are all zero."""
    largest = np.abs(weight.reshape(len(weight), -1)).max(1)
    return np.maximum(largest / LEVELS, FLOOR).astype(np.float32)


# ----------------------------------------------------------------------------------------------------------- writing


def quantize(model: onnx.ModelProto, scales: Mapping[str, float], half: bool = False) -> onnx.ModelProto:
    """`model` (fp32) with pairs on the activations of `scales` and on the weights that they meet.

    `half`: the emission for TensorRT 10 and later, fp16 tensors and scales at opset 19, input and output float32.
    UserError where weights or activations are larger than fp16 can hold.
    """
    large = [name for name, value in scales.items() if value * LEVELS > LARGEST_FP16]
    if half and large:
        raise UserError(
            f"{large[0]}: activations of up to {scales[large[0]] * LEVELS:.3g} on the calibration images, fp16 holds "
            f"{LARGEST_FP16:.0f}. Use the int8 file with float32 around it, or fp32."
        )
    made = onnx.ModelProto()
    made.CopyFrom(model)
    writer = _Writer(made.graph, FLOOR_FP16 if half else FLOOR)
    sites: dict[int, int] = dict(_sites(model.graph))
    nodes = list(made.graph.node)
    del made.graph.node[:]
    for number, node in enumerate(nodes):
        name = node.input[sites[number]] if number in sites else ""
        if name in scales:
            if node.op_type in WEIGHTED:
                node.input[1] = writer.weight(node.input[1])
            node.input[sites[number]] = writer.pair(name, np.float32(scales[name]))
        made.graph.node.append(node)
    if half:
        made, _ = to_typed(made, "fp16")
    declare(made, "int8-fp16" if half else "int8", *VERSIONS[half])
    return made


class _Writer:
    """Appends pairs to a graph that is being written, one per value however many read it."""

    def __init__(self, graph: onnx.GraphProto, floor: float) -> None:
        self.graph = graph
        self.floor = np.float32(floor)
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.paired: dict[str, str] = {}

    def weight(self, name: str) -> str:
        """A pair on the weights `name` with a scale per output channel; the new name."""
        return self.pair(name, weight_scales(numpy_helper.to_array(self.weights[name])), axis=0)

    def pair(self, name: str, scale: Array | np.float32, **axis: Any) -> str:
        """A pair on `name`; the new name."""
        if name not in self.paired:
            values = np.maximum(scale, self.floor)
            parameters = [f"{name}.scale", f"{name}.zero"]
            for key, array in zip(parameters, (values, np.zeros(values.shape, np.int8)), strict=True):
                self.graph.initializer.append(numpy_helper.from_array(np.asarray(array), key))
            quantized, self.paired[name] = f"{name}.quantized", f"{name}.dequantized"
            for op, read, written in (("Quantize", name, quantized), ("Dequantize", quantized, self.paired[name])):
                self.graph.node.append(helper.make_node(f"{op}Linear", [read, *parameters], [written], name=written, **axis))
        return self.paired[name]


# ------------------------------------------------------------------------------------------------------- which method


@dataclass(frozen=True)
class Choice:
    """A calibration method, its activation scales, and how every method that was tried did on held-back images."""

    method: str
    scales: Mapping[str, float]
    tried: Mapping[str, Agreement]
    images: int
    held: int

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        tried = {
            method: {"logit_distance": found.distance, "top1_agreement": found.top1, "cosine": found.cosine}
            for method, found in self.tried.items()
        }
        return {"method": self.method, "images": self.images, "held_back": self.held, "tried": tried}


@dataclass(frozen=True)
class Agreement:
    """Logits next to the fp32 network's: root mean square of the differences relative to the largest absolute fp32
    logit; share of images with the same largest logit; mean cosine of the angle between both."""

    distance: float
    top1: float
    cosine: float


def agreement(logits: Array, reference: Array) -> Agreement:
    """Of `logits` with `reference`, both [N, classes]; all NaN where a logit is not finite."""
    found, wanted = logits.astype(np.float64), reference.astype(np.float64)
    if not (np.isfinite(found).all() and np.isfinite(wanted).all()):
        return Agreement(np.nan, np.nan, np.nan)
    smallest = np.finfo(np.float64).tiny
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return Agreement(
        distance=float(np.sqrt(np.mean((found - wanted) ** 2)) / max(np.abs(wanted).max(), smallest)),
        top1=float((found.argmax(1) == wanted.argmax(1)).mean()),
        cosine=float(((found * wanted).sum(1) / np.maximum(lengths, smallest)).mean()),
    )


def choose_method(
    model: onnx.ModelProto,
    images_fit: Iterable[NDArray[np.float32]],
    images_held: Iterable[NDArray[np.float32]],
    methods: Sequence[str] = METHODS,
) -> Choice:
    """Calibrate `model` (fp32) on the batches `images_fit` by each of `methods`, and take the one whose int8 logits are
    nearest to the fp32 network's on the batches `images_held`; the first of equals.

    UserError where either has no images, or no method gives finite logits.
    """
    fit, held = list(images_fit), list(images_held)
    if not held:
        raise UserError("no calibration images were held back to compare int8 with fp32 on. Give more of them.")
    ranges = measure_ranges(model, fit, quantized_inputs(model))
    scales = {method: activation_scales(ranges, method) for method in methods}
    reference = _logits(model, held)
    tried = {method: agreement(_logits(quantize(model, scales[method]), held), reference) for method in methods}
    finite = [method for method in methods if np.isfinite(tried[method].distance)]
    if not finite:
        raise UserError("int8: the logits of held-back calibration images are not finite. Export fp32.")
    best = min(finite, key=lambda method: tried[method].distance)
    return Choice(best, scales[best], tried, sum(map(len, fit)), sum(map(len, held)))


def _logits(model: onnx.ModelProto, batches: Sequence[NDArray[np.float32]]) -> Array:
    session = _session(model)
    (image,) = session.get_inputs()
    return np.concatenate([session.run(None, {image.name: batch})[0] for batch in batches])


def _session(model: onnx.ModelProto) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
