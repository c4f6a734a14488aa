"""NVIDIA's own parser and builder in tests: TensorRT-RTX, which builds engines without a GPU, and networks for it."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from slimexport.onnx_files.calibration import Calibration
from slimexport.onnx_files.writers import WRITERS, Original
from slimexport.target.precision import PRECISIONS
from slimtrain.data.noise import noise_images
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.export_helpers import random_state
from tests.support.onnx_writing import plan_onnx

SIZE = 32
HALVED = 0.5  # gain of norms, so that sums of fifty branches stay within fp16
NARROWEST = {"mobilenet_v2": 0.35, "mnasnet": 0.35, "shufflenet": 0.5}  # widths; 0.25 of the others
REASON = "TensorRT-RTX is not installed: pip install '.[trt-rtx]', for Linux on x86-64 with CPython 3.10 to 3.13"


def require_rtx() -> Any:
    """The real bindings; tests are skipped, with the reason, where there are none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return pytest.importorskip("tensorrt_rtx_bindings", reason=REASON)


def small_onnx(channels: int = 8, size: int = SIZE, batch: str | int = "batch", operator: str = "Relu") -> onnx.ModelProto:
    """A convolution, `operator`, a pool and a linear layer: read and built in a tenth of a second."""
    draw = np.random.default_rng(0)
    weights = {
        "stem": draw.normal(size=(channels, 3, 3, 3)),
        "head": draw.normal(size=(10, channels)),
        "bias": np.zeros(10),
    }
    nodes = [
        helper.make_node("Conv", ["input", "stem"], ["a"], "stem", pads=[1, 1, 1, 1]),
        helper.make_node(operator, ["a"], ["b"], "act"),
        helper.make_node("GlobalAveragePool", ["b"], ["c"], "pool"),
        helper.make_node("Flatten", ["c"], ["d"], "flat"),
        helper.make_node("Gemm", ["d", "head", "bias"], ["output"], "classifier", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, 10])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@functools.cache
def engine_files(architecture: str) -> dict[str, onnx.ModelProto]:
    """The ONNX files of a published architecture at its narrowest width that engines of TensorRT 10 and later are built from,
    by precision. Not to be changed."""
    spec = NetworkSpec(architecture, "s", (NARROWEST.get(architecture, 0.25),), 10)
    network = SlimmableNetwork(spec).eval()
    state = random_state(spec)
    for key in [key for key in state if key.endswith("running_var")]:
        state[key.replace("running_var", "weight")].mul_(HALVED)
    network.load_state_dict(state)
    original = Original(plan_onnx(network, spec.plans[0], SIZE), Calibration.of([noise_images(4, SIZE, 0)], "max"))
    sources = {row.strong.onnx for row in PRECISIONS.values() if row.strong}
    return {name: WRITERS[name](original).model for name in PRECISIONS if name in sources}


def written(folder: Path, model: onnx.ModelProto, name: str = "net_x0_5.onnx") -> Path:
    """A model's file."""
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path
