"""Published `apps/*.yml` become configurations: every key is known, and the ten networks' files say what ours say."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from slimtrain.base.errors import UserError
from slimtrain.config.config import SEARCH_KEYS, Config
from slimtrain.config.published_keys import IGNORED, PUBLISHED_KEYS, translate
from slimtrain.config.reading import make_config, read_config
from slimtrain.models.published import AUTOSLIM_LISTS, GRIDS, SWITCHES

# Every key of networks.md, "The published files", as it stands there.
IN_THE_FILES = """
dataset data_transforms data_loader dataset_dir data_loader_workers num_classes image_size topk num_epochs optimizer momentum
weight_decay nesterov lr lr_scheduler multistep_lr_milestones multistep_lr_gamma exp_decaying_lr_gamma profiling pretrained
resume test_only random_seed batch_size model reset_parameters log_dir slimmable_training universally_slimmable_training
bn_cal_batch_num calibrate_bn cumulative_bn_stats num_sample_training soft_target width_mult width_mult_list width_mult_range
width_mult_list_test channel_num_list label_smoothing depth groups width_compress num_gpus_per_job num_cpus_per_job
memory_per_job gpu_type
"""
READ_BY_THE_CODE = """
inplace_distill nonuniform nonuniform_diff_seed lr_warmup lr_warmup_epochs batch_size_per_gpu drop_last distributed
distributed_all_reduce skip_training autoslim autoslim_target_flops profiling_only profiling_verbose
pretrained_model_remap_keys conv_averaged
"""

COMMON = """
num_gpus_per_job: 4
num_cpus_per_job: 63
memory_per_job: 380
gpu_type: "nvidia-tesla-v100"
dataset: imagenet1k
data_transforms: imagenet1k_basic
data_loader: imagenet1k_basic
dataset_dir: data/imagenet
data_loader_workers: 62
num_classes: 1000
image_size: 224
topk: [1, 5]
num_epochs: 100
optimizer: sgd
momentum: 0.9
weight_decay: 0.0001
nesterov: True
lr: 0.1
lr_scheduler: multistep
multistep_lr_milestones: [30, 60, 90]
multistep_lr_gamma: 0.1
profiling: [gpu]
pretrained: ''
resume: ''
test_only: False
random_seed: 1995
batch_size: 256
model: ''
reset_parameters: True
log_dir: logs/
slimmable_training: True
"""
MOBILE = "data_transforms: imagenet1k_mobile\n"
EXPONENTIAL = "num_epochs: 480\nlr: 0.045\nlr_scheduler: exp_decaying\nexp_decaying_lr_gamma: 0.98\nbatch_size: 160\n"
LINEAR = "lr: 0.5\nlr_scheduler: linear_decaying\n"
UNIVERSAL = (
    "num_epochs: 250\nbatch_size: 1024\nuniversally_slimmable_training: True\nnum_sample_training: 4\nsoft_target: True\n"
    "calibrate_bn: True\ncumulative_bn_stats: True\nbn_cal_batch_num: 5\nwidth_mult: 1.0\nwidth_mult_list: [1.0]\n"
)
CONTENT = "label_smoothing: 0.1\nsoft_target: True\nwidth_mult: 1.0\n"


def model(name: str, more: str = "") -> str:
    name, depth, _ = name.partition("50")
    return f"model: models.{name}\n" + (f"depth: {depth}\n" if depth else "") + more


def lists(name: str) -> str:
    """A published `channel_num_list`: one entry more than ours."""
    rows = [[*channels, 1000] for channels in AUTOSLIM_LISTS[name]]
    return f"width_mult_list: {[float(i) for i in range(1, len(rows) + 1)]}\nchannel_num_list: {rows}\n"


def grid(name: str) -> str:
    widths = list(GRIDS[name])
    return f"width_mult_range: [{widths[0]}, {widths[-1]}]\nwidth_mult_list_test: {widths}\n"


FILES = {
    **{n: MOBILE + EXPONENTIAL + f"width_mult_list: {list(SWITCHES[n])}\n" for n in ("s_mobilenet_v1", "s_mobilenet_v2")},
    "s_resnet50": f"width_mult_list: {list(SWITCHES['s_resnet50'])}\n",
    "s_shufflenet": MOBILE + LINEAR + "num_epochs: 250\nbatch_size: 1024\ngroups: 3\nwidth_mult_list: [0.5, 1.0, 2.0]\n",
    **{n: MOBILE + LINEAR + UNIVERSAL + grid(n) for n in GRIDS},
    **{
        n: MOBILE + LINEAR + CONTENT + "num_epochs: 300\nbatch_size: 2048\n" + lists(n)
        for n in ("autoslim_mobilenet_v1", "autoslim_mobilenet_v2", "autoslim_mnasnet")
    },
    "autoslim_resnet50": MOBILE + CONTENT + lists("autoslim_resnet50"),
}


def write(folder: Path, text: str) -> str:
    (folder / "a.yml").write_text(text)
    return f"app:{folder / 'a.yml'}"


def minimal(network: str = "us_mobilenet_v1", /, **values: Any) -> Config:
    """The configuration of a published file that holds `model` and `values` only."""
    return make_config(translate({"model": f"models.{network}", **values}, "a.yml"), "a.yml")


def test_the_keys_are_those_of_the_published_files() -> None:
    assert sorted(PUBLISHED_KEYS) == sorted({*IN_THE_FILES.split(), *READ_BY_THE_CODE.split()})
    assert len(set(PUBLISHED_KEYS)) == len(PUBLISHED_KEYS)


@pytest.mark.parametrize("name", FILES)
def test_a_published_file_says_what_our_configuration_says(name: str, tmp_path: Path) -> None:
    theirs, ours = read_config(write(tmp_path, COMMON + FILES[name] + model(name))), read_config(name)
    differing = {"data_dir", "workers", "classes", "seed", "output_dir"}  # the file names them, ours leaves them open
    if name.startswith("us_"):
        assert theirs.test_widths == GRIDS[name][1:-1] == ours.test_widths
    for key in Config.__dataclass_fields__:
        if key in differing or key in SEARCH_KEYS or (key in ("switches", "channel_lists") and not getattr(ours, key)):
            continue  # ours leave the published switches and lists to the registry
        if key == "gamma" and ours.schedule not in ("multistep", "exponential"):
            continue
        assert getattr(theirs, key) == getattr(ours, key), key
    assert theirs.spec(1000) == ours.spec(1000)
    assert (theirs.data_dir, theirs.workers, theirs.classes, theirs.seed) == ("data/imagenet", 62, 1000, 1995)
    assert theirs.output_dir == "logs/"
    assert (theirs.pretrained, theirs.resume) == ("", "none")


def test_one_warning_names_all_that_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        minimal(
            **dict.fromkeys(IGNORED, 1), lr=0.3, depth=50, groups=7, width_mult_list=[2.0], batch_size_per_gpu=64, batch_size=8
        )
    assert len(caplog.records) == 1
    assert caplog.records[0].name == "slimtrain.config.published_keys"
    named = caplog.records[0].getMessage().split("ignored: ")[1].split(", ")
    assert sorted(named) == sorted([*IGNORED, "depth", "groups", "width_mult_list", "batch_size_per_gpu"])


@pytest.mark.parametrize("name", FILES)
def test_of_a_published_files_widths_nothing_is_without_a_meaning(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`width_mult_list` is in all ten of them."""
    assert "width_mult_list: " in FILES[name]
    read_config(write(tmp_path, COMMON + FILES[name] + model(name)))
    ignored = caplog.text.strip().rpartition("ignored: ")[2].split(", ")
    assert ignored and not [key for key in ignored if key.startswith("width_mult_") or key == "channel_num_list"]


@pytest.mark.parametrize(
    ("network", "widths"),
    [
        ("us_mobilenet_v1", [0.2]),
        ("us_mobilenet_v1", [0.5, 1.1]),
        ("us_mobilenet_v1", 0.5),
        ("us_mobilenet_v1", ["wide"]),
        ("autoslim_mnasnet", [1.0]),
        ("autoslim_mnasnet", [0.5, 1.0]),
    ],
)
def test_a_list_of_widths_that_says_nothing_is_named(network: str, widths: object, caplog: pytest.LogCaptureFixture) -> None:
    assert minimal(network, width_mult_list=widths) == minimal(network)
    assert "ignored: width_mult_list" in caplog.text


def test_nothing_is_warned_of_where_everything_counts(caplog: pytest.LogCaptureFixture) -> None:
    minimal(lr=0.3, calibrate_bn=True, bn_cal_batch_num=3, cumulative_bn_stats=True, width_mult_range=[0.3, 1.0])
    assert not caplog.records


def test_a_key_without_a_value_is_absent(caplog: pytest.LogCaptureFixture) -> None:
    empty = dict.fromkeys(set(PUBLISHED_KEYS) - {"model"})
    assert minimal(**empty) == minimal()
    assert not caplog.records


def test_absent_keys_leave_our_defaults() -> None:
    assert minimal() == Config("us_mobilenet_v1")
    assert minimal("s_mobilenet_v1") == Config("s_mobilenet_v1", calibration_batches=0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"dataset": "imagenet1k"}, {"data": "imagenet", "holdout": 0}),
        ({"dataset": "imagenet1k_val50k"}, {"data": "imagenet", "holdout": 50000}),
        ({"data_transforms": "imagenet1k_basic"}, {"augmentation": "basic", "mean": (0.485, 0.456, 0.406)}),
        ({"data_transforms": "imagenet1k_mobile"}, {"augmentation": "mobile", "std": (0.229, 0.224, 0.225)}),
        ({"data_transforms": "imagenet1k_inception"}, {"augmentation": "inception", "mean": (0.5,) * 3, "std": (0.5,) * 3}),
        ({"image_size": 160}, {"image_size": 160}),
        ({"image_size": [160, 160]}, {"image_size": 160}),
        ({"image_size": [192]}, {"image_size": 192}),
        ({"weight_decay": "1e-4"}, {"weight_decay": 1e-4}),
        ({"momentum": 0.8, "nesterov": False, "lr": 1}, {"momentum": 0.8, "nesterov": False, "lr": 1.0}),
        ({"lr_scheduler": "cosine_decaying", "exp_decaying_lr_gamma": 0.5}, {"schedule": "cosine", "gamma": 0.1}),
        ({"lr_scheduler": "linear_decaying", "multistep_lr_milestones": [3]}, {"schedule": "linear", "milestones": ()}),
        (
            {"lr_scheduler": "multistep", "multistep_lr_milestones": [3, 6], "multistep_lr_gamma": 0.2},
            {"schedule": "multistep", "milestones": (3.0, 6.0), "gamma": 0.2},
        ),
        ({"lr_scheduler": "exp_decaying", "exp_decaying_lr_gamma": 0.97}, {"schedule": "exponential", "gamma": 0.97}),
        ({"lr_warmup": True, "lr_warmup_epochs": 5}, {"warmup_epochs": 5.0}),
        ({"lr_warmup": False, "lr_warmup_epochs": 5}, {"warmup_epochs": 0.0}),
        ({"lr_warmup_epochs": 5}, {"warmup_epochs": 0.0}),
        ({"soft_target": True}, {"distill": True}),
        ({"inplace_distill": True}, {"distill": True}),
        ({"inplace_distill": True, "soft_target": True}, {"distill": True}),
        ({"inplace_distill": False}, {"distill": False}),
        ({"label_smoothing": 0.1, "drop_last": False}, {"label_smoothing": 0.1, "drop_last": False}),
        ({"nonuniform": True, "num_sample_training": 6}, {"nonuniform": True, "sandwich": 6}),
        ({"width_mult_range": [0.15, 1.5]}, {"width_range": (0.15, 1.5)}),
        ({"width_mult_range": [0.3, 1], "width_mult_list_test": [1.0, 0.5, 0.3, 0.5]}, {"test_widths": (0.5,)}),
        ({"width_mult_list_test": [0.25, 0.4, 1.0]}, {"test_widths": (0.4,)}),  # the ends of the published range
        ({"width_mult_list": [1.0, 0.5], "width_mult_list_test": [0.5, 0.3]}, {"test_widths": (0.5, 0.3)}),
        ({"width_mult_range": [0.3, 1], "width_mult_list": [0.3, 0.4, 1.0]}, {"test_widths": (0.4,)}),
        ({"bn_cal_batch_num": 7}, {"calibration_batches": 7}),
        ({"bn_cal_batch_num": 7, "calibrate_bn": True}, {"calibration_batches": 7}),
        ({"bn_cal_batch_num": 7, "calibrate_bn": False}, {"calibration_batches": 7}),  # US networks need it
        ({"pretrained": "a.pt", "test_only": True}, {"pretrained": "a.pt", "test_only": True}),
        ({"pretrained": "a.pt", "skip_training": True}, {"test_only": True}),
        ({"pretrained": "a.pt", "skip_training": True, "test_only": False}, {"test_only": True}),
        ({"resume": "last.pt"}, {"resume": "last.pt"}),
        ({"resume": ""}, {"resume": "none"}),
        ({"log_dir": "logs/us"}, {"output_dir": "logs/us"}),
        ({"autoslim": False, "profiling_only": False, "autoslim_target_flops": []}, {}),
        ({"slimmable_training": True, "universally_slimmable_training": True}, {"network": "us_mobilenet_v1"}),
    ],
)
def test_values_are_translated(values: dict[str, Any], expected: dict[str, Any]) -> None:
    config = minimal(**values)
    assert {key: getattr(config, key) for key in expected} == expected


@pytest.mark.parametrize("network", ["s_mobilenet_v1", "autoslim_mobilenet_v1"])
@pytest.mark.parametrize(
    ("values", "batches"),
    [
        ({"bn_cal_batch_num": 7}, 0),
        ({"bn_cal_batch_num": 7, "calibrate_bn": False}, 0),
        ({"bn_cal_batch_num": 7, "calibrate_bn": True}, 7),
        ({"calibrate_bn": True}, 5),
    ],
)
def test_networks_that_follow_their_statistics_are_calibrated_on_demand(network: str, values: Any, batches: int) -> None:
    assert minimal(network, **values).calibration_batches == batches


def test_a_calibration_that_cannot_be_left_out_is_named(caplog: pytest.LogCaptureFixture) -> None:
    minimal(calibrate_bn=False, cumulative_bn_stats=False)
    assert "ignored: calibrate_bn, cumulative_bn_stats" in caplog.text


@pytest.mark.parametrize(
    ("values", "network"),
    [
        ({"model": "models.s_resnet", "depth": 50}, "s_resnet50"),
        ({"model": "models.s_resnet"}, "s_resnet50"),
        ({"model": "models.us_resnet", "depth": 152}, "us_resnet152"),
        ({"model": "autoslim_resnet", "depth": 101, "channel_num_list": [[8, 8]]}, "autoslim_resnet101"),
        ({"model": "models.s_shufflenet"}, "s_shufflenet"),
        ({"model": "models.us_mobilenet_v2", "depth": 50, "groups": 8}, "us_mobilenet_v2"),
    ],
)
def test_networks_are_named_as_in_the_registry(values: dict[str, Any], network: str) -> None:
    assert translate(values, "a.yml")["network"] == network


def test_keys_of_another_family_are_ignored_and_named(caplog: pytest.LogCaptureFixture) -> None:
    config = minimal("s_mobilenet_v1", width_mult_range=[0.25, 1.0], width_mult_list_test=[0.3], num_sample_training=4)
    assert config == minimal("s_mobilenet_v1")
    assert "ignored: width_mult_range, width_mult_list_test, num_sample_training" in caplog.text
    assert minimal("autoslim_mnasnet", width_mult_list=[1.0]) == minimal("autoslim_mnasnet")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"num_epoch": 3}, "key 'num_epoch' is none of the published files' keys (did you mean 'num_epochs'?)"),
        ({"test_width": [0.3]}, "did you mean 'test_widths'?"),
        ({"epochs": 3}, "epochs is a key of our own configurations"),
        ({"model": None}, "which network to train"),
        ({"model": "models.us_mobilenetv1"}, "did you mean 'us_mobilenet_v1'?"),
        ({"model": ["us_mobilenet_v1"]}, "model is ['us_mobilenet_v1']"),
        ({"model": "models.us_resnet", "depth": 18}, "'us_resnet18': not known"),
        ({"model": "models.s_shufflenet", "groups": 2}, "groups is 2, but s_shufflenet has 3 groups"),
        ({"autoslim": True}, "which is a command of its own: `python -m slimtrain search CONFIG --targets 150M`"),
        ({"autoslim_target_flops": [500e6]}, "search for channel lists, which is a command of its own"),
        ({"profiling_only": True}, "count operations"),
        ({"slimmable_training": False}, "slimmable_training is false"),
        ({"universally_slimmable_training": False}, "universally_slimmable_training is false, but us_mobilenet_v1"),
        (
            {"model": "models.s_mobilenet_v1", "universally_slimmable_training": True},
            "universally_slimmable_training is true, but s_mobilenet_v1 has fixed switches",
        ),
        ({"slimmable_training": "yes"}, "slimmable_training is 'yes', expected true or false"),
        ({"dataset": "imagenet22k"}, "dataset is 'imagenet22k' (did you mean 'imagenet1k'?)"),
        ({"dataset": ["imagenet1k"]}, "dataset is ['imagenet1k']"),
        ({"data_transforms": "imagenet1k_mobil"}, "did you mean 'imagenet1k_mobile'?"),
        ({"image_size": [160, 0]}, "image_size is [160, 0], expected pixels of a square"),
        ({"image_size": []}, "expected pixels of a square"),
        ({"image_size": [1, 1, 1]}, "expected pixels of a square"),
        ({"batch_size_per_gpu": 32}, "batch_size_per_gpu is there without batch_size"),
        ({"optimizer": "adam"}, "optimizer is 'adam'. Expected sgd."),
        ({"lr_scheduler": "cosine_decay"}, "did you mean 'cosine_decaying'?"),
        ({"lr_scheduler": "exp_decaying"}, "exp_decaying_lr_gamma is not there"),
        ({"lr_warmup": True}, "lr_warmup_epochs is not there"),
        ({"lr_warmup": 5}, "lr_warmup is 5, expected true or false"),
        ({"soft_target": True, "inplace_distill": False}, "mean the same"),
        ({"soft_target": 1}, "soft_target is 1, expected true or false"),
        ({"channel_num_list": [[8, 1000]]}, "channel_num_list is for autoslim_ networks, this is us_mobilenet_v1"),
        ({"model": "models.autoslim_mnasnet", "channel_num_list": [8, 1000]}, "expected a list of lists"),
        ({"model": "models.autoslim_mnasnet", "channel_num_list": "8"}, "expected a list of lists"),
        ({"model": "models.autoslim_mnasnet", "channel_num_list": [[]]}, "expected a list of lists"),
        ({"calibrate_bn": "no"}, "calibrate_bn is 'no'"),
        ({"test_only": 1}, "test_only is 1"),
        # what Config finds
        ({"test_only": True}, "pretrained names none"),
        ({"skip_training": True}, "pretrained names none"),
        ({"model": "models.s_mobilenet_v1", "nonuniform": True}, "nonuniform is for us_ networks"),
        ({"lr_scheduler": "multistep"}, "milestones is empty"),
        ({"num_epochs": "many"}, "epochs is 'many', expected a whole number"),
        ({"nesterov": "True"}, "nesterov is 'True', expected true or false"),
        ({"lr": [0.1]}, "lr is [0.1], expected a finite number"),
        ({"weight_decay": "1e-x"}, "weight_decay is '1e-x'"),
        ({"image_size": "large"}, "image_size is 'large', expected pixels of a square"),
        ({"resume": True}, "resume is True, expected text"),
        ({"num_sample_training": 1}, "sandwich is 1, expected at least 2"),
        ({"width_mult_range": 0.5}, "width_range is [0.5], expected [narrowest, widest]"),
        ({"width_mult_range": [0.25, "wide"]}, "width_range is [0.25, 'wide']"),
        ({"width_mult_list_test": "0.3 0.4"}, "test_widths is '0.3 0.4'"),
        ({"width_mult_list_test": [{}, []]}, "test_widths is [{}, []]"),
        ({"model": "models.s_mobilenet_v1", "width_mult_list": [[0.5]]}, "switches is [[0.5]]"),
    ],
)
def test_what_cannot_be_done_or_contradicts_itself_is_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=r"^a\.yml: .*" + re.escape(reason)):
        make_config(translate({"model": "models.us_mobilenet_v1", **values}, "a.yml"), "a.yml")


def test_lists_without_the_unused_last_entry_do_not_pass_for_published_ones() -> None:
    short = [list(channels) for channels in AUTOSLIM_LISTS["autoslim_mobilenet_v1"]]
    with pytest.raises(UserError, match="has 14 slimmable positions, a channel list has 13"):
        minimal("autoslim_mobilenet_v1", channel_num_list=short).spec(10)


def test_set_takes_both_kinds_of_keys(tmp_path: Path) -> None:
    source = write(tmp_path, "model: models.us_mobilenet_v1\nnum_epochs: 7\nbatch_size_per_gpu: 32\nlr: 0.5\n")
    config = read_config(
        source, ["batch_size=64", "num_epochs=9", "lr = 0.2", "stem_stride=1", "lr_scheduler=cosine_decaying"]
    )
    assert (config.batch_size, config.epochs, config.lr, config.stem_stride) == (64, 9, 0.2, 1)
    assert config.output_dir == "runs/a"
    assert read_config(source, ["batch_size=64", "num_epochs=9", "epochs=3"]).epochs == 3  # ours count above theirs
    assert read_config(source, ["batch_size=64", "resume=auto", "log_dir="], output_dir="b").output_dir == "b"
    assert read_config(source, ["batch_size=64", "log_dir="]).output_dir == "runs/a"
    with pytest.raises(UserError, match="did you mean 'num_epochs'"):
        read_config(source, ["batch_size=64", "num_epoch=9"])


def test_repeated_keys_and_includes(tmp_path: Path) -> None:
    (tmp_path / "range.yml").write_text("[0.3, 1.0]\n")
    text = "model: models.s_resnet\nlr: 0.1\nlr: 0.5\nmodel: models.us_mobilenet_v1\nwidth_mult_range: !include range.yml\n"
    config = read_config(write(tmp_path, text))
    assert (config.network, config.lr, config.width_range) == ("us_mobilenet_v1", 0.5, (0.3, 1.0))


def test_a_packaged_name_is_not_looked_for_behind_app() -> None:
    with pytest.raises(UserError, match="us_mobilenet_v1: no such file"):
        read_config("app:us_mobilenet_v1")
