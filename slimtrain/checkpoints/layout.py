"""A state dict against the network that it should be: every key, every shape, every value."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from slimtrain.base.errors import CheckpointError
from slimtrain.base.text import count, some
from slimtrain.checkpoints.reading import StateDict
from slimtrain.models.width_spec import WidthSpec
from slimtrain.slimmable.network import SlimmableNetwork

Shape = tuple[int, ...]
IMAGE_CHANNELS = 3
SHOWN = 4  # tensors that a message names
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
    _check_image_channels({k: (held[k], expected[k]) for k in wrong}, name, spec)
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


def _check_image_channels(wrong: Mapping[str, tuple[Shape, Shape]], name: str, spec: WidthSpec) -> None:
    """CheckpointError where all that is wrong (key -> held and expected shape) is that images have other channels than 3."""
    stems = {k: h[1] for k, (h, e) in wrong.items() if e[1:2] == (IMAGE_CHANNELS,) and h == (*e[:1], *h[1:2], *e[2:])}
    if not wrong or stems.keys() != wrong.keys():
        return
    channels = next(iter(stems.values()))
    remedy = "Networks of other images cannot be read."
    if channels == 1:
        keys = ", ".join(stems)
        remedy = (
            "A network of gray images computes the same of their three equal channels once a third of its first weights is "
            f"given to each: before saving, for {keys}, state[key] = state[key].repeat(1, 3, 1, 1) / 3."
        )
    raise CheckpointError(
        f"{name}: is a {spec.name} for images of {count(channels, 'channel')}, expected {IMAGE_CHANNELS} (RGB). {remedy}"
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
        if tensor.layout != torch.strided or tensor.is_meta or not (counter or tensor.dtype in FLOATS):
            raise CheckpointError(
                f"{name}: {key} is a {tensor.dtype} {tensor.layout} tensor on {tensor.device}, expected plain floating-point "
                "numbers. Save it dense, in floating point."
            )
        if counter:
            continue
        finite = torch.isfinite(tensor.float())  # as the network will hold them
        if not finite.all():
            bad.append(f"{key} ({int((~finite).sum())} of {tensor.numel()})")
        elif key.endswith("running_var") and (tensor < 0).any():
            raise CheckpointError(f"{name}: {key} holds negative variances. The file is damaged.")
    if bad:
        more = f" and {len(bad) - SHOWN} more tensors" if len(bad) > SHOWN else ""
        raise CheckpointError(
            f"{name}: NaN or infinite values in {', '.join(bad[:SHOWN])}{more}. Expected finite weights: the training "
            "diverged or the file is damaged, take an earlier checkpoint."
        )
