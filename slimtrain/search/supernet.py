"""The training of the network that a search slims (AutoSlim's "slimmable network", arXiv 1903.11728, sec. 3). No torch.

It is the universally slimmable network of the same architecture, trained with non-uniform widths for a share of the epochs, on
the training images that the search does not use.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from slimtrain.base.errors import UserError
from slimtrain.config.config import Config
from slimtrain.config.rules import ANY, detector_kind, is_any
from slimtrain.models.registry import sibling

SUPERNET = "supernet"


def held_out(config: Config) -> tuple[float, int]:
    """(how many training images are kept aside for the search, or which share; how many of the ones held out lie before them).

    `holdout` keeps images for the tests of what is trained: the search uses others. Where there is no `search_holdout` it
    uses these, and what was found is tested on the data's own test images. UserError where none are held out, and for a share
    beside a number.
    """
    if config.search_holdout and 0 < config.holdout < 1:
        raise UserError(
            f"search: holdout is the share {config.holdout}, search_holdout the number {config.search_holdout}. Set "
            "holdout to a number too, or search_holdout to 0: the search then uses the share."
        )
    count = config.search_holdout or config.holdout
    if not count:
        raise UserError(
            "search: no training images are held out to search on. Set search_holdout to a number of them (50,000 of "
            "ImageNet's, as published): --set search_holdout=N."
        )
    return count, int(config.holdout) if config.search_holdout else 0


def supernet_config(config: Config, folder: Path) -> Config:
    """The training of the network that the search in `folder` slims. Its test images are the ones held out of the training
    images: neither training nor search ever sees the real ones.

    A module and a detector are their own widest, whatever `search_widths` says, and begin with their pretrained weights, where
    they have some.

    UserError where the architecture has no universally slimmable network, and where no images are held out.
    """
    kind = detector_kind(config.network)
    traced = bool(config.model or kind) or is_any(config.network)
    network = f"us_{kind}" if kind else f"us{ANY}" if traced else sibling(config.network, "us")
    low, high = config.search_widths
    start: dict[str, Any] = {} if config.model or kind else {"pretrained": "", "reset_classifier": False, "teacher": ""}
    changed = dataclasses.replace(
        with_epochs(config, max(1, round(config.epochs * config.search_share))),
        network=network,
        switches=(),
        width_range=(low, min(high, 1.0)) if traced else (low, high),
        channel_lists=(),
        channel_groups=(),
        nonuniform=True,
        width_step=0.0,
        distill=not kind,
        grow=(),
        grow_epochs=0,
        holdout=sum(held_out(config)),
        test_widths=(),
        test_only=False,
        output_dir=str(folder / SUPERNET),
        layout="own",
        best_by="widest",
        **start,
    )
    return dataclasses.replace(changed, weights=f"{changed.network_name}.pt")


def with_epochs(config: Config, epochs: int) -> Config:
    """A training of another length: its learning rate takes the same course in that time."""
    share = epochs / config.epochs
    return dataclasses.replace(
        config,
        epochs=epochs,
        milestones=tuple(milestone * share for milestone in config.milestones),
        warmup_epochs=config.warmup_epochs * share,
        gamma=config.gamma ** (1 / share) if config.schedule == "exponential" else config.gamma,
    )
