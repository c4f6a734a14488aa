"""A dense network of one plan: for every parameter the leading corner of the slimmable one's, and the matching norm.

The result is a `torch.fx.GraphModule` of ordinary `torch.nn` layers with storage of its own. It carries its forward
pass as generated code, so it runs, saves and loads where this package is not installed.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from slimexport.onnx_files.fold import fold_norms
from slimtrain.base.errors import WidthError
from slimtrain.checkpoints.checkpoint import Checkpoint, missing_statistics, open_checkpoint
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import NetworkSpec, published
from slimtrain.slimmable.build import DenseLayers
from slimtrain.slimmable.graph_dense import graph_dense
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.norms import PlanNorm


def materialize(
    checkpoint: str | Path | Checkpoint | SlimmableNetwork,
    width: float | None = None,
    *,
    plan: ChannelPlan | None = None,
    fold: bool = True,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> fx.GraphModule:
    """The dense network of one width (or AutoSlim switch number, or `plan`), in evaluation mode.

    [N, 3, H, W] normalized images -> [N, classes] logits. `checkpoint` is a path, `random:NETWORK`, or an opened one;
    `options` are `open_checkpoint`'s (`network`, `switches`, `config`, `weights`). With `fold`, batch norm is folded into the
    convolutions. `dtype` (default: the checkpoint's) is set before folding, so float64 folds without rounding.

    Raises CheckpointError for a file that cannot be used, WidthError for a width that the network or its statistics
    lack.

    >>> import slimexport, torch
    >>> network = slimexport.materialize("random:us_mobilenet_v1", width=0.25)
    >>> network(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 1000])
    """
    if isinstance(checkpoint, str | Path):
        checkpoint = open_checkpoint(checkpoint, **options)
    name, network = ("the network", checkpoint)
    if isinstance(checkpoint, Checkpoint):
        name, network = checkpoint.file, checkpoint.network
    assert isinstance(network, SlimmableNetwork)
    if plan is None:
        if width is None:
            raise WidthError("materialize needs a width, a switch number or a plan.")
        plan = network.spec.plan(width)
    if not network.has_statistics(plan):
        raise missing_statistics(network, plan, name)
    return dense_network(network, plan, fold=fold, dtype=dtype)


def dense_network(
    network: SlimmableNetwork,
    plan: ChannelPlan,
    *,
    fold: bool = True,
    dtype: torch.dtype | None = None,
) -> fx.GraphModule:
    """As `materialize`, for a plan whose statistics are known; without `statistics` they are left at 0 and 1, to be
    calibrated."""
    if isinstance(network.spec, GraphSpec):
        return graph_dense(network, plan, dtype)
    spec = published(network.spec, "a dense network")
    with torch.device("meta"):
        built = spec.build(DenseLayers(plan))
    dense = fx.GraphModule(built, copy.deepcopy(traced(spec)), class_name=f"{spec.name}_{plan.name}")
    with torch.no_grad(), network.at(plan):
        for path, module in dense.named_modules():
            source = network.get_submodule(path) if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d) else None
            if isinstance(module, nn.BatchNorm2d):
                assert isinstance(source, PlanNorm)
                _take_norm(module, source, dtype)
            elif source is not None:
                for key, parameter in list(module.named_parameters()):
                    corner = source.get_parameter(key)[tuple(slice(size) for size in parameter.shape)]
                    setattr(module, key, nn.Parameter(_own(corner, dtype)))
    dense.eval()
    return fold_norms(dense) if fold else dense


@lru_cache(maxsize=8)
def traced(spec: NetworkSpec) -> fx.Graph:
    """The forward pass of a network's dense forms, the same for all plans.

    Tracing changes `nn.Module` for the whole process while it lasts, so no other thread may run a network meanwhile:
    who uses threads calls this first.
    """
    with torch.device("meta"):
        built = spec.build(DenseLayers(spec.widest))
    graph = fx.Tracer().trace(built)
    for node in graph.nodes:
        node.type = None  # annotations are strings here, and torch 2.11 cannot pickle a module with such a type
    return graph


def _take_norm(module: nn.BatchNorm2d, source: PlanNorm, dtype: torch.dtype | None) -> None:
    """Give a dense norm the active plan's scale, shift and statistics."""
    weight, bias = source.scale_and_shift()
    module.weight, module.bias = nn.Parameter(_own(weight, dtype)), nn.Parameter(_own(bias, dtype))
    mean, var = source.statistics()
    module.running_mean, module.running_var = _own(mean, dtype), _own(var, dtype)
    module.num_batches_tracked = torch.zeros((), dtype=torch.long)


def _own(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A contiguous copy with storage of its own: a saved slice would drag the whole tensor along."""
    return tensor.detach().to(dtype or tensor.dtype).clone(memory_format=torch.contiguous_format)
