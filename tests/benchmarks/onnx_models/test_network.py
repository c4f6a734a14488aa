"""Whole networks with random weights are the architecture's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks.onnx_models.network import network_model
from slimtrain.base.image_size import sides
from slimtrain.costs.cost import CostCounter
from slimtrain.costs.layer_shapes import layer_shapes
from slimtrain.models.published import published_spec
from tests.support.bench_models import run


@pytest.mark.parametrize("name", ["us_mobilenet_v1", "us_mobilenet_v2", "s_resnet50", "s_shufflenet", "autoslim_mnasnet"])
def test_whole_networks_are_the_architecture_s(name: str) -> None:
    """Weights and MACs are the cost counter's, and logits are ordinary and depend on the image."""
    spec, size = published_spec(name, classes=10), 64
    plan = spec.plans[0]
    content = network_model(spec, plan, size)
    onnx.checker.check_model(content, full_check=True)
    graph = onnx.load_model_from_string(content).graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    layered = [weights[source] for node in graph.node if node.op_type in ("Conv", "Gemm") for source in node.input[1:]]
    cost = CostCounter(spec, size)(plan)
    assert sum(tensor.size for tensor in layered) == cost.params
    assert len(layered) == 2 * cost.layers == 2 * len(layer_shapes(spec, size))
    images = np.random.default_rng(0).standard_normal((2, 3, size, size)).astype(np.float32)
    logits = run(content, images)
    assert logits.shape == (2, 10) and 0.1 < logits.std() < 100
    assert not np.allclose(logits[0], logits[1], atol=1e-7)


def test_a_network_computes_what_the_dense_one_does() -> None:
    """The same weights in a dense torch network give the same logits: order, shuffles, sums and pools are right; of images of
    any shape and channels."""
    import torch
    from torch import nn

    from tests.support.module_layers import DenseLayers

    for name, size, channels in (("s_shufflenet", (64, 40), 4), ("s_resnet50", 64, 3), ("us_mobilenet_v2", (36, 70), 1)):
        spec = replace(published_spec(name, classes=7), in_channels=channels)
        plan = spec.plans[0]
        content = network_model(spec, plan, size)
        graph = onnx.load_model_from_string(content).graph
        weights = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
        pairs = [[weights[tensor] for tensor in node.input[1:]] for node in graph.node if node.op_type in ("Conv", "Gemm")]
        dense = spec.build(DenseLayers(plan)).eval()
        modules = dict(dense.named_modules())
        for module in modules.values():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0
        images = torch.randn(2, channels, *sides(size), generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            for path, (weight, bias) in zip((layer.name for layer in layer_shapes(spec, size)), pairs, strict=True):
                modules[path].weight.copy_(weight)
                if isinstance(modules[path], nn.Linear):
                    modules[path].bias.copy_(bias)
                else:  # its norm, at the statistics 0 and 1, adds the bias
                    parent, _, place = path.rpartition(".")
                    modules[f"{parent}.{int(place) + 1}"].bias.copy_(bias)
            wanted = dense(images).numpy()
        np.testing.assert_allclose(run(content, images.numpy()), wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())
