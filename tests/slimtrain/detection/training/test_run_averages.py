"""--weights of detectors: of a run that averaged them, `last.pt` holds both sets, what is finished the average."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from slimtrain.base.errors import UserError
from slimtrain.base.packages import is_installed
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.running import opened, train
from slimtrain.training.testing import write_calibrated
from tests.support.detector_runs import detector_config
from tests.support.export_helpers import refused
from tests.support.export_helpers import run as export
from tests.support.run_helpers import ALONE, raw

pytestmark = pytest.mark.skipif(not is_installed("faster_coco_eval"), reason="pip install '.[detection]'")
KEY, FINISHED = "roi_heads.box_head.fc6.weight", "s_faster_rcnn.pt"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that averaged its weights."""
    folder = tmp_path_factory.mktemp("run")
    train(detector_config(folder, epochs=1, ema=0.5), ALONE)
    return folder


def held(path: Path, weights: str | None = None) -> dict[str, Tensor]:
    return open_checkpoint(path, weights=weights).network.state_dict()


def test_last_pt_holds_both_gives_what_is_asked_for_and_says_so(finished: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = raw(finished / "last.pt")
    with caplog.at_level("INFO"):
        held(finished / "last.pt")
    assert caplog.messages == ["last.pt: took the weights as trained. It holds their average, too, which --weights ema takes"]
    for wanted, prefix, expected in (
        (None, "", content["model"]),
        ("model", "", content["model"]),
        ("ema", "module.", content["training"]["ema"]),
        ("training.ema", "module.", content["training"]["ema"]),
    ):
        state = held(finished / "last.pt", wanted)
        assert all(torch.equal(value, expected[f"{prefix}{key}"]) for key, value in state.items()), wanted
    assert not torch.equal(content["model"][KEY], content["training"]["ema"][f"module.{KEY}"])


def test_what_is_finished_holds_the_average_and_gives_it_by_either_name(finished: Path) -> None:
    average = held(finished / "last.pt", "ema")[KEY]
    for name in (FINISHED, "best.pt"):
        for wanted in (None, "model", "ema"):
            assert torch.equal(held(finished / name, wanted)[KEY], average), (name, wanted)


def test_a_key_that_is_not_there_is_refused_and_the_sets_are_named(finished: Path) -> None:
    with pytest.raises(UserError, match=r"nothing is called so.*It holds model; training\.ema\. Give one of these keys"):
        held(finished / "last.pt", "emma")
    with pytest.raises(UserError, match=r"nothing is called so\. It holds model, an average\. Give"):
        held(finished / FINISHED, "training.ema")


def test_without_an_average_ema_is_refused(tmp_path: Path) -> None:
    train(detector_config(tmp_path / "run", epochs=1), ALONE)
    for name in (FINISHED, "best.pt", "last.pt"):
        with pytest.raises(
            UserError, match=r"--weights ema: it does not say that it holds an average of its weights\. It holds model\. Give"
        ):
            held(tmp_path / "run" / name, "ema")


def test_a_calibrated_file_tells_whether_it_holds_an_average(finished: Path, tmp_path: Path) -> None:
    """Its settings name the run's `ema` either way."""
    config = detector_config(finished, calibration_batches=1)
    for wanted in ("model", "ema"):
        job = opened(config, ALONE, str(finished / "last.pt"), wanted)
        assert job.checkpoint.settings["ema"] == 0.5
        write_calibrated(job, tmp_path / f"{wanted}.pt")
    assert torch.equal(held(tmp_path / "ema.pt", "ema")[KEY], held(finished / "last.pt", "ema")[KEY])
    with pytest.raises(UserError, match="does not say that it holds an average"):
        held(tmp_path / "model.pt", "ema")


def test_training_begins_with_the_set_that_is_named(finished: Path, tmp_path: Path) -> None:
    last = finished / "last.pt"
    for wanted in ("model", "ema"):
        config = detector_config(tmp_path / wanted, epochs=1, lr=0.0, pretrained=str(last), pretrained_weights=wanted)
        path = train(config, ALONE)
        assert torch.equal(held(path)[KEY], held(last, wanted)[KEY]), wanted


def test_an_export_takes_either(finished: Path) -> None:
    for name in (FINISHED, "last.pt"):
        assert export("--ckpt", finished / name, "--widths", "0.5", "--weights", "ema", "--dry-run").code == 0
    outcome = export("--ckpt", finished / "last.pt", "--widths", "0.5", "--weights", "emma", "--dry-run")
    refused(outcome, 2, "nothing is called so", "It holds model; training.ema")
