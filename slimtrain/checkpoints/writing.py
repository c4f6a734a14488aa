"""Writing checkpoint files, of either layout (`own_layout.py`, `published_layout.py`): the whole file or none."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slimtrain.base.files import RUN, write_atomically


def save(content: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint so that `path` holds either what it held before or the whole new file.

    ResourceError for a full disk, UserError where it cannot be written; the old file stays.
    """
    buffer = io.BytesIO()
    torch.save(_own_storage(content), buffer)
    write_atomically(path, buffer.getbuffer(), RUN)


def _own_storage(value: Any) -> Any:
    """`value` with tensors that are not views: torch.save writes a view's whole storage."""
    if isinstance(value, Tensor):
        whole = value.untyped_storage().nbytes() == value.numel() * value.element_size()
        return value if whole else value.clone()
    if isinstance(value, Mapping):
        return {key: _own_storage(inside) for key, inside in value.items()}
    return [_own_storage(inside) for inside in value] if isinstance(value, list) else value
