"""Latency tables: what a network's layers take on a device at any number of channels, for a search to use as its cost.

No torch. `python -m benchmarks channels` writes them, as JSON. A network's latency is modeled as

    constant_ms + factor * (sum over its layers of the time at the layer's input and output channels)

which takes layers to run one after the other. `constant_ms` is what does not depend on channels, `factor` how much longer
layers take together than by themselves (their weights are not in the cache); both come from whole networks. Tables of single
layers go back to arXiv 1812.00332 (ProxylessNAS), sec. 3.3, and 1812.03443 (FBNet), sec. 3.2.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slimtrain.base.errors import UserError
from slimtrain.base.files import RUN, write_atomically
from slimtrain.base.image_size import ImageSize, as_image_size, format_size, plain_size
from slimtrain.base.text import count
from slimtrain.base.untrusted.json_text import parse_json
from slimtrain.base.untrusted.opening import read_text
from slimtrain.base.untrusted.quoting import quoted, reason
from slimtrain.costs.graph_layers import GraphLayer, graph_layers
from slimtrain.costs.latency_grid import Axis, Times
from slimtrain.costs.layer_shapes import KINDS, LayerShape, layer_shapes
from slimtrain.graph.policy import POLICIES, Policy
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan, Dim
from slimtrain.models.spec import IMAGE_CHANNELS, NetworkSpec
from slimtrain.models.width_spec import WidthSpec

SCHEMA_VERSION = 1
MOST_BYTES = 64 << 20  # of a table: one of 500 layers has a megabyte
MOST = 10**9  # of any whole number of a table
MOST_MS = 1e9
MOST_TEXT = 1000
KIND = "latency table"
OF_GRAPHS = "operators"  # which layers of traced networks alone have in files
Layer = LayerShape | GraphLayer


class LatencyTableError(UserError):
    """A latency table that cannot be read, or is for another network, device or range of channels."""


def layers_of(spec: WidthSpec, image_size: ImageSize) -> tuple[Layer, ...]:
    """What a network's latency is the sum of: the weighted layers of a published architecture, all layers of a traced one.
    UserError for a size that the network cannot take."""
    if isinstance(spec, NetworkSpec):
        return layer_shapes(spec, image_size)
    assert isinstance(spec, GraphSpec)
    spec.check_image_size(image_size)
    return graph_layers(spec)


@dataclass(frozen=True)
class NetworkShape:
    """The network that a table is for: everything that its layers' shapes depend on, but for the plan. `stem_stride`: of a
    published architecture; None of a traced network, whose layers say what they are."""

    name: str
    image_size: ImageSize
    classes: int
    stem_stride: int | None
    in_channels: int = IMAGE_CHANNELS

    @staticmethod
    def of(spec: WidthSpec, image_size: ImageSize) -> NetworkShape:
        stem_stride = spec.stem_stride if isinstance(spec, NetworkSpec) else None
        return NetworkShape(spec.name, image_size, spec.classes, stem_stride, spec.in_channels)

    def __str__(self) -> str:
        channels = "" if self.in_channels == IMAGE_CHANNELS else f", images of {count(self.in_channels, 'channel')}"
        stem = "" if self.stem_stride is None else f", stem stride {self.stem_stride}"
        return f"{self.name} at {format_size(self.image_size)} px, {self.classes} classes{stem}{channels}"

    @property
    def argument(self) -> str:
        """What `python -m benchmarks channels` is given to measure it."""
        return self.name if self.stem_stride is not None else "MODEL"

    @property
    def remark(self) -> str:
        """What that is, behind the command."""
        return "" if self.stem_stride is not None else " (MODEL: its checkpoint, or its module, as timm:NAME)"


@dataclass(frozen=True)
class LatencyTable:
    """`layers` in the order in which they run; `times[of_layer[i]]` are those of `layers[i]`: layers of one shape share an
    entry. `device` has at least a `name`. `settings` and `environment`: how and where it was measured."""

    network: NetworkShape
    device: Mapping[str, Any]
    backend: str
    precision: str
    batch: int
    threads: int | None
    layers: tuple[Layer, ...]
    of_layer: tuple[int, ...]
    times: tuple[Times, ...]
    constant_ms: float
    factor: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    _known: dict[tuple[int, int, int], float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def layers_ms(self, plan: ChannelPlan) -> list[float]:
        """Milliseconds of every layer by itself, in the order of `layers`. Raises LatencyTableError where the plan has
        channels outside the measured ones, or lacks a group."""
        layers_ms = []
        size, known = plan.size, self._known
        for place, (layer, entry) in enumerate(zip(self.layers, self.of_layer, strict=True)):
            try:
                key = entry, size(layer.inp), size(layer.out)
            except KeyError as error:
                raise LatencyTableError(
                    f"plan {plan.name}: has no channel group {error}, which {layer.name} of the latency table's "
                    f"{self.network} reads. Give a plan of that network."
                ) from error
            if key not in known:  # a search changes one group at a time: most counts were asked for before
                known[key] = self._look_up(place, *key[1:], plan.name)
            layers_ms.append(known[key])
        return layers_ms

    def cost_ms(self, plan: ChannelPlan) -> float:
        """The latency in milliseconds that the table predicts for a plan. Raises as `layers_ms`."""
        return self.constant_ms + self.factor * math.fsum(self.layers_ms(plan))

    def _look_up(self, place: int, inp: int, out: int, plan: str) -> float:
        times, layer = self.times[self.of_layer[place]], self.layers[place]
        try:
            return times.at(inp, out)
        except IndexError as error:
            axes = (("input", inp, times.inputs), ("output", out, times.outputs))
            wrong = [
                f"{count} {name} channels, measured are {axis.counts[0]} to {axis.counts[-1]}"
                for name, count, axis in axes
                if axis is not None and not axis.counts[0] <= count <= axis.counts[-1]
            ]
            raise LatencyTableError(
                f"plan {plan}: {layer.name} has {' and '.join(wrong)}. Times beyond what was measured are not guessed: "
                f"measure a wider range with python -m benchmarks channels {self.network.argument} --range LOW:HIGH"
                f"{self.network.remark}."
            ) from error

    def describe(self) -> str:
        """`Intel Xeon, onnxruntime-cpu, fp32, batch 1`."""
        return f"{self.device['name']}, {self.backend}, {self.precision}, batch {self.batch}"

    def check_network(self, spec: WidthSpec, image_size: ImageSize) -> None:
        """LatencyTableError unless the table is for this network at this image size, layer by layer."""
        wanted = NetworkShape.of(spec, image_size)
        advice = f"Measure with python -m benchmarks channels {wanted.argument}{_options(spec, wanted)}{wanted.remark}."
        if wanted != self.network:
            raise LatencyTableError(f"latency table for {self.network}, this is {wanted}. {advice}")
        has = {layer.name: layer for layer in self.layers}
        needs = {layer.name: layer for layer in layers_of(spec, image_size)}
        for name, layer in needs.items():
            if has.get(name) != layer:
                what = "lacks" if name not in has else "has other shapes or channel groups for"
                raise LatencyTableError(f"latency table for {self.network}: {what} the layer {name}. {advice}")
        if extra := [name for name in has if name not in needs]:
            raise LatencyTableError(f"latency table for {self.network}: has {extra[0]}, which the network has not. {advice}")

    def check_device(self, name: str) -> None:
        """LatencyTableError unless the table was measured on the device called `name`."""
        if self.device["name"] != name:
            raise LatencyTableError(
                f"latency table of {self.device['name']}, this is {name}: what is slow on one is not on the other. Measure "
                f"here with python -m benchmarks channels {self.network.argument}{self.network.remark}."
            )


def _options(spec: WidthSpec, shape: NetworkShape) -> str:
    """The options that tell a network from others of its name."""
    options = {"image-size": format_size(shape.image_size), "classes": shape.classes}
    if shape.stem_stride is not None:
        options["stem-stride"] = shape.stem_stride
    if shape.in_channels != IMAGE_CHANNELS:
        options["in-channels"] = shape.in_channels
    if isinstance(spec, GraphSpec):
        usual, policy = vars(Policy()), vars(spec.groups.policy)
        options |= {name.replace("_", "-"): policy[name] for name in POLICIES if policy[name] != usual[name]}
    if spec.family == "us":
        options["range"] = "{:g}:{:g}".format(*spec.range)
    return "".join(f" --{name} {value}" for name, value in options.items())


def read_latency_table(
    path: str | Path, network: WidthSpec | None = None, image_size: ImageSize | None = None, device: str | None = None
) -> LatencyTable:
    """The table in a file; with `network` and `image_size`, and with `device`, it is checked to be for these.

    Raises LatencyTableError for a file that is not there, is no latency table of this schema version, or holds times that
    are negative or no numbers.
    """
    path = Path(path)
    try:
        content = parse_json(read_text(path, MOST_BYTES))
    except (OSError, ValueError) as error:
        raise LatencyTableError(
            f"{path}: cannot be read as JSON ({reason(error)}). Give the latency_table.json that python -m benchmarks "
            "channels wrote."
        ) from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise LatencyTableError(
            f"{path}: is no latency table. Give the latency_table.json that python -m benchmarks channels wrote."
        )
    if content.get("schema_version") != SCHEMA_VERSION:
        raise LatencyTableError(
            f"{path}: schema version {quoted(content.get('schema_version'))}, expected {SCHEMA_VERSION}. Measure again with "
            "this version, or read it with the one that wrote it."
        )
    try:
        table = _table(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"lacks {reason(error)}" if isinstance(error, KeyError) else reason(error)
        raise LatencyTableError(f"{path}: {said}. The file is damaged: measure again, or take another copy.") from error
    if network is not None:
        table.check_network(network, table.network.image_size if image_size is None else image_size)
    if device is not None:
        table.check_device(device)
    return table


def write_latency_table(path: str | Path, table: LatencyTable) -> None:
    """Write a table as JSON, at once. Raises UserError where it cannot be written, ValueError for NaN in it."""
    layers = [
        {
            **_layer_content(layer),
            "input": _dim_content(layer.inp),
            "output": _dim_content(layer.out),
            "times": entry,
        }
        for layer, entry in zip(table.layers, table.of_layer, strict=True)
    ]
    times = [
        {
            "grid": {"input": list(entry.inputs.counts), "output": entry.outputs and list(entry.outputs.counts)},
            "step": {"input": entry.inputs.step, "output": entry.outputs and entry.outputs.step},
            "ms": [list(row) for row in entry.ms],
        }
        for entry in table.times
    ]
    content = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "network": _network_content(table.network),
        "device": dict(table.device),
        **{key: getattr(table, key) for key in ("backend", "precision", "batch", "threads", "constant_ms", "factor")},
        "settings": dict(table.settings),
        "environment": dict(table.environment),
        "layers": layers,
        "times": times,
    }
    # an entry a line: a table of 50 layers is to be read by people too
    lines = json.dumps({**content, "layers": "@", "times": "@"}, indent=1, allow_nan=False).split('"@"')
    lists = (",\n  ".join(json.dumps(entry, allow_nan=False) for entry in entries) for entries in (layers, times))
    text = lines[0] + "".join(f"[\n  {entries}\n ]{rest}" for entries, rest in zip(lists, lines[1:], strict=True))
    write_atomically(Path(path), (text + "\n").encode(), RUN)


def _layer_content(layer: Layer) -> dict[str, Any]:
    if isinstance(layer, GraphLayer):
        return layer.content
    content = {key: getattr(layer, key) for key in ("name", "kind", "kernel", "stride")}
    return {**content, "side": plain_size(layer.size), "activation": layer.activation}  # `side` since all were squares


def _network_content(network: NetworkShape) -> dict[str, Any]:
    content = {**vars(network), "image_size": plain_size(network.image_size)}
    if network.in_channels == IMAGE_CHANNELS:
        del content["in_channels"]  # which earlier versions do not know
    return content


def _dim_content(dim: Dim | int) -> int | dict[str, Any]:
    return dim if isinstance(dim, int) else {"groups": [list(term) for term in dim.terms], "divisor": dim.divisor}


def _table(content: dict[str, Any]) -> LatencyTable:
    """The table in a file's content. KeyError, TypeError or ValueError for anything that is wrong with it."""
    network = NetworkShape(
        **{**content["network"], "image_size": _size(content["network"]["image_size"], "network: image_size")}
    )
    _text(network.name, "network: name")
    for key in ("in_channels", "classes", *(["stem_stride"] if network.stem_stride is not None else [])):
        _whole(getattr(network, key), f"network: {key}")
    times = tuple(_times(number, entry) for number, entry in enumerate(content["times"]))
    layers = tuple(_layer(entry) for entry in content["layers"])
    of_layer = tuple(_whole(entry["times"], "an entry of `times`", 0) for entry in content["layers"])
    for layer, entry in zip(layers, of_layer, strict=True):
        if entry >= len(times) or (times[entry].outputs is None) != layer.single:
            raise ValueError(f"layer {layer.name}: entry {entry} of `times` is not there, or not for such a layer")
    if not _text(content["device"]["name"], "device: name"):
        raise ValueError("`device` has no name")
    return LatencyTable(
        network=network,
        device=content["device"],
        backend=_text(content["backend"], "backend"),
        precision=_text(content["precision"], "precision"),
        batch=_whole(content["batch"], "batch"),
        threads=None if content["threads"] is None else _whole(content["threads"], "threads"),
        layers=layers,
        of_layer=of_layer,
        times=times,
        constant_ms=_number(content["constant_ms"], "constant_ms"),
        factor=_number(content["factor"], "factor"),
        settings=_mapping(content["settings"], "settings"),
        environment=_mapping(content["environment"], "environment"),
    )


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what}: {quoted(value)}, expected an object")
    return value


def _layer(content: dict[str, Any]) -> Layer:
    name = _text(content["name"], "name of a layer")
    inp, out = (_dim(content[key], name) for key in ("input", "output"))
    if OF_GRAPHS in content:
        return GraphLayer.of(content, inp, out)
    if content["kind"] not in KINDS:
        raise ValueError(f"layer {name}: kind {quoted(content['kind'])}, expected {', '.join(KINDS)}")
    kernel, stride = (_whole(content[key], f"layer {name}: {key}") for key in ("kernel", "stride"))
    size = _size(content["side"], f"layer {name}: side")
    return LayerShape(name, content["kind"], kernel, stride, size, inp, out, str(content["activation"]))


def _dim(content: Any, name: str) -> Dim | int:
    if isinstance(content, dict):
        terms = tuple((_text(group, f"layer {name}: group"), _sign(sign, name)) for group, sign in content["groups"])
        return Dim(terms, _whole(content["divisor"], f"layer {name}: divisor"))
    return _whole(content, f"layer {name}: channels")


def _sign(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -MOST <= value <= MOST:
        raise ValueError(f"layer {name}: a group counts {quoted(value)}, expected a whole number")
    return value


def _times(number: int, content: dict[str, Any]) -> Times:
    what = f"entry {number} of `times`"
    inputs, outputs = (_axis(content["grid"][key], content["step"][key], what) for key in ("input", "output"))
    if inputs is None:
        raise ValueError(f"{what}: has no input channels")
    ms = tuple(tuple(_number(value, what) for value in row) for row in content["ms"])
    columns = 1 if outputs is None else len(outputs.counts)
    if len(ms) != len(inputs.counts) or any(len(row) != columns for row in ms):
        raise ValueError(f"{what}: `ms` has not {len(inputs.counts)} x {columns} entries, as its grid has")
    return Times(inputs, outputs, ms)


def _axis(counts: Any, step: Any, what: str) -> Axis | None:
    if counts is None:
        return None
    channels = tuple(_whole(count, f"{what}: channels") for count in counts)
    if not channels or any(a >= b for a, b in itertools.pairwise(channels)):
        raise ValueError(f"{what}: channels {quoted(list(channels))} do not rise")
    return Axis(channels, _whole(step, f"{what}: step"))


def _size(value: Any, what: str) -> ImageSize:
    if isinstance(value, list) and len(value) == 2:
        return as_image_size([_whole(side, what) for side in value])
    return _whole(value, what)


def _whole(value: Any, what: str, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MOST:
        raise ValueError(f"{what}: {quoted(value)}, expected a whole number of at least {least}, and at most {MOST:,}")
    return value


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_MS:  # False for NaN
        raise ValueError(f"{what}: {quoted(value)}, expected milliseconds of 0 or more, and at most {MOST_MS:,.0f}")
    return float(value)


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or len(value) > MOST_TEXT:
        raise ValueError(f"{what}: {quoted(value)}, expected a text of at most {MOST_TEXT} letters")
    return value
