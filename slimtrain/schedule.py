"""Learning rates, a function of the step: nothing to save, nothing to restore. No torch."""

from __future__ import annotations

import math

from slimtrain.config.config import Config


def learning_rate(config: Config, step: int, steps_per_epoch: int) -> float:
    """The learning rate of `step` (from 0), as the schedule sets it per iteration.

    Linear falls to 0, cosine as half a wave (arXiv 1608.03983, without restarts), exponential by `gamma` an epoch,
    multistep by `gamma` at each milestone. Meanwhile warm-up rises linearly, its last step reaching the full rate.
    """
    total = config.epochs * steps_per_epoch
    epoch, done = step / steps_per_epoch, step / total
    factor = {
        "linear": 1 - done,
        "cosine": (1 + math.cos(math.pi * done)) / 2,
        "exponential": config.gamma**epoch,
        "multistep": config.gamma ** sum(epoch >= milestone for milestone in config.milestones),
    }[config.schedule]
    warmup = config.warmup_epochs * steps_per_epoch
    return config.lr * factor * min(1.0, (step + 1) / warmup if warmup else 1.0)
