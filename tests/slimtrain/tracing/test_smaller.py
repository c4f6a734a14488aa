"""Smaller images: what every tap still meets."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimtrain.tracing.equality import NotEqualError, check_equal
from slimtrain.tracing.slimmed import make_slimmable, trace
from slimtrain.tracing.smaller import Window, smaller


@pytest.mark.parametrize(
    ("taps", "stride", "padding", "dilation"), [(3, 1, 1, 1), (3, 2, 1, 1), (5, 2, 2, 1), (3, 1, 2, 2), (2, 2, 0, 1)]
)
def test_a_window_is_met_where_every_tap_has_a_gradient(taps: int, stride: int, padding: int, dilation: int) -> None:
    window = Window(taps, stride, padding, dilation)
    for size in range(dilation * (taps - 1) + 1 - 2 * padding, 12):
        if size > 0:
            weight = torch.zeros(1, 1, taps, requires_grad=True)
            nn.functional.conv1d(torch.ones(1, 1, size), weight, None, stride, padding, dilation).sum().backward()  # type: ignore[no-untyped-call]
            assert weight.grad is not None and window.met(size) == bool(weight.grad.all()), size


class Striding(nn.Module):
    """Its last convolution takes every second place: of a map of 2, only that of one output."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.last, self.head = nn.Conv2d(3, 8, 16, 16), nn.Conv2d(8, 8, 3, 2, 1), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.last(self.stem(x)).mean((2, 3)))


def test_the_first_tap_of_a_stride_counts() -> None:
    """Images of 32 pixels would give it a map of 2, where its first tap meets padding alone."""
    module, example = Striding(), torch.zeros(2, 3, 256, 256)
    assert smaller(trace(module, example).graph, (256, 256)) == (64, 64)
    slimmable = make_slimmable(module, example)
    with torch.no_grad():
        slimmable.state_dict()["last.weight"][:, :, 0, 0] += 0.1
    with pytest.raises(NotEqualError, match="differs"):
        check_equal(slimmable, module, example)
