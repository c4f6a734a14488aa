"""Calibration: batch-norm statistics of a plan, as the exact cumulative average over batches (arXiv 1903.05134, sec. 3.1).

Every norm normalizes with the batch's own statistics while it runs; what is kept is the average, over batches, of the
batch mean and of the unbiased batch variance, each batch counting alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from slimtrain.base.errors import UserError
from slimtrain.models.channels import ChannelPlan
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.ordinary import uncast
from slimtrain.slimmable.sync_norm import OneValueError


@torch.inference_mode(False)  # statistics that are made within can be read where gradients are taken
@torch.no_grad()
def calibrate(
    network: SlimmableNetwork,
    plans: Sequence[ChannelPlan],
    batches: Iterable[Tensor],
    forward: Callable[[Tensor], Any] | None = None,
) -> int:
    """Give every plan of `plans` the statistics of `batches`, each [N, C, H, W]; the number of batches. `forward`: what runs
    every norm of the network on a batch, where that is not the network itself.

    All plans see each batch in turn, so the images are read once. Statistics that a plan had are replaced once all is
    done: an error leaves the network as it was. Raises UserError for a batch with one value per channel somewhere,
    which has no variance, and for no batches.

    Under several processes each gives its share of every batch, with norms synchronized: all get the statistics that
    one process would.

    >>> import slimtrain, torch
    >>> network = slimtrain.SlimmableNetwork(slimtrain.published_spec("us_mobilenet_v1", classes=10))
    >>> slimtrain.calibrate(network, [network.spec.plan(0.33)], [torch.rand(4, 3, 64, 64)])
    1
    """
    before = network.calibrated
    training = network.training
    network.eval()
    seen = 0
    try:
        for plan in plans:
            network.set_statistics(plan, network.blank_statistics(plan))
        for batch in batches:
            seen += 1
            with network.averaging(1 / seen), uncast():  # the k-th of k values moves their average by a k-th of its distance
                for plan in plans:
                    with network.at(plan):
                        (forward or network)(batch)
    except OneValueError as error:
        network.replace_calibrated(before)
        raise UserError(
            f"calibration batch {seen} has {len(batch)} image{'s' * (len(batch) > 1)} of {batch.shape[-1]} pixels: "
            "some layer sees one value per channel, which has no variance. Choose larger batches: --calibration-batch-size, "
            "or batch_size."
        ) from error
    except BaseException:
        network.replace_calibrated(before)
        raise
    finally:
        network.train(training)
    if not seen:
        network.replace_calibrated(before)
        raise UserError("there are no images to calibrate with.")
    return seen
