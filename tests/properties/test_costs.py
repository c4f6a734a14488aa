"""What plans are said to cost, against dense networks that run: torch's own counter, their parameters, what layers write."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import given
from torch import Tensor, fx, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from slimexport.dense import dense_network
from slimexport.onnx_files.graph_writer import write_graph
from slimtrain.costs.cost import Cost, CostCounter
from slimtrain.groups.costs import MACS
from slimtrain.slimmable.graph_dense import stored_tensors
from tests.properties.cases import Case, cases, modules, published_cases, tensors_of
from tests.properties.counting import counted

FLOPS_OF_A_MAC = 2  # torch counts a product and a sum


class Written(fx.Interpreter):
    """Runs a dense network, and adds up what its convolutions, linear layers, products and attentions write."""

    elements = layers = 0

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op == "call_module":
            weighted = isinstance(self.module.get_submodule(str(n.target)), nn.modules.conv._ConvNd | nn.Linear)
        else:
            weighted = n.op == "call_function" and getattr(n.target, "_opname", "") in MACS
        if weighted:
            self.elements += tensors_of(result)[0].numel()
            self.layers += 1
        return result


def counted_flops(network: nn.Module, image: Tensor) -> int:
    """Attention as the products that it is made of: what it is fused to on a CPU torch does not count."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return counter.get_total_flops()


def stored(dense: fx.GraphModule, node: fx.Node, names: Sequence[str]) -> dict[str, Tensor | None]:
    """What a layer stores: as a module, or, where it runs twice, as a function of stored tensors."""
    if node.op == "call_module":
        module = dense.get_submodule(str(node.target))
        return {name: getattr(module, name) for name in names}
    tensors: dict[str, Tensor | None] = {}
    arguments: Sequence[Any] = node.args[1:]
    for name, argument in zip(names, arguments, strict=False):
        is_stored = isinstance(argument, fx.Node) and argument.op == "get_attr"
        tensors[name] = operator.attrgetter(str(argument.target))(dense) if is_stored else None
    return tensors


def is_one(dense: fx.GraphModule, node: fx.Node, kinds: Any, names: Sequence[str]) -> bool:
    if node.op == "call_module":
        return isinstance(dense.get_submodule(str(node.target)), kinds)
    return node.op == "call_function" and getattr(node.target, "_opname", "") in names


def parameters_once_folded(dense: fx.GraphModule) -> tuple[int, int]:
    """The parameters of a dense network in which every norm that directly follows a layer that nothing else reads has become
    its bias, and how many norms are left."""
    left = {id(p): p.numel() for p in dense.parameters()}
    biases: dict[int, int] = {}
    alone = 0
    for node in dense.graph.nodes:
        if not is_one(dense, node, nn.modules.batchnorm._BatchNorm, ("batch_norm",)):
            continue
        layer, norm = node.args[0], stored(dense, node, ("weight", "bias", "running_mean"))
        if len(layer.users) > 1 or not is_one(dense, layer, nn.modules.conv._ConvNd | nn.Linear, ("conv2d", "linear")):
            alone += 1
            continue
        mean = norm["running_mean"]
        assert mean is not None
        biases[mean.data_ptr()] = len(mean)
        for parameter in (norm["weight"], norm["bias"], stored(dense, layer, ("weight", "bias"))["bias"]):
            left.pop(id(parameter), None)
    return sum(left.values()) + sum(biases.values()), alone


def cost_of(case: Case) -> Cost:
    return CostCounter(case.spec, case.source.image_size)(case.plan)


def macs_are_half_of_torch_s_flops(case: Case) -> None:
    """Both count convolutions and products of matrices, attention among them, and nothing else."""
    dense = dense_network(case.network, case.plan, fold=False)
    assert counted_flops(dense, case.images(1, torch.float32)) == FLOPS_OF_A_MAC * cost_of(case).macs


def activations_are_what_layers_write(case: Case) -> None:
    written = Written(dense_network(case.network, case.plan, fold=False))
    with torch.no_grad():
        written.run(case.images(1, torch.float32))
    cost = cost_of(case)
    assert (written.elements, written.layers) == (cost.activations, cost.layers)


def parameters_are_the_folded_network_s(case: Case) -> None:
    """And the file holds the norms that are left."""
    params, alone = parameters_once_folded(dense_network(case.network, case.plan, fold=False))
    assert params == cost_of(case).params
    model = write_graph(case.spec.sizing(case.plan, case.source.image_size), stored_tensors(case.network, case.plan))
    assert sum(node.op_type == "BatchNormalization" for node in model.graph.node) == alone


def check(case: Case, kind: str) -> None:
    for name, holds in (
        ("MACs are half of torch's FLOPs", macs_are_half_of_torch_s_flops),
        ("activations are what layers write", activations_are_what_layers_write),
        ("parameters are the folded network's", parameters_are_the_folded_network_s),
    ):
        with counted(f"{kind}: {name}"):
            holds(case)


@given(cases(published_cases()))
def test_costs_of_a_published_network(case: Case) -> None:
    check(case, "published")


@given(cases(modules))
def test_costs_of_a_traced_network(case: Case) -> None:
    check(case, "traced")
