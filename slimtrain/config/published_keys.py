"""Published training files (`apps/NAME.yml`): their keys as keys of `Config`. No torch.

A key without a value counts as absent, and what is absent keeps the default of `Config`. What is not the default there:

- Calibration. US networks are always calibrated, because only the ends of their range keep statistics while training
  (arXiv 1903.05134, sec. 3.1): `calibrate_bn: False` does not stop it. S and AutoSlim networks follow the statistics of
  every switch while training; they are calibrated only where the file says `calibrate_bn: True`.
- `skip_training: True` tests a checkpoint, as `test_only: True` does.
- Keys that mean nothing here, or nothing for this network, are named together in one warning.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from slimtrain.base.errors import UserError, nearest
from slimtrain.base.untrusted.quoting import quoted
from slimtrain.config.config import KEYS as OURS
from slimtrain.models.normalization import IMAGENET_MEAN, IMAGENET_STD, INCEPTION_MEAN, INCEPTION_STD
from slimtrain.models.published import published_network, published_spec
from slimtrain.models.registry import ARCHITECTURES, split_name

log = logging.getLogger(__name__)

# Keys with one of ours that takes the same values.
RENAMED = {
    "dataset_dir": "data_dir",
    "data_loader_workers": "workers",
    "num_classes": "classes",
    "num_epochs": "epochs",
    "batch_size": "batch_size",
    "drop_last": "drop_last",
    "momentum": "momentum",
    "weight_decay": "weight_decay",
    "nesterov": "nesterov",
    "lr": "lr",
    "random_seed": "seed",
    "label_smoothing": "label_smoothing",
    "nonuniform": "nonuniform",
    "pretrained": "pretrained",
    "log_dir": "output_dir",
}
SCHEDULES = {
    "multistep": "multistep",
    "exp_decaying": "exponential",
    "linear_decaying": "linear",
    "cosine_decaying": "cosine",
}
DATASETS: dict[str, dict[str, Any]] = {
    "imagenet1k": {"data": "imagenet"},
    "imagenet1k_val50k": {"data": "imagenet", "holdout": 50000},
}
TRANSFORMS: dict[str, dict[str, Any]] = {
    "imagenet1k_basic": {"augmentation": "basic", "mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)},
    "imagenet1k_mobile": {"augmentation": "mobile", "mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)},
    "imagenet1k_inception": {"augmentation": "inception", "mean": list(INCEPTION_MEAN), "std": list(INCEPTION_STD)},
}
# Keys that this module reads one by one, further down.
READ = (
    *("model", "depth", "groups", "image_size", "dataset", "data_transforms", "optimizer"),
    *("lr_scheduler", "multistep_lr_milestones", "multistep_lr_gamma", "exp_decaying_lr_gamma"),
    *("lr_warmup", "lr_warmup_epochs", "batch_size_per_gpu", "soft_target", "inplace_distill"),
    *("slimmable_training", "universally_slimmable_training", "num_sample_training"),
    *("width_mult_list", "width_mult_range", "width_mult_list_test", "channel_num_list"),
    *("calibrate_bn", "bn_cal_batch_num", "cumulative_bn_stats"),
    *("resume", "test_only", "skip_training", "profiling_only", "autoslim", "autoslim_target_flops"),
)
# Machines, printing, and ways of the published code that have no counterpart: the start's weights are torch's, every
# process draws the same widths, checkpoints are read by their keys and shapes.
IGNORED = (
    *("num_gpus_per_job", "num_cpus_per_job", "memory_per_job", "gpu_type", "distributed", "distributed_all_reduce"),
    *("data_loader", "topk", "profiling", "profiling_verbose", "reset_parameters", "conv_averaged"),
    *("nonuniform_diff_seed", "width_mult", "width_compress", "pretrained_model_remap_keys"),
)
PUBLISHED_KEYS = (*RENAMED, *READ, *IGNORED)


def translate(values: dict[str, Any], path: str) -> dict[str, Any]:
    """The keys of `Config` for `values`, the keys of the published file `path`.

    Values stay plain; `Config` checks their types and limits. Raises UserError, naming `path`, for a key that no published
    file has (with the nearest), for what cannot be done here, and for values that contradict each other.
    """
    for key in values:
        if key not in PUBLISHED_KEYS:
            raise _unknown(key, path)
    file = _File(path, {key: value for key, value in values.items() if value is not None})
    _refuse_other_commands(file)
    network, family = _network(file)
    _check_family(file, network, family)
    own = {
        **{"network": network},
        **{ours: file.values[key] for key, ours in RENAMED.items() if key in file.values},
        **_data(file),
        **_optimization(file),
        **_widths(file, network, family),
        **_calibration(file, family),
        **_checkpoints(file),
    }
    unused = [key for key in file.values if key in IGNORED or key in file.unused]
    if unused:
        log.warning("%s: without a meaning for training %s here, ignored: %s", path, network, ", ".join(unused))
    return own


class _File:
    """A published file's keys, those without a value left out, and which of them turn out to be of no use."""

    def __init__(self, path: str, values: dict[str, Any]) -> None:
        self.path = path
        self.values = values
        self.unused: set[str] = set()

    def error(self, text: str) -> UserError:
        return UserError(f"{self.path}: {text}")

    def flag(self, key: str) -> bool:
        """Whether `key` is there and true; UserError where it is anything but true or false."""
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            raise self.error(f"{key} is {quoted(value)}, expected true or false.")
        return value

    def choice(self, key: str, known: dict[str, Any], fix: str = "") -> Any:
        """What `known` holds for the value of `key`; UserError, with the nearest name, where it holds nothing."""
        value = self.values[key]
        if not isinstance(value, str) or value not in known:
            raise self.error(f"{key} is {quoted(value)}{nearest(str(value), known)}. Expected {', '.join(known)}.{fix}")
        return known[value]


def _unknown(key: str, path: str) -> UserError:
    if key in OURS:
        return UserError(
            f"{path}: {key} is a key of our own configurations, this is a published one. Give it as --set {key}=VALUE."
        )
    known = (*PUBLISHED_KEYS, *OURS)
    return UserError(f"{path}: key {quoted(key)} is none of the published files' keys{nearest(str(key), known)}.")


def _refuse_other_commands(file: _File) -> None:
    for key in ("autoslim", "autoslim_target_flops"):
        if file.values.get(key):
            raise file.error(
                f"{key} asks for the search for channel lists, which is a command of its own: `python -m slimtrain search "
                f"CONFIG --targets 150M`. Leave {key} out: training takes what was found, as channel_num_list or by --plans."
            )
    if file.flag("profiling_only"):
        raise file.error("profiling_only asks to count operations and not to train. Leave it out to train.")


def _network(file: _File) -> tuple[str, str]:
    """The network's name in the registry, and its family."""
    if "model" not in file.values:
        raise file.error("does not say which network to train. Expected `model: models.us_mobilenet_v1` or another.")
    network = published_network(str(file.values["model"]), file.values)
    try:
        family, architecture = split_name(network)
    except UserError as error:
        raise file.error(f"model is {quoted(file.values['model'])}: {error}") from error
    arch = ARCHITECTURES[architecture]
    for key, value in arch.settings.items():
        if file.values.get(key, value) != value:
            raise file.error(f"{key} is {quoted(file.values[key])}, but {network} has {value} {key} and no other number.")
    file.unused |= {key for other in ARCHITECTURES.values() for key in other.published_keys} - arch.published_keys
    return network, family


def _check_family(file: _File, network: str, family: str) -> None:
    """UserError where the file asks for a way of training that is not its network's."""
    universal = file.flag("universally_slimmable_training")
    if "slimmable_training" in file.values and not file.flag("slimmable_training"):
        raise file.error(
            f"slimmable_training is false, but {network} is trained at all its widths or not at all. Leave the key out."
        )
    if universal and family != "us":
        raise file.error(
            f"universally_slimmable_training is true, but {network} has fixed switches. Leave the key out, or choose a "
            "us_ network."
        )
    if "universally_slimmable_training" in file.values and not universal and family == "us":
        raise file.error(
            f"universally_slimmable_training is false, but {network} is universally slimmable. Leave the key out, or "
            "choose an s_ network."
        )


def _data(file: _File) -> dict[str, Any]:
    own: dict[str, Any] = {}
    if "dataset" in file.values:
        own |= file.choice("dataset", DATASETS, " For other images: dataset: imagenet1k and --set data=folder.")
    if "data_transforms" in file.values:
        own |= file.choice("data_transforms", TRANSFORMS)
    size = file.values.get("image_size")
    if size is not None:
        own["image_size"] = size[0] if isinstance(size, list) and len(size) == 1 else size
    if "batch_size_per_gpu" in file.values:
        if "batch_size" not in file.values:
            raise file.error(
                "batch_size_per_gpu is there without batch_size: the batch would depend on the machine. Give batch_size, "
                "the images per step over all devices."
            )
        file.unused.add("batch_size_per_gpu")
    return own


def _optimization(file: _File) -> dict[str, Any]:
    own: dict[str, Any] = {}
    if "optimizer" in file.values:
        file.choice("optimizer", {"sgd": None})
    if "lr_scheduler" in file.values:
        own["schedule"] = file.choice("lr_scheduler", SCHEDULES)
        if own["schedule"] == "multistep":
            names = {"milestones": "multistep_lr_milestones", "gamma": "multistep_lr_gamma"}
        else:
            names = {"gamma": "exp_decaying_lr_gamma"} if own["schedule"] == "exponential" else {}
        own |= {ours: file.values[key] for ours, key in names.items() if key in file.values}
        if own["schedule"] == "exponential" and "gamma" not in own:
            raise file.error("lr_scheduler is exp_decaying, but exp_decaying_lr_gamma is not there. Give it: 0.98.")
    if file.flag("lr_warmup"):
        if "lr_warmup_epochs" not in file.values:
            raise file.error("lr_warmup is true, but lr_warmup_epochs is not there. Give it: 5.")
        own["warmup_epochs"] = file.values["lr_warmup_epochs"]
    spellings = [key for key in ("soft_target", "inplace_distill") if key in file.values]
    if spellings:
        own["distill"] = file.flag(spellings[0])
        if any(file.flag(key) != own["distill"] for key in spellings):
            raise file.error("soft_target and inplace_distill mean the same, but one is true. Leave one of them out.")
    return own


def _widths(file: _File, network: str, family: str) -> dict[str, Any]:
    """The widths to train and test. `width_mult_list` are an S network's switches. Of a US network they are widths whose
    statistics its file holds, beside those to test: there they are widths to calibrate and test too. Of an AutoSlim network
    they number the channel lists."""
    values = file.values
    names = {
        "s": {"switches": "width_mult_list"},
        "us": {"width_range": "width_mult_range", "sandwich": "num_sample_training"},
        "autoslim": {},
    }
    own = {ours: values[key] for ours, key in names[family].items() if key in values}
    listed, lists = values.get("width_mult_list", []), values.get("channel_num_list")
    if family == "us":
        ends = own.get("width_range") or published_spec(network).range
        tested = values.get("width_mult_list_test", [])
        if isinstance(tested, list) and isinstance(ends, list | tuple):
            if _are_within(listed, ends):
                tested = [*tested, *listed]
            else:
                file.unused.add("width_mult_list")
            tested = [width for i, width in enumerate(tested) if width not in ends and width not in tested[:i]]
        own["test_widths"] = tested
    else:
        file.unused |= {"width_mult_range", "width_mult_list_test", "num_sample_training"}
    if family == "autoslim" and listed != list(range(1, len(lists or published_spec(network).channel_lists) + 1)):
        file.unused.add("width_mult_list")
    if lists and family != "autoslim":
        raise file.error(f"channel_num_list is for autoslim_ networks, this is {network}. Leave it out.")
    if lists:
        if not isinstance(lists, list) or not all(isinstance(one, list) and len(one) > 1 for one in lists):
            raise file.error("channel_num_list has the wrong form, expected a list of lists of channels, one per switch.")
        own["channel_lists"] = [one[:-1] for one in lists]  # the last entry is the classes', unused
    return own


def _are_within(widths: object, ends: Sequence[Any]) -> bool:
    """Whether `widths` is a list of numbers from the first to the last of `ends`."""
    if not isinstance(widths, list) or not all(isinstance(width, int | float) for width in [*widths, *ends]):
        return False
    return all(min(ends) <= width <= max(ends) for width in widths)


def _calibration(file: _File, family: str) -> dict[str, Any]:
    """See the top of this file. Our statistics are always cumulative averages."""
    calibrated = file.flag("calibrate_bn")
    if "cumulative_bn_stats" in file.values and not file.flag("cumulative_bn_stats"):
        file.unused.add("cumulative_bn_stats")
    if family == "us" and not calibrated:
        file.unused.add("calibrate_bn")
    elif not calibrated:
        file.unused.add("bn_cal_batch_num")
        return {"calibration_batches": 0}
    return {"calibration_batches": file.values["bn_cal_batch_num"]} if "bn_cal_batch_num" in file.values else {}


def _checkpoints(file: _File) -> dict[str, Any]:
    own: dict[str, Any] = {"test_only": file.flag("test_only") or file.flag("skip_training")}
    if file.values.get("resume"):  # published files leave it empty
        own["resume"] = file.values["resume"]
    return own
