"""Average precision of exported files: that of the checkpoint, on the same images."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import slimexport
from slimexport.detectors.form import Detecting
from slimexport.detectors.precision import tell_apart
from slimexport.request import Proof
from slimexport.target.manifest import Accuracy
from slimtrain.base.errors import UserError
from slimtrain.base.packages import is_installed
from tests.support.coco_pictures import NAMES, coco_folder
from tests.support.exported_detectors import detector_checkpoint

needed = pytest.mark.skipif(not is_installed("faster_coco_eval"), reason="needs the extra detection")


@needed
def test_files_are_as_precise_as_the_checkpoint(tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "data")
    path = detector_checkpoint(tmp_path, class_names=NAMES)
    proof = Proof(verify=False, accuracy_data=data)
    manifest = slimexport.export(path, output_dir=tmp_path / "bundle", proof=proof, detecting=Detecting(score=0.01))
    for artifact in manifest.artifacts:
        accuracy = artifact.accuracy
        assert accuracy is not None and accuracy.images == 4 and accuracy.data == "data" and accuracy.top1 is None
        assert accuracy.ap is not None and accuracy.ap50 is not None and accuracy.checkpoint_ap is not None
        assert abs(accuracy.ap - accuracy.checkpoint_ap) <= 1e-3 and accuracy.ap <= accuracy.ap50
        assert accuracy.share == accuracy.ap and accuracy.sha256 == artifact.sha256


@needed
def test_other_classes_are_refused(tmp_path: Path) -> None:
    path = detector_checkpoint(tmp_path, class_names=NAMES)
    with pytest.raises(UserError, match=r"scenes: has 10 classes, .* has 3"):
        slimexport.export(path, output_dir=tmp_path / "b", proof=Proof(accuracy_data="scenes"))
    data = coco_folder(tmp_path / "data", ("one", "four", "three"))
    with pytest.raises(UserError, match=r"has a class 'four' where .* has 'two'"):
        slimexport.export(path, output_dir=tmp_path / "b", proof=Proof(accuracy_data=data))


@needed
def test_raw_boxes_have_no_precision_and_folders_are_to_be_there(tmp_path: Path) -> None:
    path = detector_checkpoint(tmp_path)
    with pytest.raises(UserError, match="--nms none leaves them to you"):
        slimexport.export(path, output_dir=tmp_path / "b", proof=Proof(accuracy_data="scenes"), detecting=Detecting("none"))
    with pytest.raises(UserError, match="no such folder"):
        slimexport.export(path, output_dir=tmp_path / "b", proof=Proof(accuracy_data=tmp_path / "nothing"))


def test_fewer_bits_may_cost_something_and_not_more(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for precision, lost in (("fp16", 0.004), ("fp16", 0.006), ("int8-cpu", 0.019), ("int8-cpu", 0.021), ("bf16", -0.1)):
            tell_apart("a", Accuracy(images=1, data="d", ap=0.5 - lost, checkpoint_ap=0.5), precision)
    first, second = (record.message for record in caplog.records)
    assert first.startswith("a fp16: its average precision is 0.4940, the checkpoint's 0.5000: more is lost than fp16 should")
    assert second.startswith("a int8-cpu: ") and "int8 should cost (0.02)" in second


def test_what_differs_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        tell_apart("a", Accuracy(images=1, data="d", ap=0.5, checkpoint_ap=0.5005))
        tell_apart("b", Accuracy(images=1, data="d", ap=0.5, checkpoint_ap=0.502))
    assert [record.message for record in caplog.records] == ["b: its average precision is 0.5000, the checkpoint's 0.5020"]
