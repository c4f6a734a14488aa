"""Calibration: batch-norm statistics of a plan, as the exact cumulative average over batches (arXiv 1903.05134, sec. 3.1).

Every norm normalizes with the batch's own statistics while it runs; what is kept is the average, over batches, of the
batch mean and of the unbiased batch variance, each batch counting alike.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from slimtrain.errors import UserError
from slimtrain.layers import Statistics


@torch.no_grad()
def cumulative_statistics(networks: Iterable[nn.Module], batches: Iterable[Tensor]) -> list[dict[str, Statistics]]:
    """For each dense network: path of every `BatchNorm2d` -> (mean [C], unbiased variance [C]) over `batches`.

    All networks see each batch [N, 3, H, W] in turn, so the images are read once. The networks' norms are changed.
    Raises UserError for a batch with one value per channel somewhere, which has no variance, and for no batches.
    """
    networks = list(networks)
    norms = [{p: m for p, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)} for net in networks]
    for network, found in zip(networks, norms, strict=True):
        network.eval()
        for norm in found.values():
            norm.reset_running_stats()
            norm.momentum = None  # torch's spelling of a cumulative average
            norm.train()
    seen = 0
    for batch in batches:
        seen += 1
        for network in networks:
            try:
                network(batch)
            except ValueError as error:  # torch's: "Expected more than 1 value per channel when training"
                raise UserError(
                    f"calibration batch {seen} has {len(batch)} image{'s' * (len(batch) > 1)} of {batch.shape[-1]} pixels: "
                    "some layer sees one value per channel, which has no variance. Choose another --calibration-batch-size."
                ) from error
    if not seen:
        raise UserError("there are no images to calibrate with.")
    return [{path: _statistics(norm) for path, norm in found.items()} for found in norms]


def _statistics(norm: nn.BatchNorm2d) -> Statistics:
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean, norm.running_var
