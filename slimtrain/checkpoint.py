"""Opening a checkpoint: read, identify, check, and put the weights into a slimmable network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from slimtrain.errors import CheckpointError
from slimtrain.files import read_state_dict
from slimtrain.identify import identify
from slimtrain.published_config import IMAGENET_MEAN, IMAGENET_STD, PublishedConfig, read_published_config
from slimtrain.slimmable import SlimmableNetwork
from slimtrain.spec import NetworkSpec

RANDOM = "random:"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass
class Checkpoint:
    """A slimmable network with its weights, in evaluation mode, and where they came from.

    `file` is the file's name, `random:NETWORK` for an untrained network, whose `sha256` is None. `mean` and `std` are
    those of the images it was trained on, per channel, for values from 0 to 1.
    """

    file: str
    sha256: str | None
    network: SlimmableNetwork
    image_size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @property
    def spec(self) -> NetworkSpec:
        return self.network.spec

    @property
    def untrained(self) -> bool:
        return self.sha256 is None


def open_checkpoint(
    source: str | Path,
    *,
    network: str | None = None,
    switches: Sequence[float] | None = None,
    config: str | Path | None = None,
) -> Checkpoint:
    """The checkpoint at a path, or an untrained network for `random:NETWORK`.

    `network`, `switches` (widths in stored order) and `config` (a published `apps/NAME.yml`) settle what shapes leave
    open. Raises CheckpointError for a file that is damaged, unsafe or none of the networks, UserError for a bad option.
    """
    if isinstance(source, str) and source.startswith(RANDOM):
        from slimtrain.untrained import untrained_network

        return Checkpoint(source, None, untrained_network(source.removeprefix(RANDOM)))
    path = Path(source)
    settings = read_published_config(config) if config else PublishedConfig()
    state = read_state_dict(path)
    spec = identify(
        state,
        path.name,
        network=network or settings.network,
        switches=switches,
        expected_widths=settings.switches,
    )
    check_values(state, path.name)
    return Checkpoint(
        path.name, file_sha256(path), load_network(spec, state), settings.image_size, settings.mean, settings.std
    )


def load_network(spec: NetworkSpec, state: Mapping[str, Tensor]) -> SlimmableNetwork:
    """The network of `spec` holding `state`, float32, in evaluation mode."""
    with torch.device("meta"):
        network = SlimmableNetwork(spec)
    tensors = {}
    for key, empty in network.state_dict().items():
        value = state.get(key)
        tensors[key] = torch.zeros(empty.shape, dtype=empty.dtype) if value is None else value.to(empty.dtype)
    network.load_state_dict(tensors, assign=True)
    return network.eval()


def check_values(state: Mapping[str, Tensor], name: str) -> None:
    """CheckpointError where a tensor is not numbers, holds NaN or infinite values, or a variance is negative."""
    bad = []
    for key, tensor in state.items():
        counter = key.endswith("num_batches_tracked")
        if tensor.layout != torch.strided or tensor.is_meta or not (counter or tensor.dtype in FLOATS):
            raise CheckpointError(
                f"{name}: {key} is a {tensor.dtype} {tensor.layout} tensor on {tensor.device}, expected plain floating-point "
                "numbers."
            )
        if counter:
            continue
        finite = torch.isfinite(tensor.float())  # as the network will hold them
        if not finite.all():
            bad.append(f"{key} ({int((~finite).sum())} of {tensor.numel()})")
        elif key.endswith("running_var") and (tensor < 0).any():
            raise CheckpointError(f"{name}: {key} holds negative variances. The file is damaged.")
    if bad:
        more = f" and {len(bad) - 4} more tensors" if len(bad) > 4 else ""
        raise CheckpointError(
            f"{name}: NaN or infinite values in {', '.join(bad[:4])}{more}. Expected finite weights: the training diverged "
            "or the file is damaged, take an earlier checkpoint."
        )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
