"""A dense network of one plan: for every parameter the leading corner of the slimmable one's, and the matching norm.

The result is a `torch.fx.GraphModule` of ordinary `torch.nn` layers with storage of its own. It carries its forward
pass as generated code, so it runs, saves and loads where this package is not installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import fx

from slimexport.onnx_files.fold import fold_norms
from slimtrain.base.errors import WidthError
from slimtrain.checkpoints.checkpoint import Checkpoint, missing_statistics
from slimtrain.detection.opening import open_checkpoint
from slimtrain.models.channels import ChannelPlan
from slimtrain.slimmable.graph_dense import graph_dense
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.ordinary import ordinary_torch


@ordinary_torch()
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

    [N, C, H, W] normalized images -> [N, classes] logits. `checkpoint` is a path, `random:NETWORK`, or an opened one;
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
    dense = graph_dense(network, plan, dtype)
    return fold_norms(dense) if fold else dense
