"""Single layers of a network as ONNX models, in pairs whose difference is the layer.

A convolution alone in a file is slower than in its network: onnxruntime on a CPU turns its input into another layout and its
output back, which a network does once, and every session costs something. So a layer is measured between neighbours:

    with:     image -> 1x1 convolution to the layer's input channels, ReLU -> COPIES x (layer, activation -> probe) -> joined
    without:  the same, but for the layers

and (with - without) / COPIES is its time. A probe is the cheapest thing that reads the layer's result in the layout that it
has: one pixel of each channel. Copies have weights of their own, so that large ones are not in the cache each time, as in a
network, and the layer is most of what is measured. A stem reads the image itself; a linear layer is measured with the global
pool before it.

Measured on US-MobileNet v1 at 224 px (onnxruntime 1.31 on a Xeon with AVX-512): the sum over all layers, each as a model of
its own less an empty one, was 26 to 52 % above the network (2 threads); by differences it was 5 % below at 1.0x and 14 % below
at 0.25x (1 thread). The machine was not quiet, so these are rough. That rest is what `constant_ms` and `factor` of a table
take from whole networks.
"""

from __future__ import annotations

from benchmarks.onnx_models.random_graph import RandomGraph, Value
from slimtrain.costs.layer_shapes import DEPTHWISE, LINEAR, LayerShape
from slimtrain.models.spec import IMAGE_CHANNELS, MOST_IMAGE_CHANNELS

COPIES = 4
ALIGNED = 4  # channels in whole multiples of this stay in onnxruntime's own layout


def image_channels(layer: LayerShape) -> int:
    """The channels of the images that a layer's models take: those that a stem reads, else any."""
    return layer.inp if isinstance(layer.inp, int) and reads_images(layer) else IMAGE_CHANNELS


def reads_images(layer: LayerShape) -> bool:
    """Whether a layer is a stem: no plan slims what it reads, and there are as few channels as images have."""
    return isinstance(layer.inp, int) and layer.inp <= MOST_IMAGE_CHANNELS


def with_layer(layer: LayerShape, inp: int, out: int, copies: int = COPIES, seed: int = 0) -> bytes:
    """`copies` of `layer` at `inp` and `out` channels, side by side: [batch, channels, height, width] -> [batch, features],
    the channels being those of `image_channels`."""
    graph = RandomGraph(layer.size, seed, image_channels(layer))
    source = _before(graph, layer, inp)
    return _joined(graph, [_copy(graph, layer, source, out) for _ in range(copies)])


def without_layer(layer: LayerShape, inp: int, copies: int = COPIES, seed: int = 0) -> bytes:
    """What `with_layer` has around its layers."""
    graph = RandomGraph(layer.size, seed, image_channels(layer))
    source = _before(graph, layer, inp)
    return _joined(graph, [_probe(graph, source) for _ in range(copies)])


def _before(graph: RandomGraph, layer: LayerShape, inp: int) -> Value:
    """What the layer reads: the image for a stem, else what another convolution made."""
    if reads_images(layer):
        return graph.image
    return graph.activation(graph.conv(graph.image, inp, 1), "relu")


def _copy(graph: RandomGraph, layer: LayerShape, source: Value, out: int) -> Value:
    if layer.kind == LINEAR:
        return graph.linear(source, out)
    output = graph.conv(source, out, layer.kernel, layer.stride, depthwise=layer.kind == DEPTHWISE)
    return _probe(graph, graph.activation(output, layer.activation))


def _probe(graph: RandomGraph, source: Value) -> Value:
    """One pixel of each channel, [batch, channels, 1, 1]: by a depthwise convolution, which alone reads few channels in
    onnxruntime's layout, or by a pool for counts that have no such layout."""
    if source.channels % ALIGNED == 0:
        return graph.conv(source, source.channels, 1, stride=source.size, depthwise=True)
    return graph.pool(source, "MaxPool", 1, source.size, 0)


def _joined(graph: RandomGraph, values: list[Value]) -> bytes:
    return graph.model(graph.flat(graph.concat(values)))
