"""A published detector's file, tested and calibrated on COCO's images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from slimtrain.base.packages import is_installed
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.config.reading import read_config
from slimtrain.detection.opening import coco_class_names
from slimtrain.running import opened
from slimtrain.training.testing import results_of, write_calibrated
from tests.reference.detection import make_detection
from tests.support.coco_folders import annotation, content, write_coco
from tests.support.run_helpers import ALONE

pytestmark = pytest.mark.skipif(not is_installed("faster_coco_eval"), reason="pip install '.[detection]'")
SMALL = ("detector.scales=[32]", "detector.longest=64", "batch_size=2", "workers=0", "device=cpu", "calibration_batches=1")


def test_a_published_file_is_tested_and_calibrated(tmp_path: Path) -> None:
    state = {key: torch.from_numpy(value) for key, value in make_detection.state_dict("faster").items()}
    torch.save({"meta": {}, "state_dict": state, "optimizer": None}, tmp_path / "faster.pth")
    categories = [{"id": number, "name": name} for number, name in enumerate(coco_class_names(80), 1)]
    write_coco(tmp_path / "coco", content([annotation(1), annotation(2, 2)], categories=categories))
    config = read_config("s_faster_rcnn_resnet50", [*SMALL, f"data_dir={tmp_path / 'coco'}"])
    job = opened(config, ALONE, str(tmp_path / "faster.pth"))
    assert job.images.config.image_size == (800, 1344)
    plans, (result,) = results_of(job, "0.25")
    assert [plan.width for plan in plans] == [0.25] and result.images == 2 and 0 <= result.figures["ap50"] <= 1
    before = job.checkpoint.network.statistics(plans[0])
    write_calibrated(job, tmp_path / "c.pt", "0.25")
    network = open_checkpoint(tmp_path / "c.pt").network
    after = network.statistics(network.plan(0.25))
    assert after.keys() == before.keys() and any(not torch.equal(after[path][0], before[path][0]) for path in before)
