"""Every weight that an fp32 file stores is compared with the checkpoint's, also those that no image shows."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from slimexport.job import Job
from slimexport.onnx_files.graph_writer import write_graph
from slimexport.onnx_files.layer_proof.exact_weights import wrong_weight
from slimexport.results import results_of
from slimexport.target.precision import EXACT, PRECISIONS
from slimtrain.checkpoints.checkpoint import Checkpoint, open_checkpoint
from slimtrain.costs.cost import CostCounter
from slimtrain.data.images import preprocessing_of
from slimtrain.data.noise import noise_images
from slimtrain.slimmable.graph_dense import stored_tensors
from tests.support.graph_cases import randomized, traced
from tests.support.onnx_writing import plan_onnx
from tests.support.stored_tensors import changed

SIZE = 32
NETWORKS = ("us_mobilenet_v1", "s_shufflenet")


@cache
def opened(network: str) -> Checkpoint:
    return open_checkpoint(f"random:{network}")


@cache
def written(network: str) -> onnx.ModelProto:
    """The fp32 file of the narrowest plan: not to be changed."""
    checkpoint = opened(network)
    plan = checkpoint.spec.plans[0]
    return plan_onnx(checkpoint.network, plan, SIZE)


def wrong(network: str, model: onnx.ModelProto) -> str:
    checkpoint = opened(network)
    plan = checkpoint.spec.plans[0]
    return wrong_weight(model, checkpoint.spec.sizing(plan, SIZE), stored_tensors(checkpoint.network, plan))


@pytest.mark.parametrize("network", NETWORKS)
def test_any_weight_or_bias_that_is_a_little_off_is_seen(network: str) -> None:
    model = written(network)
    assert wrong(network, model) == ""
    layers = 0
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims):
            for place in (0, -1):

                def little(flat: np.ndarray, place: int = place) -> None:
                    flat[place] += np.copysign(np.float32(1e-8) + np.abs(flat[place]) * np.float32(1e-6), flat[place])

                assert wrong(network, changed(model, tensor.name, little)), (tensor.name, place)
            layers += tensor.name.endswith(".weight")
    assert layers == sum(node.op_type in ("Conv", "Gemm") for node in model.graph.node)


class Network(nn.Module):
    """What files have in other forms than a convolution with its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(3)  # which no layer takes in
        self.narrow = nn.Sequential(nn.Conv2d(3, 6, 3, bias=True), nn.BatchNorm2d(6, affine=False))
        self.wide = nn.Sequential(nn.ConvTranspose2d(6, 6, 2, groups=2, bias=False), nn.BatchNorm2d(6))
        self.shared = nn.Conv2d(6, 6, 1)
        self.computed = nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 6, 1))
        self.groups = nn.GroupNorm(2, 6)
        self.rows = nn.Linear(6, 6)
        self.head = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.computed(self.shared(torch.relu(self.shared(self.wide(self.narrow(self.first(x)))))))
        x = self.groups(x)
        return self.head(self.rows(x.flatten(2).transpose(1, 2)).mean(1))


def test_layers_that_files_have_in_another_form_are_right_too() -> None:
    """Turned, transposed, shared, computed, of groups, and norms that nothing takes in: everything is seen."""
    sizing, tensors = traced(randomized(Network()).eval(), (3, SIZE, SIZE))
    model = write_graph(sizing, tensors)
    assert wrong_weight(model, sizing, tensors) == ""
    names = [tensor.name for tensor in model.graph.initializer if not tensor.name.startswith("constant.")]
    expected = {
        "first.running_var",
        "narrow.0.bias",
        "wide.0.weight",
        "shared.weight",
        "rows.weight",
        "groups.weight",
        "head.0.bias",
    }
    assert expected < set(names) and sum(name.startswith("computed.parametrizations") for name in names) == 1
    for name in names:

        def negated(flat: np.ndarray) -> None:
            flat[0] = -flat[0] - 0.001

        assert wrong_weight(changed(model, name, negated), sizing, tensors), name


class Bounded(nn.Module):
    """A parameter is called as files call what operators take."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 1)
        self.constant = nn.ParameterList([nn.Parameter(torch.rand(6, 1, 1))])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x).clamp(0.1, 0.9) * self.constant[0]


def test_a_bound_is_not_taken_for_the_parameter_of_its_name() -> None:
    sizing, tensors = traced(randomized(Bounded()).eval(), (3, SIZE, SIZE))
    model = write_graph(sizing, tensors)
    assert {"constant.0", "constant.0_1"} <= {tensor.name for tensor in model.graph.initializer}
    assert wrong_weight(model, sizing, tensors) == ""


def test_an_export_refuses_a_weight_whose_sign_no_image_shows(tmp_path: Path) -> None:
    checkpoint = opened(NETWORKS[0])
    counter, results = CostCounter(checkpoint.spec, SIZE), results_of(checkpoint)
    files, images = (PRECISIONS[EXACT],), noise_images(2, SIZE, 1)
    job = Job(checkpoint, preprocessing_of(checkpoint, SIZE), counter, images, files, results=results)
    plan = checkpoint.spec.plans[0]
    expected = job.reference(plan)
    ((artifact, content, _),) = job.emit(plan)
    path = tmp_path / artifact.file
    path.write_bytes(content)
    assert job.verify(path, EXACT, plan, expected).passed
    model = onnx.load_from_string(content)
    last = [node for node in model.graph.node if node.op_type == "Conv"][-1]

    def negated(flat: np.ndarray) -> None:
        flat[np.abs(flat).argmin()] *= -1

    onnx.save(changed(model, last.input[1], negated), path)
    check = job.verify(path, EXACT, plan, expected)
    assert not check.passed and f"1 of {256 * 256} weights of" in (check.reason or "")
