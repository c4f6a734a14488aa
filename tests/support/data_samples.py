"""What samples hold, as plain values."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import Any

import pytest
import torch

from slimtrain.data.samples import Samples


def labels(samples: Samples) -> list[int]:
    return [samples.label(i) for i in range(len(samples))]


def pixels(samples: Samples, index: int) -> torch.Tensor:
    image = samples.image(index)
    assert isinstance(image, torch.Tensor) and image.dtype == torch.uint8
    return image


def kill_loading_processes(monkeypatch: pytest.MonkeyPatch, kind: type[Any]) -> None:
    """Processes that open an image of `kind` are killed, as the kernel does where memory is short; the main one is not."""
    original = kind.image

    def image(self: Any, index: int) -> Any:
        if multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, index)

    monkeypatch.setattr(kind, "image", image)
