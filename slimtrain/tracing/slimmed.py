"""From a torch module to a slimmable network."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from slimtrain.base.errors import UserError
from slimtrain.graph.graph import CONSTANT, Graph, Node, Value
from slimtrain.graph.pieces import Pieces
from slimtrain.graph.policy import ORDERS, Policy
from slimtrain.groups.groups import Groups, find_groups
from slimtrain.groups.importance import permutation, slot_orders
from slimtrain.groups.spec import MODEL_NAME, GraphSpec
from slimtrain.slimmable.graph_body import GraphBody
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.norms import RUNNING
from slimtrain.slimmable.program import DROP_PATH
from slimtrain.tracing.branches import kept_branches
from slimtrain.tracing.exported import exported_program
from slimtrain.tracing.outputs import tensors_of
from slimtrain.tracing.reading import Traced, read_program

ROUNDING = 1e-9  # of the largest output: what float64 may differ by where sums run in another order
IN_FLOAT32 = 1e-4  # where float32 is all that the module computes in
CAST = 1e-5  # where the module itself computes something in float32, whatever its own numbers


class NotEqualError(UserError):
    """A network that does not compute at its widest what the module does."""

    exit_code = 1


def trace(module: nn.Module, example: Tensor) -> Traced:
    """The graph of `module` for images like `example` [N, C, H, W], and what its parameters hold.

    NotExportable, with the line of the user's module, where torch cannot export it.
    """
    with kept_branches(module) as branches:
        traced = read_program(exported_program(module, example))
    parts = dict(module.named_modules())
    nodes = tuple(_branch(_averaging(node, parts.get(node.module)), branches) for node in traced.graph.nodes)
    return Traced(dataclasses.replace(traced.graph, nodes=nodes), traced.tensors)


def _branch(node: Node, branches: Mapping[str, tuple[float, str]]) -> Node:
    """A recorded branch as the operator that drops it in training."""
    if node.kind != "dropout" or node.module not in branches:
        return node
    share, mode = branches[node.module]
    arguments = {"input": node.arguments["input"], "p": share, "mode": mode}
    return dataclasses.replace(node, op=DROP_PATH, arguments=arguments)


def _averaging(node: Node, module: nn.Module | None) -> Node:
    """A batch norm that averages all batches alike says so: exported, its momentum is 0."""
    if node.kind == "batch_norm" and getattr(module, "momentum", 0.0) is None:
        return dataclasses.replace(node, arguments={**node.arguments, "momentum": None})
    return node


def make_slimmable(
    module: nn.Module,
    example: Tensor,
    widths: Sequence[float] = (0.25, 1.0),
    *,
    family: str = "us",
    name: str = "",
    policy: Policy | None = None,
    order: str = "l1",
    check: bool = True,
) -> SlimmableNetwork:
    """`module` as a slimmable network, its weights included: at its widest plan it computes what `module` computes.

    It gives what `module` gives: tensors in dictionaries (a dataclass's too), tuples (named ones too) and lists; logits
    [N, classes] that are its only output stand alone. What they are called in files follows from keys and names: `out`.

    `example`: a batch of images [N, C, H, W], of signals [N, C, L], of anything [N, ...]; only its shape counts. `widths`: for
    family `us` the narrowest and the widest width, and whichever between them keep statistics; for `s` the switches. `policy`:
    what is narrowed where there is a choice. `order`: how channels are ordered before any are dropped, by the L1 or L2 norm of
    what reads them (arXiv 1908.09791, sec. 3.3), or `none`. With `check`, equality at the widest plan is tested in float64.
    The network is in training or evaluation mode as `module` is; in evaluation mode a width below 1.0 needs statistics first
    where there are batch norms (`calibrate`).

    Raises NotExportable for a module that torch.export refuses, NotEqualError where the check fails, UserError for widths that
    make no sense.

    >>> import slimtrain, torch, torchvision
    >>> module = torchvision.models.resnet18(num_classes=10)
    >>> network = slimtrain.make_slimmable(module, torch.zeros(2, 3, 64, 64), widths=(0.25, 1.0))
    >>> with network.at(network.plan(0.5)):
    ...     network(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """
    _check_given(module, example, family, name)
    check_widths(widths)
    if order not in ORDERS:
        raise UserError(f"order {order!r}: expected one of {', '.join(ORDERS)}.")
    traced = trace(module, example)
    groups = find_groups(traced.graph, policy)
    model = name or type(module).__name__.lower()
    switches = tuple(sorted(set(map(float, widths))))
    tensors = ordered(traced.graph, groups, traced.tensors, order)
    constants = {name: tensors[name].numpy() for name in traced.graph.constants}
    graph = dataclasses.replace(traced.graph, constants=constants)
    spec = GraphSpec(model, family, switches, graph, groups, (switches[0], switches[-1]) if family == "us" else None)
    network = SlimmableNetwork(spec)
    load_tensors(network, tensors)
    network.train(module.training)
    if check:
        check_equal(network, module, example)
    return network


def _check_given(module: object, example: object, family: str, name: str) -> None:
    """UserError for what is no module, no batch of images, no family and no name of a network."""
    if not isinstance(module, nn.Module):
        raise UserError(f"make_slimmable: got a {type(module).__name__}, expected a torch.nn.Module, built.")
    if not isinstance(example, Tensor) or example.ndim < 2:
        raise UserError(f"make_slimmable: the example is a {type(example).__name__}, expected a tensor [N, C, H, W].")
    if family not in ("s", "us"):
        raise UserError(f"family {family!r}: expected us (universally slimmable) or s (slimmable, at its switches).")
    if name and not MODEL_NAME.fullmatch(name):
        raise UserError(f"name {name!r}: goes into file names: letters, digits, - and _ only.")


def check_widths(widths: Sequence[float]) -> None:
    """UserError unless these are widths above 0, the widest of them 1."""
    wrong = [width for width in widths if not 0 < width <= 1]
    if wrong or not widths or max(widths) != 1:
        given = ", ".join(map(str, widths)) or "none"
        raise UserError(f"widths {given}: expected numbers above 0, the largest of them 1.0 (the module as it is): 0.25,1.0.")


def ordered(graph: Graph, groups: Groups, tensors: Mapping[str, Tensor], order: str) -> dict[str, Tensor]:
    """The same network with the slots of every group in order of importance."""
    arrays = {name: tensor.detach().double().numpy() for name, tensor in tensors.items() if tensor.is_floating_point()}
    orders = slot_orders(graph, groups, arrays, order)
    result = dict(tensors)
    for parameter in graph.parameters:
        for dim, extent in enumerate(groups.dims[Value(parameter.node)]):
            source = permutation(extent, orders) if isinstance(extent, Pieces) else None
            if source is not None:
                result[parameter.name] = result[parameter.name].index_select(dim, torch.from_numpy(source))
    return result


@torch.no_grad()
def load_tensors(network: SlimmableNetwork, tensors: Mapping[str, Tensor]) -> None:
    """Give a traced network the weights of the module that it was traced from, by the user's names. Every plan's norm begins
    with the module's scale and shift; its statistics go to the widest plan, for they hold at no other."""
    body, spec = network.body, network.spec
    assert isinstance(body, GraphBody) and isinstance(spec, GraphSpec)
    for name in body.places.keys() - spec.graph.constants.keys():
        body.stored(name).copy_(tensors[name])
    for norm in {norm.path: norm for norm in body.of_nodes.values()}.values():
        for plan in spec.plans:
            with network.at(plan):
                target = network.norms[norm.path]
                kept = norm.dim.positions(plan.channels)
                for entry, tensor in zip(("weight", "bias"), target.scale_and_shift(), strict=True):
                    if entry in norm.stored:
                        tensor.copy_(tensors[norm.stored[entry].name][kept])
                if plan == spec.widest:
                    for entry, tensor in zip(RUNNING, target.statistics(), strict=True):
                        tensor.copy_(tensors[norm.stored[entry].name])


@torch.no_grad()
def check_equal(network: SlimmableNetwork, module: nn.Module, example: Tensor) -> None:
    """NotEqualError unless `network` at its widest plan gives what `module` gives, in float64, for random images."""
    spec = network.spec
    assert isinstance(spec, GraphSpec)
    tolerance = rounding_of(spec.graph)
    try:
        pairs = _both(network, module, example, torch.float64)
        if _largest(pairs) >= tolerance and _largest(pairs) < CAST:  # casts that do nothing in float32 are in no graph
            tolerance, pairs = CAST, _both(network, module, example, torch.float32)
    except (RuntimeError, TypeError, ValueError):  # a module that casts its images to float32 cannot run in float64
        tolerance, pairs = IN_FLOAT32, _both(network, module, example, torch.float32)
    for (result, _), (expected, output) in zip(spec.graph.results, pairs, strict=True):
        error = _largest([(expected, output)])
        if not error < tolerance:
            raise NotEqualError(
                f"{network.spec.name}: at its widest plan {result} differs by {error:.1e} of its largest value from "
                f"what the module computes in float64, expected less than {tolerance:.0e}. Report it, with the module."
            )


def _largest(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    """The largest difference, of the largest value of the same output."""
    errors = []
    for theirs, ours in pairs:
        expected = theirs.double()  # it may be a mask, or numbers of classes
        errors.append(float((ours.double() - expected).abs().max() / expected.abs().max().clamp(min=1e-30)))
    return max(errors)


def _both(network: SlimmableNetwork, module: nn.Module, example: Tensor, number: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """The outputs of the module and of the network at its widest plan, computed in `number`, for random images; where these
    are whole numbers, for zeros."""
    shape = (2, *example.shape[1:])
    images = torch.zeros(shape, dtype=example.dtype)
    if example.is_floating_point():
        images = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(number)
    reference, ours = copy.deepcopy(module).to(number).eval(), copy.deepcopy(network).to(number).eval()
    with ours.at(ours.spec.widest):
        return list(zip(tensors_of(reference(images)), tensors_of(ours(images)), strict=True))


def rounding_of(graph: Graph) -> float:
    """What a graph and its module may differ by in float64: more where the module casts to float32, or makes numbers in it."""
    casts = any(node.kind in ("to", "arange", "linspace") for node in graph.nodes)
    numbers = any(p.kind == CONSTANT and p.type.dtype == "float32" for p in graph.parameters)
    return CAST if casts or numbers else ROUNDING


def model_name(source: str | Path) -> str:
    """What a network is called whose module `source` names (`torchvision:mobilenet_v3_small`)."""
    return re.sub(r"\W", "_", str(source).rpartition(":")[2].partition(".")[0])
