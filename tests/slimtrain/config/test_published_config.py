"""What published `apps/*.yml` files, and configurations of ours, say of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from slimtrain.base.errors import UserError
from slimtrain.config.published_config import PublishedConfig, read_published_config
from slimtrain.models.normalization import IMAGENET_MEAN, INCEPTION_MEAN, INCEPTION_STD

US_V1 = """
# =========================== Override Settings ===========================
num_gpus_per_job: 4
memory_per_job: 330
gpu_type: "nvidia-tesla-p100"
dataset: imagenet1k
data_transforms: imagenet1k_mobile
data_loader: imagenet1k_basic
num_classes: 1000
image_size: 224
lr: 0.1
lr: 0.5
model: models.s_mobilenet_v1
model: models.us_mobilenet_v1
width_mult: 1.0
width_mult_list: [1.0]
width_mult_range: [0.25, 1.0]
width_mult_list_test: [0.25, 0.275, 1.0, 0.3]
"""


def read(folder: Path, text: str) -> PublishedConfig:
    (folder / "a.yml").write_text(text)
    return read_published_config(folder / "a.yml")


def test_a_us_configuration_gives_list_range_and_further_widths_each_once(tmp_path: Path) -> None:
    config = read(tmp_path, US_V1)
    assert config.network == "us_mobilenet_v1"  # the last one counts
    assert config.switches == (1.0, 0.25, 0.275, 0.3)
    assert (config.image_size, config.mean) == (224, IMAGENET_MEAN)


def test_an_s_configuration_gives_its_switches(tmp_path: Path) -> None:
    config = read(tmp_path, "model: models.s_mobilenet_v2\nwidth_mult_list: [0.35, 0.5, 0.75, 1]\nimage_size: 160\n")
    assert config == PublishedConfig("s_mobilenet_v2", (0.35, 0.5, 0.75, 1.0), 160)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("model: models.s_resnet\ndepth: 50\n", "s_resnet50"),
        ("model: models.s_resnet\n", "s_resnet50"),
        ("depth: 152\nmodel: models.us_resnet\n", "us_resnet152"),
        ("model: models.autoslim_resnet\ndepth: 101\n", "autoslim_resnet101"),
        ("model: s_shufflenet\ngroups: 3\n", "s_shufflenet"),
    ],
)
def test_a_resnet_is_named_by_its_depth(text: str, network: str, tmp_path: Path) -> None:
    assert read(tmp_path, text).network == network


def test_autoslim_switches_are_lists_and_no_widths(tmp_path: Path) -> None:
    text = "model: models.autoslim_mnasnet\nwidth_mult_list: [1.0, 2.0]\nchannel_num_list: [[16, 8], [16, 16]]\n"
    assert read(tmp_path, text).switches == ()


def test_inception_transforms_normalize_with_a_half(tmp_path: Path) -> None:
    config = read(tmp_path, "model: models.s_mobilenet_v1\ndata_transforms: imagenet1k_inception\n")
    assert (config.mean, config.std) == (INCEPTION_MEAN, INCEPTION_STD) == ((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("form", ["160", "[160, 160]"])
def test_image_sizes_are_one_number_or_two(form: str, tmp_path: Path) -> None:
    assert read(tmp_path, f"model: models.s_mobilenet_v1\nimage_size: {form}\n").image_size == 160


@pytest.mark.parametrize(
    "text",
    [
        *("", "just text", "- a\n- b\n", "a: [1, 2\n", "\tmodel: x\n", "a: b: c\n", "key: \x00\n", "day: 2001-99-99\n"),
        *(
            "model: models.s_mobilenet_v1\nimage_size: big\n",
            "image_size: 1.5\n",
            "image_size: [a, b]\n",
            "image_size: true\n",
        ),
        "model: models.s_mobilenet_v9\n",
        "model: models.s_resnet\ndepth: 18\n",
        "width_mult_list: 0.5\n",
        "width_mult_list: [0.5, wide]\n",
        "width_mult_list: [0.5, 0]\n",
        "width_mult_list: [-0.5]\n",
        "width_mult_range: {low: 0.25}\n",
        "width_mult_list: [.nan]\n",
        "width_mult_list: [.inf]\n",
        "width_mult_list: [true]\n",
    ],
)
def test_what_has_the_wrong_form_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)
    assert "a.yml" in str(caught.value) or "not known" in str(caught.value)


def test_a_mistyped_model_gets_the_nearest_name_and_the_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'us_mobilenet_v1'"):
        read(tmp_path, "model: models.us_mobilenetv1\n")
