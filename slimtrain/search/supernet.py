"""One configuration tells three runs: of the network that is searched, of the search, of the networks found. No torch.

The searched network (AutoSlim's "slimmable network", arXiv 1903.11728, sec. 3) is the universally slimmable one of the same
architecture, trained with non-uniform widths for a share of the epochs, on the training images that the search does not use.
"""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from slimtrain.base.errors import UserError
from slimtrain.config.config import SEARCH_KEYS, Config, plain
from slimtrain.config.reading import read_config
from slimtrain.costs.cost_model import parse_targets
from slimtrain.models.registry import sibling

SEARCH = "_search"
SUPERNET, PLANS = "supernet", "plans"


def search_folder(config: Config) -> Path:
    """Where a search goes that is not told where: beside the run that the configuration trains."""
    return beside(Path(config.output_dir), SEARCH)


def beside(folder: Path, suffix: str) -> Path:
    """A folder's name with `suffix`, once."""
    folder = folder if folder.name not in ("", "..") else folder.resolve()
    return folder if folder.name.endswith(suffix) else folder.with_name(folder.name + suffix)


def held_out(config: Config) -> tuple[int, int]:
    """(how many training images are kept aside for the search, how many of the ones held out lie before them).

    `holdout` keeps images for the tests of what is trained: the search uses others. Where there is no `search_holdout` it
    uses these, and what was found is tested on the data's own test images. UserError where none are held out.
    """
    count = config.search_holdout or config.holdout
    if not count:
        raise UserError(
            "search: no training images are held out to search on. Set search_holdout to a number of them (50,000 of "
            "ImageNet's, as published): --set search_holdout=N."
        )
    return count, config.holdout if config.search_holdout else 0


def supernet_config(config: Config, folder: Path) -> Config:
    """The training of the network that the search in `folder` slims. Its test images are the ones held out of the training
    images: neither training nor search ever sees the real ones.

    UserError where the architecture has no universally slimmable network, and where no images are held out.
    """
    network = sibling(config.network, "us")
    return dataclasses.replace(
        with_epochs(config, max(1, round(config.epochs * config.search_share))),
        network=network,
        switches=(),
        width_range=config.search_widths,
        channel_lists=(),
        nonuniform=True,
        width_step=0.0,
        distill=True,
        holdout=sum(held_out(config)),
        test_widths=(),
        test_only=False,
        output_dir=str(folder / SUPERNET),
        weights=f"{network}.pt",
        layout="own",
        best_by="widest",
        pretrained="",
        reset_classifier=False,
    )


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


@dataclass(frozen=True)
class SearchPlan:
    """A search as it was asked for: `config`, the `source` it was read from, the run's folder, and the checkpoint of the
    network to slim, where one is given.

    UserError where the configuration does not tell a search: no targets, no held-out images, no such network.
    """

    config: Config
    source: str
    folder: Path
    ckpt: str | None = None

    def __post_init__(self) -> None:
        if not self.config.search_targets:
            raise UserError("search: no targets. Name the costs to find networks for, as in --targets 150M,300M.")
        kept, _ = held_out(self.config)
        if self.config.search_images > kept:
            raise UserError(f"search_images is {self.config.search_images}, but only {kept} are held out (search_holdout).")

    @cached_property
    def supernet(self) -> Config:
        """The training of the network to slim."""
        return supernet_config(self.config, self.folder)

    @property
    def targets(self) -> list[float]:
        """Descending."""
        return parse_targets(",".join(self.config.search_targets), self.config.search_cost)

    @property
    def final(self) -> Config:
        """What the found networks are trained with. Images that the search used do not test them."""
        return self.config if self.config.search_holdout else dataclasses.replace(self.config, holdout=0)

    def next_command(self) -> str:
        """The command that trains what was found, with what was changed of the source."""
        before, now = plain(read_config(self.source)), plain(self.final)
        told = {key: now[key] for key in now if now[key] != before[key] and key not in SEARCH_KEYS and key != "output_dir"}
        changes = [word for key, value in told.items() for word in ("--set", f"{key}={_one_line(value)}")]
        return shlex.join(["python", "-m", "slimtrain", "train", self.source, *changes, "--plans", str(self.folder / PLANS)])


def _one_line(value: object) -> str:
    """A value as YAML, for `--set`."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).splitlines()[0]
