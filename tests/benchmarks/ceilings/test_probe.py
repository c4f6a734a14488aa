"""What the probes share: noise to multiply, and room for it."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.ceilings.probe import noise, require_room
from benchmarks.cells.cell import NotMeasured


@pytest.mark.parametrize("shape", [(8, 8), (1024, 1024), (1500, 2000)])
def test_noise_is_noise_in_every_row(shape: tuple[int, int]) -> None:
    matrix = noise(shape)
    assert matrix.dtype == np.float32 and matrix.shape == shape
    assert abs(matrix.mean()) < 0.5 and 0.5 < matrix.std() < 1.5
    assert len({row.tobytes() for row in matrix}) == shape[0]
    assert len(np.unique(matrix)) > 0.9 * min(matrix.size, 1_000_003)
    assert not np.array_equal(matrix, noise(shape, 1))


def test_matrices_leave_most_of_the_memory_free() -> None:
    require_room(25, 100)
    require_room(10**12, None)
    with pytest.raises(NotMeasured, match="three matrices take 2 MiB, and 4 MiB"):
        require_room(2 << 20, 4 << 20)
