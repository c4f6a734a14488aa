"""Random images where torch reads them: the shared host buffers themselves, or copies of them on the GPU."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.cells.cell import Array, Inputs
from benchmarks.cells.inputs import cache_bytes
from slimexport.target.precision import row_of

LEAST = 2  # buffers to rotate among
MEMORY_SHARE = 1 / 4  # of what is free on a GPU; all networks of a group read the same buffers


def memory_format(device: str, precision: str, images: bool = True) -> torch.memory_format:
    """The layout that torch is faster in, which its users are told to choose.

    On a CPU that is channels_last: 5 to 50 % faster for every network tried, dense and slimmable, at batches 1 and 8. On a GPU
    it is what tensor cores read (fp16, bf16, tf32); fp32 without TF32 does not run on them, and stays contiguous. So do inputs
    that are no `images`.
    """
    if not images:
        return torch.contiguous_format
    return torch.contiguous_format if device == "cuda" and not row_of(precision).on_tensor_cores else torch.channels_last


def as_tensor(noise: Array, layout: torch.memory_format) -> Tensor:
    """Noise [N, C, H, W], or of another shape, contiguous, as a tensor of that shape that shares its memory, in any layout.

    In channels_last each number is another pixel's than in `noise`: of independent noise that makes other images, as good.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of an array that may not be written to, which nobody does
        tensor = torch.from_numpy(noise)
    if layout == torch.channels_last:
        count, channels, height, width = noise.shape
        return tensor.reshape(count, height, width, channels).permute(0, 3, 1, 2)
    return tensor


@dataclass(eq=False)
class Buffers:
    """Images [batch, C, H, W] where the network reads them, in turns, and for a GPU the page-locked host memory that they are
    copied from, where copies are measured. `cache_bytes` is the size of the cache that they are to exceed twice."""

    inputs: Inputs
    images: list[Tensor]
    cache_bytes: int
    pinned: list[Tensor] = field(default_factory=list)

    @property
    def settings(self) -> dict[str, int]:
        """What results say of them."""
        size = sum(tensor.nbytes for tensor in self.images)
        return {"input_buffers": len(self.images), "input_bytes": size, "cache_bytes": self.cache_bytes}


# By the id of the inputs they are of, which a value holds: nothing else gets that id for as long as the value is there.
_shared: weakref.WeakValueDictionary[Hashable, Buffers] = weakref.WeakValueDictionary()


def open_buffers(inputs: Inputs, batch: int, layout: torch.memory_format, device: str, transfers: bool) -> Buffers:
    """The buffers on `device`, together larger than twice its cache, as far as a GPU's memory has room for them.

    All networks that are open at a time share them; they go with the last one.
    """
    key = (id(inputs), batch, layout, device, transfers)
    buffers = _shared.get(key)
    if buffers is None:
        buffers = _on_gpu(inputs, batch, layout, transfers) if device == "cuda" else _on_host(inputs, batch, layout)
        _shared[key] = buffers
    return buffers


def _on_host(inputs: Inputs, batch: int, layout: torch.memory_format) -> Buffers:
    """The inputs' own memory."""
    cache = cache_bytes()
    return Buffers(inputs, [as_tensor(noise, layout) for noise in inputs.buffers(batch, cache)], cache)


def _on_gpu(inputs: Inputs, batch: int, layout: torch.memory_format, transfers: bool) -> Buffers:
    """Copies, two at least."""
    cache = int(torch.cuda.get_device_properties(0).L2_cache_size)
    noise = inputs.buffers(batch, cache)
    room = int(MEMORY_SHARE * torch.cuda.mem_get_info()[0]) // noise[0].nbytes
    tensors = [as_tensor(buffer, layout) for buffer in noise[: max(LEAST, room)]]
    pinned = [torch.empty_like(tensor, pin_memory=True).copy_(tensor) for tensor in tensors] if transfers else []
    return Buffers(inputs, [torch.empty_like(tensor, device="cuda").copy_(tensor) for tensor in tensors], cache, pinned)
