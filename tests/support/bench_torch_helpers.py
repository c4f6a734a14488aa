"""What the tests of the torch runners share: a few images, cells, and a network that is quick to compile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from benchmarks.cells.backends import TORCH_EAGER
from benchmarks.cells.cell import Array, Cell, Options
from benchmarks.runners.opening import open_file
from slimexport.onnx_files.typed import to_typed
from slimtrain.data.noise import noise_images
from tests.support.onnx_writing import module_onnx

SIZE = 32  # pixels


class FewImages:
    """Three read-only buffers, whatever cache there is."""

    def __init__(self, size: int = SIZE) -> None:
        self.size = size
        self.asked: list[tuple[int, int]] = []

    def buffers(self, batch: int, cache_bytes: int) -> list[Array]:
        self.asked.append((batch, cache_bytes))
        noise = noise_images(3 * batch, self.size, seed=5).reshape(3, batch, 3, self.size, self.size)
        noise.setflags(write=False)
        return list(noise)


class NoRoom:
    """Images that the host has no memory for."""

    def buffers(self, batch: int, cache_bytes: int) -> list[Array]:
        raise MemoryError


def cell(**values: Any) -> Cell:
    """A cell of the network in `tiny.onnx`, changed by `values`."""
    known: dict[str, Any] = {
        "bundle": "b",
        "network": "tiny",
        "name": "tiny_x0_5",
        "plan": "x0_5",
        "width": 0.5,
        "label": "0.5x",
        "file": "tiny.onnx",
        "backend": TORCH_EAGER,
        "precision": "fp32",
        "batch": 2,
        "image_size": SIZE,
        "macs": 1,
        "params": 1,
        "size_bytes": 1,
    }
    return Cell(**{**known, **values})


def open_torch(cell: Cell, folder: Path, inputs: Any, options: Options) -> Any:
    """The runner of a cell's file in `folder`, whether or not a manifest describes it."""
    return open_file(cell, folder / cell.file, inputs, options)


def tiny_network(channels: int = 8) -> nn.Sequential:
    """Two convolutions and a classifier of five classes."""
    torch.manual_seed(channels)
    return nn.Sequential(
        *(nn.Conv2d(3, channels, 3, 2, 1), nn.ReLU6(inplace=True)),
        *(nn.Conv2d(channels, channels, 3, 1, 1, groups=channels), nn.ReLU(inplace=True)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(channels, 5)),
    ).eval()


def write_tiny(folder: Path, channels: int = 8, precision: str = "fp32", file: str = "tiny.onnx") -> nn.Sequential:
    """Write the tiny network; the network in torch, in float32."""
    network = tiny_network(channels)
    model = module_onnx(network, SIZE, {"precision": "fp32"})
    if precision != "fp32":
        model = to_typed(model, precision)[0]
    onnx.save(model, folder / file)
    return network


def probes(count: int = 2, size: int = SIZE) -> Array:
    """Images float32 [count, 3, size, size]."""
    return noise_images(count, size, seed=9)


@torch.inference_mode()
def torch_logits(network: nn.Module, images: Array) -> Array:
    """A network's logits, by a plain call."""
    logits: Array = network(torch.from_numpy(images)).numpy()
    return logits


def gap(outputs: Array, expected: Array) -> float:
    """The largest difference, relative to the largest expected value; NaN where something is not finite."""
    assert outputs.shape == expected.shape
    return float(np.abs(outputs.astype(np.float64) - expected).max() / np.abs(expected).max())
