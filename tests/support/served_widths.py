"""A bundle of very small networks, one per width, whose answers tell which it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from slimexport.target.manifest import Accuracy, Manifest
from tests.support.bundle_helpers import artifact, manifest, with_file, write_manifest

SHAPE = (3, 4, 4)
CLASSES = 5
NETWORK = "net"


def weights(width: float) -> NDArray[np.float32]:
    """[48, 5] of a width's network, which is one product."""
    return np.cos(np.arange(48 * CLASSES, dtype=np.float32) * (1 + width)).reshape(48, CLASSES)


def logits(width: float, images: NDArray[Any]) -> NDArray[Any]:
    """What the network of a width gives of images [N, 3, 4, 4]."""
    return images.reshape(len(images), -1).astype(np.float64) @ weights(width)


def onnx_file(width: float) -> bytes:
    """Its ONNX file."""
    matrix = helper.make_tensor("w", TensorProto.FLOAT, [48, CLASSES], weights(width).tobytes(), raw=True)
    nodes = [helper.make_node("Flatten", ["input"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["output"])]
    takes = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *SHAPE])
    gives = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", CLASSES])
    graph = helper.make_graph(nodes, "net", [takes], [gives], [matrix])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def bundle_of(folder: Path, widths: Mapping[float, float | None], network: str = NETWORK, **changes: Any) -> Manifest:
    """A bundle of these widths, each with its accuracy; what it costs grows with the width."""
    files = []
    for width, top1 in widths.items():
        name = f"{network}_x{width:g}".replace(".", "_")
        accuracy = None if top1 is None else Accuracy(top1=top1, images=100, data="digits")
        described = artifact(name, width, macs=int(1000 * width), accuracy=accuracy)
        files.append(with_file(folder, described, onnx_file(width)))
    described_bundle = manifest(*files, network=network, image_size=SHAPE[-1], classes=CLASSES, **changes)
    write_manifest(folder, described_bundle)
    return described_bundle
