"""A further width of a torchvision network as ONNX: this package's writer beside `torch.onnx.export(dynamo=True)`."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.onnx_models.torch_export import torch_onnx
from slimexport.onnx_files.graph_writer import write_graph
from slimtrain.groups.spec import GraphSpec
from slimtrain.slimmable.graph_dense import stored_tensors
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.tracing.slimmed import make_slimmable

NETWORKS = (
    *("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "vit_b_16", "convnext_tiny"),
    *("densenet121", "regnet_y_400mf", "shufflenet_v2_x1_0"),
)
FIRST, WIDTH = 0.75, 0.5  # the width that warms up, and the further one that is measured


def written(name: str, rounds: int) -> dict[str, Any]:
    """Processor seconds and bytes of one further width by both, the least of several rounds (of torch's exporter one). Theirs
    gets the dense network, whose making is not counted."""
    import torchvision

    torch.manual_seed(0)
    module = torchvision.models.get_model(name).eval()
    network = make_slimmable(module, torch.zeros(2, 3, 224, 224), name=name).eval()
    plans = {width: network.plan(width) for width in (FIRST, WIDTH)}
    network.replace_calibrated({plan: network.blank_statistics(plan) for plan in plans.values()})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        _ours(network, FIRST, path)
        ours = min(_seconds(_ours, network, WIDTH, path) for _ in range(rounds))
        our_bytes = path.stat().st_size
        theirs = _seconds(torch_onnx, network.dense(WIDTH), torch.zeros(2, 3, 224, 224), path)
        their_bytes = path.stat().st_size
    return {
        "network": name,
        "width": WIDTH,
        "ours": {"seconds": round(ours, 3), "bytes": our_bytes},
        "torch": {"seconds": round(theirs, 3), "bytes": their_bytes},
        "times_faster": round(theirs / ours, 1),
    }


def _seconds(function: Any, *arguments: Any) -> float:
    began = time.process_time()
    function(*arguments)
    return time.process_time() - began


def _ours(network: SlimmableNetwork, width: float, path: Path) -> None:
    plan, spec = network.plan(width), network.spec
    assert isinstance(spec, GraphSpec)
    path.write_bytes(write_graph(spec.sizing(plan), stored_tensors(network, plan), name=spec.name).SerializeToString())
