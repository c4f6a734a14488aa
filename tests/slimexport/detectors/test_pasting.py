"""Masks in a photograph against torchvision's pasting, and their runs against COCO's tools."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.models.detection.roi_heads import paste_masks_in_image

from slimexport.detectors.pasting import MASKED, pasted, placed
from slimtrain.data.detection.masks import mask_of_runs, runs_of_text

BOXES = [  # within the photograph of 90 x 80 pixels, beyond each of its edges, beyond all, within a pixel, beside it
    *([10.0, 20.0, 30.0, 40.5], [-12.5, 7.0, 20.0, 30.0], [70.2, -9.0, 130.7, 22.0], [-5.5, -6.5, 95.0, 91.0]),
    *([40.0, 40.0, 40.2, 40.1], [0.0, 0.0, 90.0, 80.0], [89.9, 79.9, 120.0, 300.0]),
]
SIZE = (90, 80)


def drawn(side: int = 28, seed: int = 0) -> np.ndarray:
    """Smooth probabilities, as masks are."""
    rough = torch.rand(1, 1, 5, 5, generator=torch.Generator().manual_seed(seed))
    smooth: np.ndarray = torch.nn.functional.interpolate(rough, (side, side), mode="bicubic").clamp(0, 1)[0, 0].numpy()
    return smooth


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("side", [28, 1, 56])
def test_a_mask_is_where_torchvision_pastes_it(box: list[float], side: int) -> None:
    for seed in range(4):
        mask = drawn(side, seed)
        expected = paste_masks_in_image(torch.from_numpy(mask)[None, None], torch.tensor([box]), (80, 90))[0, 0].numpy()
        whole = np.zeros((80, 90), np.float32)
        rows, columns, probabilities = pasted(mask, box, SIZE)
        whole[rows, columns] = probabilities
        np.testing.assert_allclose(whole, expected, atol=2e-5)
        own = placed(mask, box, SIZE)
        given = mask_of_runs(runs_of_text(own.counts), own.height, own.width)
        sure = np.abs(expected - MASKED) > 2e-5
        assert (given == (expected > MASKED))[sure].all()


def test_runs_are_read_by_coco_s_tools() -> None:
    library = pytest.importorskip("faster_coco_eval.core.mask", reason="the extra detection is not installed")
    own = placed(drawn(), [10, 20, 70, 60], SIZE)
    read = library.decode({"size": [80, 90], "counts": own.counts.encode()})
    assert 0 < read.sum() < 2400 and own.plain == {"size": [80, 90], "counts": own.counts}
    assert (read == mask_of_runs(runs_of_text(own.counts), 80, 90)).all()


def test_a_box_of_no_measure_ends() -> None:
    for box in ([-1e300, -1e300, 1e300, 1e300], [-3e38, 1.0, 3e38, 2.0]):
        assert sum(runs_of_text(placed(drawn(), box, SIZE).counts)) == 7200
