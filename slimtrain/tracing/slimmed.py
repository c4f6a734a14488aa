"""From a torch module to a slimmable network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slimtrain.base.errors import UserError
from slimtrain.graph.graph import Graph, Node, Value
from slimtrain.graph.pieces import Pieces
from slimtrain.graph.policy import ORDERS, Policy
from slimtrain.groups.groups import Groups, find_groups
from slimtrain.groups.importance import permutation, slot_orders
from slimtrain.groups.spec import MODEL_NAME, GraphSpec
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.norms import RUNNING
from slimtrain.slimmable.ordinary import ordinary_torch
from slimtrain.slimmable.program import DROP_PATH
from slimtrain.tracing.branches import kept_branches
from slimtrain.tracing.equality import check_equal
from slimtrain.tracing.exported import exported_program, uncollected
from slimtrain.tracing.reading import Traced, read_program

BLOCK = 2**18  # numbers of a tensor that are put in order at a time, near the processor


def trace(module: nn.Module, example: Tensor | Sequence[Tensor]) -> Traced:
    """The graph of `module` for images like `example` [N, C, H, W] (or several inputs), and what its parameters hold.

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


@uncollected()
@ordinary_torch(numbers=False)
def make_slimmable(
    module: nn.Module,
    example: Tensor | Sequence[Tensor],
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

    `example`: a batch of images [N, C, H, W], of signals [N, C, L], of anything [N, ...]; only its shape counts. Several,
    where the module takes several: the others have a number of rows for each of the N, of no account when it runs (regions
    [N * 100, 5]), and values that it can take. `widths`: for
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
    network = SlimmableNetwork(spec, tensors)
    load_tensors(network, tensors)
    network.train(module.training)
    if check:
        check_equal(network, module, example)
    return network


def _check_given(module: object, example: object, family: str, name: str) -> None:
    """UserError for what is no module, no batch of images, no family and no name of a network."""
    if not isinstance(module, nn.Module):
        raise UserError(f"make_slimmable: got a {type(module).__name__}, expected a torch.nn.Module, built.")
    several = isinstance(example, list | tuple) and len(example) > 0
    for part in example if isinstance(example, list | tuple) and several else [example]:
        if not isinstance(part, Tensor) or part.ndim < 2:
            raise UserError(f"make_slimmable: the example is a {type(part).__name__}, expected a tensor [N, C, H, W].")
    if isinstance(example, list | tuple) and any(len(part) == 0 or len(part) % max(len(example[0]), 1) for part in example):
        rows = ", ".join(str(len(part)) for part in example)
        raise UserError(f"make_slimmable: inputs of {rows} rows, expected as many of each for every one of the first.")
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
    """The same network with the slots of every group in order of importance, in memory of its own."""
    arrays = {name: _array(tensor) for name, tensor in tensors.items() if tensor.is_floating_point()}
    orders = slot_orders(graph, groups, arrays, order)
    result = {}
    sources: dict[Pieces, Tensor | None] = {}
    for parameter in graph.parameters:
        moved = {}
        for dim, extent in enumerate(groups.dims[Value(parameter.node)]):
            if not isinstance(extent, Pieces):
                continue
            if extent not in sources:
                source = permutation(extent, orders)
                sources[extent] = None if source is None else torch.from_numpy(source)
            index = sources[extent]
            if index is not None:
                moved[dim] = index
        result[parameter.name] = _permuted(tensors[parameter.name], moved)
    return result


def _permuted(tensor: Tensor, sources: Mapping[int, Tensor]) -> Tensor:
    """`tensor` in memory of its own, of every dimension in `sources` what they say, in turn. Where the rows change places too,
    some of them at a time do so: the system hands out memory page by page, and a whole tensor that nobody keeps would take
    longer than all else."""
    if 0 not in sources or len(sources) == 1:
        for dim, source in sources.items():
            tensor = tensor.index_select(dim, source)
        return tensor if sources else tensor.clone()
    (_, rows), *between, (last, source) = sources.items()
    result = tensor.new_empty(tensor.shape)
    count = max(1, BLOCK * len(tensor) // max(tensor.numel(), 1))
    for start in range(0, len(tensor), count):
        part = tensor.index_select(0, rows[start : start + count])
        for dim, of_dim in between:
            part = part.index_select(dim, of_dim)
        torch.index_select(part, last, source, out=result[start : start + count])
    return result


def _array(tensor: Tensor) -> NDArray[np.floating[Any]]:
    """A tensor's numbers, of a type that numpy has."""
    tensor = tensor.detach()
    return tensor.numpy() if tensor.dtype in (torch.float32, torch.float64) else tensor.double().numpy()


@torch.no_grad()
def load_tensors(network: SlimmableNetwork, tensors: Mapping[str, Tensor]) -> None:
    """Give a traced network the weights of the module that it was traced from, by the user's names: `tensors`, which are its
    own from now on. Every plan's norm begins with the module's scale and shift; its statistics go to the widest plan, for
    they hold at no other."""
    body, spec = network.body, network.spec
    assert isinstance(spec, GraphSpec)
    for name in body.places.keys() - spec.graph.constants.keys():
        stored, tensor = body.stored(name), tensors[name]
        if stored.shape != tensor.shape or stored.dtype != tensor.dtype or not tensor.is_contiguous():
            stored.copy_(tensor)
        else:
            stored.data = tensor  # without another pass through it
    norms = {norm.path: norm for norm in body.of_nodes.values()}.values()
    for plan in spec.plans if norms else ():
        with network.at(plan):
            for norm in norms:
                target = network.norms[norm.path]
                kept = norm.dim.positions(plan.channels)
                for entry, tensor in zip(("weight", "bias"), target.scale_and_shift(), strict=True):
                    if entry in norm.stored:
                        tensor.copy_(tensors[norm.stored[entry].name][kept])
                if plan == spec.widest:
                    for entry, tensor in zip(RUNNING, target.statistics(), strict=True):
                        tensor.copy_(tensors[norm.stored[entry].name])
