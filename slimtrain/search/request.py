"""A search as it is asked for, and the three runs that one configuration tells: of the network that is searched, of the search
itself, of the networks found. No torch.
"""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from slimtrain.base.errors import UserError
from slimtrain.base.image_size import ImageSize
from slimtrain.config.config import LOSS, SEARCH_KEYS, Config, plain, singly
from slimtrain.config.reading import read_config
from slimtrain.config.run_folder import RESOLVED
from slimtrain.costs.cost_model import CostModel, cost_model, parse_targets
from slimtrain.models.width_spec import WidthSpec
from slimtrain.search.supernet import held_out, supernet_config

SEARCH = "_search"
PLANS = "plans"
OWN_COURSE = ("output_dir", "fit_batch", "scale_lr")  # of a run for itself: where batch_size and lr are set, they are false


def search_folder(config: Config) -> Path:
    """Where a search goes for which no folder is named: beside the run that the configuration trains."""
    return beside(Path(config.output_dir), SEARCH)


def beside(folder: Path, suffix: str) -> Path:
    """A folder's name with `suffix`, once."""
    folder = folder if folder.name not in ("", "..") else folder.resolve()
    return folder if folder.name.endswith(suffix) else folder.with_name(folder.name + suffix)


@dataclass(frozen=True)
class SearchRequest:
    """`config`, the search's `folder`, the checkpoint of the network to slim, where one is given, and the `source` that the
    configuration was read from (a file or one of our names), where one is known. `weights` names one of several sets of
    weights in the checkpoint.

    UserError where the configuration does not tell a search: no targets, no held-out images, no such network.
    """

    config: Config
    folder: Path
    ckpt: str | None = None
    source: str = ""
    weights: str | None = None

    def __post_init__(self) -> None:
        if not self.config.search_targets:
            raise UserError("search: no targets. Name the costs to find networks for, as in --targets 150M,300M.")
        kept, _ = held_out(self.config)
        if self.config.search_images > kept >= 1:
            raise UserError(f"search_images is {self.config.search_images}, but only {kept} are held out (search_holdout).")

    @cached_property
    def supernet(self) -> Config:
        """The training of the network to slim."""
        return supernet_config(self.config, self.folder)

    @property
    def by_loss(self) -> bool:
        """Whether what is searched by is a detector's loss."""
        return self.config.detector is not None and self.config.search_error == LOSS

    @property
    def targets(self) -> list[float]:
        """Descending."""
        return parse_targets(",".join(self.config.search_targets), self.config.search_cost)

    def cost(self, spec: WidthSpec, image_size: ImageSize) -> CostModel:
        """What the search saves, of plans of `spec` at `image_size`. UserError for a latency table of other ones."""
        table, device = self.config.latency_table, self.config.latency_device
        return cost_model(self.config.search_cost, spec, image_size, Path(table) if table else None, device or None)

    @property
    def final(self) -> Config:
        """What the found networks are trained with. Images that the search used do not test them."""
        return self.config if self.config.search_holdout else dataclasses.replace(self.config, holdout=0)

    def plan_file(self, name: str) -> Path:
        """Where the found plan of this name is written."""
        return self.folder / PLANS / f"{name}.yml"

    def next_command(self, model: str = "") -> str:
        """The command that trains what was found, with what was changed of the source: the folder's own copy of the
        configuration where no other is known. `model`: the module that was searched, where the checkpoint alone tells it."""
        source = self.source or str(self.folder / RESOLVED)
        final = self.final if self.final.model else dataclasses.replace(self.final, model=model)
        before, now = (singly(plain(config)) for config in (read_config(source), final))
        changed = [key for key in now if now[key] != before.get(key) and key not in (*SEARCH_KEYS, *OWN_COURSE)]
        words = [word for key in changed for word in ("--set", f"{key}={_one_line(now[key])}")]
        return shlex.join(["python", "-m", "slimtrain", "train", source, *words, "--plans", str(self.folder / PLANS)])


def _one_line(value: object) -> str:
    """A value as YAML, for `--set`."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).splitlines()[0]
