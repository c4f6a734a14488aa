"""Images where torch reads them."""

from __future__ import annotations

import warnings
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.runners.torch.images import as_tensor, memory_format, open_buffers
from tests.support.bench_torch_helpers import FewImages


def test_layouts() -> None:
    assert memory_format("cpu", "fp32") == memory_format("cpu", "bf16") == torch.channels_last
    assert memory_format("cuda", "fp16") == memory_format("cuda", "tf32") == torch.channels_last
    assert memory_format("cuda", "fp32") == torch.contiguous_format


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("batch", [1, 4])
def test_tensors_share_the_noise_in_any_layout(layout: torch.memory_format, batch: int) -> None:
    noise = FewImages().buffers(batch, 0)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = as_tensor(noise, layout)
    assert tensor.shape == noise.shape and tensor.data_ptr() == noise.ctypes.data
    assert tensor.is_contiguous(memory_format=layout)
    assert tensor.stride() == torch.empty(noise.shape).contiguous(memory_format=layout).stride()
    assert np.array_equal(np.sort(tensor.numpy(), axis=None), np.sort(noise, axis=None))  # every number once


def test_open_networks_share_their_buffers() -> None:
    images, others = FewImages(), FewImages()
    arguments = (2, torch.channels_last, "cpu", False)
    first = open_buffers(images, *arguments)
    assert open_buffers(images, *arguments) is first
    assert open_buffers(others, *arguments) is not first
    assert open_buffers(images, 1, *arguments[1:]) is not first
    assert open_buffers(images, *arguments[:3], True) is not first
    assert [batch for batch, _ in images.asked] == [2, 1, 2]
    kept = weakref.ref(first)
    del first
    assert kept() is None  # they go with the last network that reads them


def test_a_gpus_copies_fit_into_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a made-up GPU, whose memory is the host's."""
    empty_like, size = torch.empty_like, 2 * 3 * 32 * 32 * 4

    def host(tensor: torch.Tensor, device: str = "cpu", pin_memory: bool = False) -> torch.Tensor:
        return empty_like(tensor)

    monkeypatch.setattr(torch, "empty_like", host)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(L2_cache_size=777))
    for free, count in ((100 * size, 3), (12 * size, 3), (8 * size, 2), (0, 2)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda free=free: (free, 1))
        images = FewImages()
        buffers = open_buffers(images, 2, torch.contiguous_format, "cuda", free > 8 * size)
        assert images.asked == [(2, 777)]
        assert buffers.settings == {"input_buffers": count, "input_bytes": count * size, "cache_bytes": 777}
        assert len(buffers.pinned) == (count if free > 8 * size else 0)
        for place, noise in enumerate(images.buffers(2, 0)[:count]):
            assert np.array_equal(buffers.images[place].numpy(), noise)
            assert not buffers.pinned or np.array_equal(buffers.pinned[place].numpy(), noise)
