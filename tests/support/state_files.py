"""Weights read from a file as the package reads them."""

from __future__ import annotations

from pathlib import Path

import torch

from slimtrain.checkpoints.reading import find_state_dict, read_content


def read_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """Bare key -> CPU tensor, in file order; prefixes and wrappings are taken off. Raises CheckpointError."""
    return find_state_dict(read_content(path), Path(path).name)
