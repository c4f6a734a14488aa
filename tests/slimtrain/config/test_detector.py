"""A detector's own keys: nested in files, dotted on the command line, checked, and part of what a run is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from slimtrain.base.errors import UserError
from slimtrain.config.config import Config, dump_config, run_settings
from slimtrain.config.detector import DETECTOR_KEYS, DetectorConfig
from slimtrain.config.keys import Scope
from slimtrain.config.reading import DETECTOR_TYPES, config_names, read_config, stored_settings
from slimtrain.models.detector import FASTER, KEYPOINT, KINDS, MASK, RETINA, SSD_ANCHORS, SSDLITE, DetectorSettings

RESNET_STRIDES = (4, 8, 16, 32)


@pytest.mark.parametrize("name", [name for name in config_names() if read_config(name).detector])
def test_packaged_detectors_are_read_and_written_again(name: str, tmp_path: Path) -> None:
    config = read_config(name)
    assert config.detector is not None and config.detector.kind == config.network.partition("_")[2]
    path = tmp_path / "again.yml"
    path.write_text(dump_config(config), encoding="utf-8")
    again = read_config(str(path))
    assert dataclasses.replace(again, fit_batch=config.fit_batch, scale_lr=config.scale_lr, scratch_lr=config.scratch_lr) == (
        config
    )


def test_a_dotted_key_changes_one_of_a_file_s_mapping_and_leaves_the_others() -> None:
    before = read_config("detect_digits").detector
    after = read_config("detect_digits", ["detector.neck=80", "detector.anchor_sizes=[[8], [16], [32]]"]).detector
    assert before is not None and before.neck != 80
    assert after == dataclasses.replace(before, neck=80, anchor_sizes=((8,), (16,), (32,)))


def test_a_network_that_is_a_detector_has_settings_without_a_mapping() -> None:
    config = Config("us_retinanet", data="coco")
    assert config.detector == DetectorConfig("retinanet") and config.family == "us"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["detector.nek=64"], "key 'detector.nek' is not known .did you mean 'detector.neck'"),
        (["detector.neck=wide"], "detector.neck is 'wide', expected a whole number"),
        (["detector.neck=0"], "detector.neck is 0, expected at least 1"),
        (["detector=3"], "detector is 3, expected keys of its own"),
        (["detector.kind=retinanet"], "detector.kind is retinanet, network s_faster_rcnn: leave the kind out"),
        (["detector.backbone=resnet18"], "detector.backbone is 'resnet18', expected resnet50, resnet .*torchvision:NAME"),
        (["detector.first_stage=3"], "detector.first_stage is 3 .*expected a stage at least"),
        (["detector.rpn_background=0.8"], "rpn_background is 0.8, above detector.rpn_object, 0.7"),
        (["detector.candidates=3"], "detector.candidates is 3, expected at least as many as detector.detections"),
        (["detector.anchor_sizes=[[8], [16, 32]]"], "anchor_sizes are .*expected as many at every level"),
        (["detector.anchor_scales=[0.1, 0.2]"], "the anchors of a faster_rcnn have anchor_sizes"),
        (["network=s_mask_rcn"], "did you mean 's_mask_rcnn'"),
        (["network=s_keypoint_rcnn"], "learns keypoints, and data scenes has none. Set data: coco"),
        (["data=digits"], "s_faster_rcnn is a detector, and data digits has no boxes. Set data to scenes or coco"),
        (["image_size=100"], "image_size is 100, expected sides that are multiples of 16, the stride of the coarsest stage"),
        (["image_size=128x80", "detector.backbone=resnet50"], "image_size is 128x80, expected sides .* multiples of 32"),
        (["in_channels=1"], "in_channels is 1, a detector's images have 3"),
        (["distill=true"], "distill is True: it is for classifiers, s_faster_rcnn is none"),
        (["compile=true"], "compile is True: it is for classifiers"),
        (
            ["search_cost=latency", "latency_table=t.json"],
            "search_cost is latency, and s_faster_rcnn is a detector: a latency",
        ),
    ],
)
def test_what_no_detector_can_be_is_refused(changes: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_config("detect_digits", changes)


def test_classifiers_have_no_detector_and_no_boxes() -> None:
    with pytest.raises(UserError, match="data coco are images with objects in them, and network us_mobilenet_v1 is a class"):
        read_config("digits", ["data=coco"])
    with pytest.raises(UserError, match="detector has settings, and network us_mobilenet_v1 is no detector"):
        read_config("digits", ["detector.neck=3"])
    with pytest.raises(UserError, match="network s_faster_rcnn: is a detector, and this works with classifiers alone"):
        read_config("detect_digits").spec(10)


@pytest.mark.parametrize("name", [name for name, kind in DETECTOR_TYPES.items() if kind not in (str, bool)])
def test_every_number_has_limits(name: str) -> None:
    for value in ("1e308", "-1e308", str(10**18), ".nan", ".inf"):
        for text in (value, f"[{value}]", f"[[{value}]]"):
            with pytest.raises(UserError, match=f"detector.{name}"):
                read_config("detect_digits", [f"detector.{name}={text}"])


def test_all_of_it_is_what_a_run_is() -> None:
    config = read_config("detect_digits")
    assert {rule.scope for rule in DETECTOR_KEYS.values()} == {Scope.RUN}
    settings = run_settings(config)
    assert settings["detector"]["anchor_sizes"] == [[20], [32], [48], [64]]
    assert stored_settings(settings, "file")["detector"] == settings["detector"]
    assert yaml.safe_load(yaml.safe_dump(settings)) == settings


@pytest.mark.parametrize("kind", KINDS)
def test_without_keys_anchors_and_boxes_are_the_kind_s_usual_ones(kind: str) -> None:
    strides = {RETINA: (8, 16, 32), SSDLITE: (16, 32)}.get(kind, RESNET_STRIDES)
    settings = DetectorConfig(kind).settings(80, strides)
    assert settings.kind == kind and settings.classes == 80
    assert (settings.mask is not None) == (kind == MASK) and (settings.keypoints is not None) == (kind == KEYPOINT)
    usual = DetectorSettings(80)
    if kind == SSDLITE:
        assert settings.anchors == SSD_ANCHORS
    elif kind == RETINA:
        assert settings.anchors.sizes[0] == (32, 40, 50) and settings.anchors.strides == (8, 16, 32, 64, 128)
    else:
        assert settings.anchors == usual.anchors and settings.box == usual.box and settings.proposals == usual.proposals


def test_anchors_of_another_number_of_levels_are_refused() -> None:
    config = DetectorConfig(FASTER, anchor_sizes=((8,), (16,)))
    with pytest.raises(UserError, match=r"^detector.anchor_sizes are 2, expected 5: the levels have strides 4, 8, 16, 32, 64"):
        config.settings(10, RESNET_STRIDES)
