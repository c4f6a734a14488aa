"""What a training run is told: one frozen dataclass, read from YAML, checked once. No torch.

A configuration is a packaged name (`digits`, `us_mobilenet_v1`), a YAML file with the keys of `Config`, or a published
one (`app:apps/NAME.yml`, see published_keys.py). `--set key=value` changes any key.
"""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from slimtrain.base.errors import UserError, nearest
from slimtrain.costs.cost_model import parse_targets
from slimtrain.models.published import IMAGENET_MEAN, IMAGENET_STD, published_spec
from slimtrain.models.registry import split_name
from slimtrain.models.spec import NetworkSpec

RESERVED = ("last.pt", "best.pt", "config.yml", "summary.csv", "train.log", "tensorboard", ".", "..")


def _choice(*values: str) -> dict[str, Any]:
    return {"choices": values}


def _least(value: float, most: float = math.inf) -> dict[str, Any]:
    return {"least": value, "most": most}


@dataclass(frozen=True)
class Config:
    """One training run. Empty tuples, 0 and "" mean the default that the comment names."""

    # the network
    network: str  # a name of the registry: us_mobilenet_v1
    switches: tuple[float, ...] = ()  # S: the widths that are trained; as published
    width_range: tuple[float, ...] = ()  # US: narrowest and widest; as published
    channel_lists: tuple[tuple[int, ...], ...] = ()  # AutoSlim: one list per switch; as published
    classes: int = field(default=0, metadata=_least(0))  # as many as the data has
    stem_stride: int = field(default=2, metadata=_least(1, 2))  # 1 for small images

    # the data
    data: str = field(default="folder", metadata=_choice("imagenet", "folder", "cifar10", "cifar100", "digits", "fake"))
    data_dir: str = ""  # holds train/ and val/, or CIFAR's files
    holdout: int = field(default=0, metadata=_least(0))  # training images kept aside for testing (50,000: the AutoSlim split)
    image_size: int = field(default=224, metadata=_least(1))  # pixels
    augmentation: str = field(
        default="mobile", metadata=_choice("basic", "mobile", "inception", "cifar", "digits", "none")
    )  # see augment.py
    mean: tuple[float, ...] = IMAGENET_MEAN  # per channel, of values from 0 to 1
    std: tuple[float, ...] = IMAGENET_STD
    workers: int = field(default=4, metadata=_least(0))  # processes that load images, per training process, up to its cores
    batch_size: int = field(default=256, metadata=_least(1))  # images per step, over all processes
    test_batch_size: int = field(default=0, metadata=_least(0))  # over all processes; batch_size
    drop_last: bool = True  # leave out an epoch's last batch where it is short

    # the rule
    sandwich: int = field(default=4, metadata=_least(2))  # US: widths per step, the widest and the narrowest among them
    nonuniform: bool = False  # US: the widths drawn between are drawn for every channel group by itself
    width_step: float = field(default=0.0, metadata=_least(0, 1))  # US: draw from a grid; 0 draws from all widths
    distill: bool = False  # inplace distillation: the widest teaches the others
    label_smoothing: float = field(default=0.0, metadata=_least(0, 0.999))

    # optimization
    epochs: int = field(default=100, metadata=_least(1))
    lr: float = field(default=0.1, metadata=_least(0))
    schedule: str = field(default="cosine", metadata=_choice("multistep", "exponential", "linear", "cosine"))
    milestones: tuple[float, ...] = ()  # multistep: epochs at which lr is multiplied by gamma
    gamma: float = field(default=0.1, metadata=_least(0))  # multistep: per milestone; exponential: per epoch
    warmup_epochs: float = field(default=0.0, metadata=_least(0))  # lr rises linearly from 0
    momentum: float = field(default=0.9, metadata=_least(0, 1))
    nesterov: bool = True
    weight_decay: float = field(default=1e-4, metadata=_least(0))  # of ordinary convolutions and linear weights
    accumulate: int = field(default=1, metadata=_least(1))  # parts that a step's batch is computed in
    ema: float = field(default=0.0, metadata=_least(0, 0.99999999))  # decay per step of averaged weights; 0: none
    seed: int = field(default=0, metadata=_least(0, 2**31 - 1))

    # after training
    test_widths: tuple[float, ...] = ()  # US: widths to calibrate and test, beside the ends of the range
    calibration_batches: int = field(default=5, metadata=_least(0))  # training batches; 0: no calibration
    test_every: int = field(default=1, metadata=_least(0))  # epochs between tests; 0: at the end only
    test_only: bool = False  # test `pretrained`, train nothing

    # the search for channel counts (`python -m slimtrain search`; arXiv 1903.11728); training takes no notice of it
    search_targets: tuple[str, ...] = ()  # costs to find networks for: 150M, 1.2G; of a latency table, milliseconds
    search_cost: str = field(default="macs", metadata=_choice("macs", "params", "activations", "latency"))
    latency_table: str = ""  # latency: JSON as `python -m benchmarks channels` writes it
    latency_device: str = ""  # latency: the device to find networks for, as the table names it; any
    search_criterion: str = field(default="error", metadata=_choice("error", "error-per-cost"))  # error: as published
    search_statistics: str = field(default="batch", metadata=_choice("batch", "calibrated"))  # of a candidate's norms
    search_widths: tuple[float, ...] = (0.15, 1.5)  # of the network that is trained for the search, non-uniform
    search_share: float = field(default=0.15, metadata=_least(0, 10))  # of the epochs, that it is trained for
    search_holdout: int = field(default=0, metadata=_least(0))  # training images kept aside for the search; holdout
    search_images: int = field(default=0, metadata=_least(0))  # of these, how many measure a candidate; all
    search_batch: int = field(default=0, metadata=_least(0))  # images per batch of the search; test_batch_size, or batch_size
    search_cache_gib: float = field(default=2.0, metadata=_least(0))  # opened images kept; 10,000 of 224 px take 5.6
    search_amp: str = field(default="auto", metadata=_choice("auto", "none", "bf16", "fp16"))  # auto: bf16 on GPUs
    search_groups: int = field(default=10, metadata=_least(1))  # a step takes a group's channels over this, rounded
    search_finish: bool = False  # then train what was found, beside uniform widths of equal cost, and export it
    search_train_epochs: int = field(default=0, metadata=_least(0))  # of these trainings; as many as `epochs`

    # the machine
    device: str = field(default="auto", metadata=_choice("auto", "cpu", "cuda"))
    amp: str = field(default="none", metadata=_choice("none", "bf16", "fp16"))
    channels_last: bool = True
    compile: bool = False
    sync_norm: bool = False  # batch statistics over all processes
    threads: int = field(default=0, metadata=_least(0))  # of torch on the CPU; torch's own choice

    # files
    output_dir: str = ""  # runs/CONFIG
    weights: str = ""  # the finished checkpoint's name; NETWORK.pt
    layout: str = field(default="own", metadata=_choice("own", "published"))
    checkpoint_every: int = field(default=0, metadata=_least(0))  # steps between checkpoints within an epoch; 0: none
    log_every: int = field(default=50, metadata=_least(1))  # steps between lines of progress
    best_by: str = "widest"  # whose error best.pt follows: widest, narrowest, mean, or a width
    tensorboard: bool = False
    pretrained: str = ""  # a checkpoint to start from
    reset_classifier: bool = False  # leave out its classifier: for other classes
    resume: str = "none"  # none, auto (this folder's last.pt where there is one), or a path

    def __post_init__(self) -> None:
        _check(self)

    @property
    def family(self) -> str:
        """`s`, `us` or `autoslim`."""
        return split_name(self.network)[0]

    @property
    def loaders(self) -> int:
        """Processes that load images here: more than cores would only be in each other's way."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(self.workers, cores)

    @cached_property
    def known_classes(self) -> int:
        """The number of classes as far as the configuration tells: 0 leaves it to the data."""
        return self.classes or {"imagenet": 1000, "cifar10": 10, "cifar100": 100, "digits": 10}.get(self.data, 0)

    def spec(self, classes: int) -> NetworkSpec:
        """The network to train. A US network's switches are the ends of its range: the only widths whose statistics
        are followed while training (arXiv 1903.05134, sec. 3.1). UserError where widths or lists do not fit."""
        family, architecture = split_name(self.network)
        try:
            if family == "us":
                low, high = self.width_range or published_spec(self.network).range
                spec = NetworkSpec(architecture, family, (low, high), classes, (), (low, high), self.stem_stride)
            elif family == "s":
                switches = self.switches or published_spec(self.network).switches
                spec = NetworkSpec(architecture, family, switches, classes, stem_stride=self.stem_stride)
            else:
                lists = self.channel_lists or published_spec(self.network).channel_lists
                numbers = tuple(range(1, len(lists) + 1))
                spec = NetworkSpec(architecture, family, numbers, classes, lists, stem_stride=self.stem_stride)
            if any(min(spec.channel_list(width)) < 1 for width in spec.switches):
                raise UserError(f"{self.network}: a width leaves a layer without channels. Choose wider ones.")
            _ = spec.wiring, spec.plans, spec.widest
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"{self.network}: {error}. Correct channel_lists or switches.") from error
        spec.check_image_size(self.image_size)
        for width in self.test_widths:
            spec.plan(width)
        return spec


FIELDS = {f.name: f for f in dataclasses.fields(Config)}
SEARCH_KEYS = tuple(key for key in FIELDS if key.startswith(("search_", "latency_")))


def dump_config(config: Config) -> str:
    """The YAML of every key; `read_config` reads it back to an equal configuration."""
    return yaml.safe_dump(plain(config), sort_keys=False, default_flow_style=None, width=120)


def plain(config: Config) -> dict[str, Any]:
    """Keys to plain values, tuples as lists."""
    return {key: _listed(getattr(config, key)) for key in FIELDS}


def _listed(value: Any) -> Any:
    return [_listed(v) for v in value] if isinstance(value, tuple) else value


def _check(config: Config) -> None:  # noqa: PLR0912 (one rule after the other)
    """UserError for a value that no run can have, or for values that contradict each other."""
    family, _ = split_name(config.network)
    for key, known in FIELDS.items():
        value, rule = getattr(config, key), known.metadata
        choices = rule.get("choices")
        if choices and value not in choices:
            raise UserError(f"{key} is {value!r}{nearest(str(value), choices)}. Expected {', '.join(choices)}.")
        if "least" in rule and not rule["least"] <= value <= rule["most"]:
            limit = "" if rule["most"] == math.inf else f" and at most {rule['most']}"
            raise UserError(f"{key} is {value}, expected at least {rule['least']}{limit}.")
    if any(not 0 < width <= 4 for width in (*config.switches, *config.width_range, *config.test_widths)):
        raise UserError("switches, width_range and test_widths are widths: expected numbers above 0 and up to 4.")
    if len(set(config.switches)) != len(config.switches):
        raise UserError(f"switches are {list(config.switches)}: each may be there once.")
    if config.width_range and (len(config.width_range) != 2 or config.width_range[0] >= config.width_range[1]):
        raise UserError(f"width_range is {list(config.width_range)}, expected [narrowest, widest].")
    for key, wanted in {"switches": "s", "width_range": "us", "test_widths": "us", "channel_lists": "autoslim"}.items():
        if getattr(config, key) and family != wanted:
            raise UserError(f"{key} is for {wanted}_ networks, this is {config.network}. Leave it out.")
    for key in ("nonuniform", "width_step"):
        if getattr(config, key) and family != "us":
            raise UserError(f"{key} is for us_ networks, this is {config.network}. Leave it out.")
    if config.nonuniform and config.width_step:
        raise UserError("width_step draws whole networks' widths, nonuniform every group's own: choose one of them.")
    if len(config.mean) != 3 or len(config.std) != 3 or min(config.std) <= 0:
        raise UserError("mean and std have one entry per channel: expected three numbers each, std above 0.")
    if config.schedule == "multistep" and not config.milestones:
        raise UserError("schedule is multistep, but milestones is empty. Name the epochs, as in milestones: [30, 60, 90].")
    if list(config.milestones) != sorted(set(config.milestones)) or min(config.milestones, default=1) <= 0:
        raise UserError(f"milestones are {list(config.milestones)}, expected ascending epochs, above 0.")
    if config.warmup_epochs >= config.epochs:
        raise UserError(f"warmup_epochs is {config.warmup_epochs}, expected fewer than the {config.epochs} epochs.")
    if config.nesterov and not config.momentum:
        raise UserError("nesterov needs a momentum above 0. Set nesterov: false.")
    if config.test_only and not config.pretrained:
        raise UserError("test_only tests a checkpoint, but pretrained names none. Set it: --set pretrained=PATH.")
    if config.best_by not in ("widest", "narrowest", "mean"):
        try:
            float(config.best_by)
        except ValueError as error:
            raise UserError(f"best_by is {config.best_by!r}, expected widest, narrowest, mean, or a width.") from error
    if config.weights and Path(config.weights).name != config.weights:
        raise UserError(f"weights is {config.weights!r}, expected a file name: it goes into output_dir.")
    if config.weights in RESERVED:
        raise UserError(
            f"weights is {config.weights!r}, a name that a run uses otherwise. Expected another, such as NETWORK.pt."
        )
    if config.layout == "published" and config.stem_stride != 2:
        raise UserError("layout: published has no place for stem_stride 1, its readers would take 2. Use layout: own.")
    _check_search(config)


def _check_search(config: Config) -> None:
    """UserError for a search that cannot be."""
    if len(config.search_widths) != 2 or not 0 < config.search_widths[0] < config.search_widths[1] <= 4:
        raise UserError(f"search_widths is {list(config.search_widths)}, expected [narrowest, widest], above 0 and up to 4.")
    if not config.search_share:
        raise UserError(
            "search_share is 0, expected the share of the epochs that the network to slim is trained for, above 0."
        )
    if (config.search_cost == "latency") != bool(config.latency_table):
        raise UserError(
            f"search_cost is {config.search_cost} and latency_table {config.latency_table or 'empty'}: a latency table is for "
            "search_cost latency, which needs one (`python -m benchmarks channels` measures it). Set both or neither."
        )
    if config.latency_device and not config.latency_table:
        raise UserError(
            f"latency_device is {config.latency_device}, but there is no latency_table. Set both, or leave it out."
        )
    for target in config.search_targets:
        parse_targets(target, config.search_cost)
