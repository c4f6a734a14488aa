"""Examples that take no memory."""

from __future__ import annotations

import resource

import pytest
import torch

from slimtrain.tracing.untouched import LARGE, untouched


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_they_have_the_shape_and_type_that_is_asked_for(dtype: torch.dtype) -> None:
    for shape in ((2, 3), (LARGE // 64, 64), (0, 4), ()):
        tensor = untouched(shape, dtype)
        assert tuple(tensor.shape) == shape and tensor.dtype == dtype and tensor.is_contiguous()


def test_more_than_the_machine_has_can_be_asked_for() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert untouched((1009 * 100, 800, 28, 28), torch.float32).numel() == 1009 * 100 * 800 * 28 * 28  # 253 GB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB
