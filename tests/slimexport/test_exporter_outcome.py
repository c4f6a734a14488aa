"""What becomes of a bundle when verification fails: the good files stay, the bad ones go, an old bundle is not touched,
and what cannot be proven is called unverifiable and not passed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimexport.job import Job
from slimexport.target.manifest import read_manifest
from slimexport.target.verification import Verification
from slimtrain.data.noise import noise_images
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.export_defects import caught, edit, export
from tests.support.export_helpers import corrupt, negate_largest, refused, run, tree, write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("bites") / "small.pt")


def test_the_good_files_are_published_and_the_bad_one_is_listed_as_rejected(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corrupt(monkeypatch, edit("features.0.0.weight", negate_largest), only="x0_25")
    outcome = export(checkpoint, tmp_path / "b")
    refused(outcome, 1, "s_mobilenet_v1_x0_25: failed", f"The other file is in {tmp_path / 'b'}")
    assert sorted(tree(tmp_path / "b")) == ["manifest.json", "reference.npz", "s_mobilenet_v1_x0_5.onnx"]
    manifest = read_manifest(tmp_path / "b")
    assert [artifact.name for artifact in manifest.artifacts] == ["s_mobilenet_v1_x0_5"]
    (rejected,) = manifest.rejected
    assert (rejected.name, rejected.file, rejected.verification.status) == ("s_mobilenet_v1_x0_25", None, "failed")
    with np.load(tmp_path / "b" / "reference.npz") as reference:
        assert sorted(reference.files) == ["images", "logits_x0_5", "more_images", "more_x0_5"]
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_the_table_shows_good_and_bad(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corrupt(monkeypatch, edit("features.0.0.weight", negate_largest), only="x0_25")
    rows = {line.split()[0]: line.split()[5] for line in export(checkpoint, tmp_path / "b").out.splitlines()[1:3]}
    assert rows == {"0.25": "failed", "0.5": "passed"}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_json_is_still_printed_when_a_file_fails(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    def spoil(array: NDArray[Any]) -> None:
        array.reshape(-1)[0] = bad

    corrupt(monkeypatch, edit("classifier.0.weight", spoil), only="x0_25")
    outcome = export(checkpoint, tmp_path / "b", "--json")
    assert outcome.code == 1
    assert [entry["verification"]["max_rel_error"] for entry in outcome.manifest["rejected"]] == [None]


def test_an_old_bundle_stays_as_it_was_when_the_new_one_is_not_all_right(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert export(checkpoint, tmp_path / "b", "--widths", "0.5").code == 0
    before = tree(tmp_path)
    corrupt(monkeypatch, edit("features.0.0.weight", negate_largest), only="x0_25")
    outcome = export(checkpoint, tmp_path / "b", "--overwrite")
    refused(outcome, 1, "s_mobilenet_v1_x0_25: failed", "was left as it was")
    assert tree(tmp_path) == before


# ---------------------------------------------------------------------------------------------------- unverifiable


def silence_classifier(state: dict[str, torch.Tensor]) -> None:
    state["classifier.0.weight"].zero_()


def silence_norms(state: dict[str, torch.Tensor]) -> None:
    for key, tensor in state.items():
        if key.endswith("running_var"):
            tensor.fill_(1e12)


@pytest.mark.parametrize("silence", [silence_classifier, silence_norms])
def test_logits_that_do_not_depend_on_the_image_are_unverifiable_and_not_passed(
    tmp_path: Path, silence: Callable[[dict[str, torch.Tensor]], None]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = write_checkpoint(folder / "x.pt", change=silence)
    (tmp_path / "out").mkdir()
    outcome = export(path, tmp_path / "out" / "b", "--widths", "0.5")
    caught(outcome, tmp_path / "out" / "b", "unverifiable")
    assert "--verify-data" in outcome.err


def test_a_defect_in_an_unverifiable_network_would_have_passed_without_the_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why the rule is there: with a silent classifier a flipped weight changes nothing that a probe could show."""
    path = write_checkpoint(tmp_path / "x.pt", change=silence_classifier)
    corrupt(monkeypatch, edit("features.0.0.weight", negate_largest))
    outcome = export(path, tmp_path / "b", "--widths", "0.5")
    refused(outcome, 1, "unverifiable")
    assert not (tmp_path / "b").exists()


def test_no_verify_writes_unproven_files_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_checkpoint(tmp_path / "x.pt", change=silence_classifier)
    corrupt(monkeypatch, edit("features.0.0.weight", negate_largest))
    outcome = export(path, tmp_path / "b", "--widths", "0.5", "--no-verify")
    assert outcome.code == 0
    assert "skipped" in outcome.out
    (artifact,) = read_manifest(tmp_path / "b").artifacts
    assert artifact.verification == Verification(status="skipped")
    assert (tmp_path / "b" / artifact.file).exists()
    assert run("--bundle", tmp_path / "b", "--verify-only").code == 1, "the reference is there, so it can be seen later"


def test_photographs_in_place_of_noise_are_used_and_recorded(checkpoint: Path, tmp_path: Path) -> None:
    from PIL import Image

    draw = np.random.default_rng(0)
    for i in range(5):
        coarse = draw.integers(0, 255, (4, 4, 3), np.uint8)
        Image.fromarray(coarse).resize((90, 70)).save(tmp_path / f"{i}.png")
    outcome = export(checkpoint, tmp_path / "b", "--widths", "0.5", "--verify-data", str(tmp_path), "--probes", "3")
    assert outcome.code == 0, outcome
    with np.load(tmp_path / "b" / "reference.npz") as reference:
        assert reference["images"].shape == (3, 3, 64, 64)
        assert np.abs(reference["images"] - noise_images(3, 64, 1)).max() > 1
    assert read_manifest(tmp_path / "b").artifacts[0].verification.probes == 3


# --------------------------------------------------------------------------------------------------- chaotic networks


def float32_is_off(monkeypatch: pytest.MonkeyPatch, how: Callable[[Tensor], Tensor]) -> None:
    """Change the float32 logits of slimmable networks, and leave the float64 ones as they are."""
    real = SlimmableNetwork.forward

    def forward(self: SlimmableNetwork, x: Tensor) -> Tensor:
        logits = real(self, x)
        return how(logits) if x.dtype == torch.float32 else logits

    monkeypatch.setattr(SlimmableNetwork, "forward", forward)


def nothing_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if what stands in a file were right: the file stands for a runtime that computes it less exactly."""
    monkeypatch.setattr(Job, "_wrong_weight", lambda job, model, plan: "")


@pytest.mark.parametrize(("gap", "status", "tolerance"), [(1e-4, "passed", 2e-3), (1e-5, "failed", 2e-4)])
def test_a_file_may_be_off_by_twenty_times_what_float32_costs_the_slimmable_network_itself(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gap: float, status: str, tolerance: float
) -> None:
    """Both are simulated: a file that is off by 1e-3, and a slimmable network whose float32 logits are off by `gap`."""
    nothing_is_compared(monkeypatch)
    float32_is_off(monkeypatch, lambda logits: logits + gap * logits.abs().max())

    def shift(array: NDArray[Any]) -> None:
        with np.load(tmp_path / "clean" / "reference.npz") as reference:
            array += np.float32(1e-3 * np.abs(reference["logits_x0_5"]).max())

    assert export(checkpoint, tmp_path / "clean", "--widths", "0.5").code == 0
    corrupt(monkeypatch, edit("classifier.0.bias", shift))
    outcome = export(checkpoint, tmp_path / "b", "--widths", "0.5", "--json")
    assert outcome.code == (0 if status == "passed" else 1)
    (artifact,) = outcome.manifest["artifacts"] or outcome.manifest["rejected"]
    check = artifact["verification"]
    assert check["status"] == status
    assert check["max_rel_error"] == pytest.approx(1e-3, rel=0.05)
    assert check["float32_gap"] == pytest.approx(gap, rel=0.3)
    assert check["tolerance"] == pytest.approx(tolerance, rel=0.3)
    assert check["tolerance_from"] == "float32 gap"


def test_the_table_says_where_the_tolerance_is_not_the_usual_one(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    float32_is_off(monkeypatch, lambda logits: logits * 1.001)
    nothing_is_compared(monkeypatch)

    def scale(array: NDArray[Any]) -> None:
        array *= np.float32(1.002)

    corrupt(monkeypatch, edit("classifier.0.weight", scale))
    outcome = export(checkpoint, tmp_path / "b", "--widths", "0.5")
    assert outcome.code == 0
    assert "1e-02 *" in outcome.out and "* 20 times what float32 costs" in outcome.out
