"""What a training run is told: one frozen dataclass, a key per field. No torch.

A field says beside its default which values it takes, which networks it is for, and whether it may change when a run is
resumed (keys.py); what contradicts each other is in rules.py. `--set key=value` changes any key, see reading.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import yaml

from slimtrain.base.errors import UserError
from slimtrain.base.image_size import ImageSize
from slimtrain.config.detector import DETECTOR_KEYS, DetectorConfig
from slimtrain.config.keys import Scope, course, key, keys_of, machine, search
from slimtrain.config.rules import (
    WIDEST,
    check_channel_groups,
    check_channels,
    check_detector,
    check_drawn_widths,
    check_finished_file,
    check_grow,
    check_grow_epochs,
    check_holdout,
    check_model,
    check_momentum,
    check_normalization,
    check_pretrained,
    check_schedule,
    check_search_cost,
    check_search_error,
    check_searched_network,
    check_teacher,
    check_testing,
    check_widths,
    checked_size,
    detector_kind,
    family_of,
    is_any,
)
from slimtrain.costs.cost_model import COSTS
from slimtrain.data.catalog import ALL_DATA, AUGMENTATIONS, CATALOG, FOLDER, PICTURES
from slimtrain.graph.policy import ORDERS, POLICIES
from slimtrain.models.normalization import imagenet_normalization
from slimtrain.models.published import published_spec
from slimtrain.models.registry import model_name, split_name
from slimtrain.models.spec import IMAGE_CHANNELS, MOST_IMAGE_CHANNELS, NetworkSpec

CRITERIA = ("error", "error-per-cost")  # by which a search takes the next candidate
LOSS, AP50, AP = "loss", "ap50", "ap"  # what a search takes for the error of a detector: its loss, or what precision lacks
MODEL_RANGE, MODEL_SWITCHES = (0.25, 1.0), (0.25, 0.5, 0.75, 1.0)  # of a user's module, where the configuration names none
STATISTICS = ("batch", "calibrated")  # of its candidates' norms
INPLACE, FROZEN = "inplace", "frozen"  # teachers

# What no run has more of: figures beyond them are mistakes, and would end a run later, in less plain words.
EPOCHS = 10**6
RATE = 10**4
BATCH = 2**20  # images
CLASSES = 2**20
CHANNELS = 2**20
GROUPS = 10**4
SIDE = 2**20  # pixels


@dataclass(frozen=True)
class Config:
    """One training run. Empty tuples, 0 and "" mean the default that the comment names.

    >>> import slimtrain
    >>> config = slimtrain.Config("us_mobilenet_v1", data="digits", image_size=32)
    >>> config.lr, config.spec(classes=10).range
    (0.1, (0.25, 1.0))

    UserError for a value that no run can have, and for values that contradict each other.
    """

    # the network
    network: str  # a name of the registry: us_mobilenet_v1
    switches: tuple[float, ...] = key((), family="s")  # S: the widths that are trained; as published
    width_range: tuple[float, ...] = key((), family="us")  # US: narrowest and widest; as published
    channel_lists: tuple[tuple[int, ...], ...] = key(
        (), least=0, most=CHANNELS, entries=GROUPS, family="autoslim"
    )  # one list per switch; as published
    channel_groups: tuple[str, ...] = key(
        (), entries=GROUPS, family="autoslim"
    )  # of a model: the group of every count in a channel list
    classes: int = key(0, least=0, most=CLASSES)  # as many as the data has
    stem_stride: int = key(2, least=1, most=2)  # 1 for small images
    in_channels: int = key(
        0, least=0, most=MOST_IMAGE_CHANNELS
    )  # of images: 1 gray, 3 color, 4 with opacity or another fourth one; 0: the data's, 3
    model: str = ""  # a module in place of the architecture: torchvision:NAME, timm:NAME or package.module:function
    heads: str = key("outer", choices=POLICIES["heads"])  # of a model's attention: whole ones go, or all get narrower
    conv_groups: str = key("outer", choices=POLICIES["conv_groups"])  # of its grouped convolutions
    shuffles: str = key("exact", choices=POLICIES["shuffles"])  # of its channels
    order: str = key("l1", choices=ORDERS)  # of its pretrained channels, by what reads them
    detector: DetectorConfig | None = key(None)  # noqa: RUF009 (a field, of networks as s_faster_rcnn)

    # the data
    data: str = key(FOLDER, choices=ALL_DATA)  # see data/catalog.py
    data_dir: str = machine("")  # holds train/ and val/, or class folders, or CIFAR's files
    holdout: int | float = key(
        0, least=0
    )  # training images kept aside for testing (50,000: the AutoSlim split); below 1: share
    # pixels a side, or [height, width], which --set takes as 256x192
    image_size: ImageSize = key(224, least=1, most=SIDE)  # noqa: RUF009 (a field)
    exif_orientation: bool = False  # turn photographs as their EXIF says; torchvision does not
    augmentation: str = key("mobile", choices=AUGMENTATIONS)  # see data/transforms.py
    mean: tuple[float, ...] = key(
        (), least=-1000, most=1000
    )  # per channel, or one number for all, of values from 0 to 1; ImageNet's
    std: tuple[float, ...] = key((), least=0, most=1000)
    workers: int = machine(4, least=0, most=1024)  # processes that load images, per training process, up to its cores
    batch_size: int = key(256, least=1, most=BATCH)  # images per step, over all processes
    test_batch_size: int = course(0, least=0, most=BATCH)  # over all processes; batch_size
    fit_batch: bool = machine(False)  # take the batch_size that fits the memory and the images, where this one does not
    scale_lr: bool = machine(False)  # lr follows batch_size where that is fitted
    scratch_lr: bool = machine(False)  # lr is for random weights, nobody set it: pretrained ones begin with a tenth
    drop_last: bool = True  # leave out an epoch's last batch where it is short

    # the rule
    sandwich: int = key(4, least=2, most=1000)  # US: widths per step, the widest and the narrowest among them
    nonuniform: bool = key(False, family="us")  # the widths drawn between are drawn for every channel group by itself
    width_step: float = key(0.0, least=0, most=1, family="us")  # draw from a grid; 0 draws from all widths
    distill: bool = False  # inplace distillation: the widest teaches the others
    teacher: str = key("", choices=("", INPLACE, FROZEN))  # "": inplace with `distill`, none without
    teacher_share: float = key(
        0.5, least=0, most=1
    )  # frozen: of the loss, the teacher's probabilities; the rest is the labels'
    grow: tuple[float, ...] = key(
        (), least=0, most=WIDEST
    )  # the narrowest width of every stage, falling; all widths from the start
    grow_epochs: int = course(
        0, least=0, most=EPOCHS
    )  # that the stages of `grow` share evenly, later ones are the last's; all
    label_smoothing: float = key(0.0, least=0, most=0.999)

    # optimization
    epochs: int = key(
        100, least=1, most=EPOCHS
    )  # may grow when a run is resumed: the schedule is that of the new length from there on
    lr: float = course(0.1, least=0, most=RATE)
    schedule: str = key("cosine", choices=("multistep", "exponential", "linear", "cosine"))
    milestones: tuple[float, ...] = key((), most=EPOCHS)  # multistep: epochs at which lr is multiplied by gamma
    gamma: float = key(0.1, least=0, most=10)  # multistep: per milestone; exponential: per epoch
    warmup_epochs: float = course(0.0, least=0, most=EPOCHS)  # lr rises linearly from 0
    momentum: float = key(0.9, least=0, most=1)
    nesterov: bool = True
    weight_decay: float = key(1e-4, least=0, most=RATE)  # of ordinary convolutions, linear and recurrent weights
    accumulate: int = course(1, least=1, most=BATCH)  # parts that a step's batch is computed in
    ema: float = key(0.0, least=0, most=0.99999999)  # decay per step of averaged weights; 0: none
    seed: int = key(0, least=0, most=2**31 - 1)

    # after training
    test_widths: tuple[float, ...] = course((), family="us")  # to calibrate and test, beside the ends of the range
    calibration_batches: int = course(5, least=0, most=EPOCHS)  # training batches; 0: no calibration
    test_every: int = course(1, least=0)  # epochs between tests; 0: at the end only
    test_only: bool = course(False)  # test `pretrained`, train nothing

    # the search for channel counts (`python -m slimtrain search`; arXiv 1903.11728)
    search_targets: tuple[str, ...] = search(())  # costs to find networks for: 150M, 1.2G; of a latency table, milliseconds
    search_cost: str = search("macs", choices=COSTS)
    latency_table: str = search("")  # latency: JSON as `python -m benchmarks channels` writes it
    latency_device: str = search("")  # latency: the device to find networks for, as the table names it; any
    search_criterion: str = search("error", choices=CRITERIA)  # error: as published
    search_error: str = search(
        "", choices=("", LOSS, AP50, AP)
    )  # of a detector: its loss, or what is missing of precision; ap50
    search_statistics: str = search("batch", choices=STATISTICS)  # of a candidate's norms
    search_widths: tuple[float, ...] = search(
        (0.15, 1.5), least=0, most=WIDEST
    )  # of the network that is trained for the search, non-uniform
    search_share: float = search(0.15, least=0, most=10)  # of the epochs, that it is trained for
    search_holdout: int = search(0, least=0)  # training images kept aside for the search; holdout
    search_images: int = search(0, least=0)  # of these, how many measure a candidate; all
    search_batch: int = search(
        0, least=0, most=BATCH
    )  # images per batch of the search; test_batch_size, or batch_size, as far as it fits
    search_cache_gib: float = search(2.0, least=0, most=1e6)  # opened images kept; 10,000 of 224 px take 5.6
    search_amp: str = search("auto", choices=("auto", "none", "bf16", "fp16"))  # auto: bf16 on GPUs
    search_groups: int = search(10, least=1, most=CHANNELS)  # a step takes a group's channels over this, rounded
    search_finish: bool = search(False)  # then train what was found, beside uniform widths of equal cost, and export it
    search_train_epochs: int = search(0, least=0, most=EPOCHS)  # of these trainings; as many as `epochs`

    # the machine
    device: str = machine("auto", choices=("auto", "cpu", "cuda"))
    amp: str = course("none", choices=("none", "bf16", "fp16"))
    channels_last: bool | None = course(None)  # as is faster, see slimmable/layout.py
    compile: bool = course(False)
    sync_norm: bool = course(False)  # batch statistics over all processes
    threads: int = machine(0, least=0, most=1024)  # of torch on the CPU; torch's own choice

    # files
    output_dir: str = machine("")  # runs/CONFIG
    weights: str = course("")  # the finished checkpoint's name; NETWORK.pt
    layout: str = course("own", choices=("own", "published"))
    probe_images: str = course("auto", choices=("auto", "yes", "no"))  # test images that the finished checkpoint carries
    checkpoint_every: int = machine(0, least=0)  # steps between checkpoints within an epoch; 0: none
    log_every: int = machine(50, least=1)  # steps between lines of progress
    best_by: str = course("widest")  # whose error best.pt follows: widest, narrowest, mean, or a width
    tensorboard: bool = machine(False)
    pretrained: str = course("")  # a checkpoint to start from
    pretrained_weights: str = course("")  # of several sets of weights in it: model, ema, or a dotted key
    reset_classifier: bool = course(False)  # leave out its classifier: for other classes
    resume: str = machine("none")  # none, auto (this folder's last.pt where there is one), or a path

    def __post_init__(self) -> None:
        family = self.family
        self._settle_detector()
        self._settle_images()
        for name, rule in KEYS.items():
            rule.check(name, getattr(self, name), self.network, family)
        check_holdout(self.holdout)
        check_widths(self.switches, self.width_range, self.test_widths)
        check_drawn_widths(self.nonuniform, self.width_step)
        check_channels(self.in_channels)
        check_normalization(self.mean, self.std, self.in_channels)
        check_schedule(self.schedule, self.milestones, self.epochs, self.warmup_epochs)
        check_momentum(self.momentum, self.nesterov)
        check_testing(self.test_only, self.pretrained, self.best_by)
        check_pretrained(self.pretrained, self.pretrained_weights)
        check_teacher(self.teacher == FROZEN, self.pretrained, self.reset_classifier)
        if self.grow:
            check_grow(self.grow, self._widths() if family != "autoslim" else (), self.network)
            check_grow_epochs(self.grow, self.grow_epochs, self.epochs)
        check_finished_file(self.weights, self.layout, self.stem_stride)
        check_model(self.model, self.layout)
        check_channel_groups(self.channel_groups, self.channel_lists, self._traced)
        check_searched_network(self.search_widths, self.search_share)
        check_search_cost(self.search_cost, self.latency_table, self.latency_device, self.search_targets)
        check_search_error(self.network, self.search_error, self.search_cost)
        check_detector(self.network, self.data, self.in_channels, vars(self))
        if self.detector is not None:
            self.detector.check_image_size(self.image_size)

    def _settle_detector(self) -> None:
        """Give a detector the settings that its network's name says."""
        kind = detector_kind(self.network)
        if not kind and self.detector is not None:
            raise UserError(
                f"detector has settings, and network {self.network} is no detector. Expected network: s_faster_rcnn or "
                "another one, or no detector."
            )
        if kind:
            detector = self.detector or DetectorConfig(kind)
            if detector.kind not in ("", kind):
                raise UserError(f"detector.kind is {detector.kind}, network {self.network}: leave the kind out.")
            object.__setattr__(self, "detector", replace(detector, kind=kind))

    def _settle_images(self) -> None:
        """Give what follows from other keys its value: channels, and their mean and deviation; and a size its plain form."""
        data = CATALOG.get(self.data)
        channels = self.in_channels or (IMAGE_CHANNELS if data is None else data.channels)
        settled: dict[str, Any] = {"in_channels": channels, "image_size": checked_size(self.image_size)}
        if channels in PICTURES:  # others are refused
            for name, usual in zip(("mean", "std"), imagenet_normalization(channels), strict=True):
                given = getattr(self, name)
                settled[name] = (given * channels if len(given) == 1 else given) or usual
        for name, value in settled.items():
            object.__setattr__(self, name, value)

    @property
    def family(self) -> str:
        """`s`, `us` or `autoslim`."""
        return family_of(self.network)

    @property
    def network_name(self) -> str:
        """What the network that is trained is called: `us_mobilenet_v1`, of a model `us_` and its own name."""
        return f"{self.family}_{model_name(self.model)}" if self.model else self.network

    @property
    def taught_by(self) -> str:
        """Who teaches: `inplace`, `frozen`, or "" where nobody does."""
        return self.teacher or (INPLACE if self.distill else "")

    @property
    def loaders(self) -> int:
        """Processes that load images here: more than cores would only be in each other's way."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(self.workers, cores)

    @cached_property
    def known_classes(self) -> int:
        """The number of classes as far as the configuration tells: 0 leaves it to the data."""
        return self.classes or ALL_DATA[self.data].classes

    def _widths(self) -> tuple[float, ...]:
        """A US network's narrowest and widest width, an S network's switches."""
        if self.family == "us":
            return self.width_range or (MODEL_RANGE if self._traced else published_spec(self.network).range)
        return self.switches or (MODEL_SWITCHES if self._traced else published_spec(self.network).switches)

    @property
    def _traced(self) -> bool:
        return bool(self.model) or is_any(self.network) or self.detector is not None

    @property
    def model_widths(self) -> tuple[float, ...]:
        """The widths that a model's norms know, the widest the module as it is: that one alone of an AutoSlim network."""
        return (1.0,) if self.family == "autoslim" else self._widths()

    @property
    def planned_lists(self) -> tuple[dict[str, int], ...]:
        """The channels of every switch of a model's or detector's AutoSlim network, group -> count."""
        return tuple(dict(zip(self.channel_groups, counts, strict=True)) for counts in self.channel_lists)

    def spec(self, classes: int) -> NetworkSpec:
        """The published architecture to train, no model. A US network's switches are the ends of its range: the only widths
        whose statistics are followed while training (arXiv 1903.05134, sec. 3.1). UserError where widths or lists do not
        fit."""
        if is_any(self.network) and not self.model:
            raise UserError(
                f"network {self.network}: of which module? Name it: --model torchvision:NAME, timm:NAME or "
                "package.module:function; for a search, one that is trained already: --ckpt PATH."
            )
        if self.detector is not None:
            raise UserError(
                f"network {self.network}: is a detector, and this works with classifiers alone. Detectors are trained and "
                "tested: `python -m slimtrain train`, `test`, `calibrate`, `profile`."
            )
        if self.model:
            raise UserError(
                f"model {self.model}: is no published architecture, and this works with these alone. Leave model out; what of "
                "a model can be slimmed says `python -m slimtrain groups`."
            )
        family, architecture = split_name(self.network)
        try:
            if family == "us":
                low, high = self._widths()
                spec = NetworkSpec(architecture, family, (low, high), classes, width_range=(low, high))
            elif family == "s":
                spec = NetworkSpec(architecture, family, self._widths(), classes)
            else:
                lists = self.channel_lists or published_spec(self.network).channel_lists
                numbers = tuple(range(1, len(lists) + 1))
                spec = NetworkSpec(architecture, family, numbers, classes, lists)
            spec = replace(spec, stem_stride=self.stem_stride, in_channels=self.in_channels)
            if any(min(spec.channel_list(width)) < 1 for width in spec.switches):
                raise UserError(f"{self.network}: a switch leaves a layer without channels. Choose wider ones.")
            _ = spec.wiring, spec.plans, spec.widest
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"{self.network}: {error}. Correct channel_lists or switches.") from error
        spec.check_image_size(self.image_size)
        for width in self.test_widths:
            spec.plan(width)
        return spec


KEYS = keys_of(Config)
SEARCH_KEYS = tuple(name for name, known in KEYS.items() if known.scope is Scope.SEARCH)
MACHINE_KEYS = tuple(name for name, known in KEYS.items() if known.scope is Scope.MACHINE)


def dump_config(config: Config) -> str:
    """The YAML of every key; `read_config` reads it back to an equal configuration."""
    return yaml.safe_dump(plain(config), sort_keys=False, default_flow_style=None, width=120)


def plain(config: Config) -> dict[str, Any]:
    """Keys to plain values, tuples as lists."""
    return {name: as_plain(getattr(config, name)) for name in KEYS}


def singly(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their keys, those of a mapping by theirs: `detector.neck`."""
    single: dict[str, Any] = {}
    for name, value in settings.items():
        inside = {f"{name}.{own}": part for own, part in value.items()} if isinstance(value, dict) else {name: value}
        single.update(inside)
    return single


def run_settings(config: Config) -> dict[str, Any]:
    """What of a configuration makes a run the run that it is: the keys that may not differ when it is resumed."""
    return {name: value for name, value in plain(config).items() if not KEYS[name].may_change}


def as_plain(value: Any) -> Any:
    """A key's value with lists for tuples, and mappings for keys of their own, as files hold it."""
    if isinstance(value, DetectorConfig):
        return {name: as_plain(getattr(value, name)) for name in DETECTOR_KEYS}
    return [as_plain(v) for v in value] if isinstance(value, tuple) else value
