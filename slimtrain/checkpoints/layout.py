"""A state dict against the network that it should be: every key, every shape, every value."""

from __future__ import annotations

import math

import torch

from slimtrain.base.errors import CheckpointError
from slimtrain.base.text import some
from slimtrain.base.untrusted.quoting import shortened
from slimtrain.checkpoints.files.claims import OddTensor
from slimtrain.checkpoints.reading import StateDict
from slimtrain.models.width_spec import WidthSpec
from slimtrain.slimmable.network import SlimmableNetwork

SHOWN = 4  # tensors that a message names
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def compare_layout(spec: WidthSpec, state: StateDict, name: str) -> None:
    """CheckpointError unless the file has exactly the keys and shapes of `spec`. Counters of batches may be absent:
    old versions of torch wrote none."""
    try:
        with torch.device("meta"):
            expected = {key: tuple(t.shape) for key, t in SlimmableNetwork(spec).state_dict().items()}
    except ValueError as error:
        raise CheckpointError(f"{name}: looks like {spec.name}, but {error}. The file is damaged.") from error
    held = {key: tuple(t.shape) for key, t in state.items()}
    missing = [k for k in expected if k not in held and not k.endswith("num_batches_tracked")]
    added = [k for k in held if k not in expected]
    wrong = [k for k in expected if k in held and held[k] != expected[k]]
    problems = []
    if missing:
        problems.append(f"missing: {some(missing)}")
    if wrong:
        shapes = [f"{k} is {list(held[k])}, expected {list(expected[k])}" for k in wrong]
        problems.append(f"wrong shape: {some(shapes)}")
    if added:
        problems.append(f"unknown: {some(added)}")
    if problems:
        raise CheckpointError(
            f"{name}: looks like {spec.name} with {spec.describe_widths()}, but does not fit it. {'; '.join(problems)}. "
            "The file is damaged or was edited; if it is another network, name it with --network."
        )


def load_network(spec: WidthSpec, state: StateDict) -> SlimmableNetwork:
    """The network of `spec` holding `state`, float32, in evaluation mode."""
    with torch.device("meta"):
        network = SlimmableNetwork(spec)
    tensors = {}
    for key, empty in network.state_dict().items():
        value = state.get(key)
        tensors[key] = torch.zeros(empty.shape, dtype=empty.dtype) if value is None else value.to(empty.dtype)
    network.load_state_dict(tensors, assign=True)
    return network.eval()


def check_values(state: StateDict, name: str) -> None:
    """CheckpointError where a tensor is not numbers, holds NaN or infinite values, or a variance is negative."""
    bad = []
    for key, tensor in state.items():
        counter = key.endswith("num_batches_tracked")
        if tensor.is_meta or not (tensor.dtype in FLOATS or (counter and tensor.dtype in WHOLE)):
            kind = tensor.kind if isinstance(tensor, OddTensor) else f"a {tensor.dtype}"
            raise CheckpointError(
                f"{name}: {shortened(key)} is {kind} tensor, expected plain floating-point numbers. Save it dense, in "
                "floating point."
            )
        if counter:
            continue
        values = tensor.float()  # as the network will hold them
        if (
            not math.isfinite(values.sum()) and not (finite := torch.isfinite(values)).all()
        ):  # a sum takes a quarter of the time
            bad.append(f"{key} ({int((~finite).sum())} of {tensor.numel()})")
        elif key.endswith("running_var") and (tensor < 0).any():
            raise CheckpointError(f"{name}: {key} holds negative variances. The file is damaged.")
    if bad:
        more = f" and {len(bad) - SHOWN} more tensors" if len(bad) > SHOWN else ""
        raise CheckpointError(
            f"{name}: NaN or infinite values in {', '.join(bad[:SHOWN])}{more}. Expected finite weights: the training "
            "diverged or the file is damaged, take an earlier checkpoint."
        )
