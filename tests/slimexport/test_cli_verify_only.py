"""`slimexport --bundle DIR --verify-only`: a bundle proves itself again, and whatever was changed in it is told."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.support.bundle_helpers import edit_manifest, edit_reference
from tests.support.export_helpers import edit_weight, negate_largest, refused, run, tree, write_checkpoint
from tests.support.outcomes import Outcome

NAME = "s_mobilenet_v1_x0_5.onnx"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    path = write_checkpoint(folder / "small.pt")
    assert run("--ckpt", path, "--image-size", "64", "--output-dir", folder / "b").code == 0
    return folder / "b"


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A bundle of two widths that a test may damage."""
    shutil.copytree(exported, tmp_path / "b")
    return tmp_path / "b"


def verify(bundle: Path, *more: str) -> Outcome:
    return run("--bundle", bundle, "--verify-only", *more)


def test_an_untouched_bundle_passes_with_a_table_and_is_not_written_to(bundle: Path) -> None:
    before = tree(bundle)
    outcome = verify(bundle)
    assert outcome.code == 0, outcome
    assert [line.split()[5] for line in outcome.out.splitlines()[1:3]] == ["passed", "passed"]
    assert tree(bundle) == before


def test_json_gives_the_results(bundle: Path) -> None:
    outcome = verify(bundle, "--json")
    printed = json.loads(outcome.out)
    artifacts = printed["artifacts"] if isinstance(printed, dict) else printed
    assert {artifact["name"]: artifact["verification"]["status"] for artifact in artifacts} == {
        "s_mobilenet_v1_x0_25": "passed",
        "s_mobilenet_v1_x0_5": "passed",
    }


def test_a_bundle_that_was_moved_and_renamed_still_passes(bundle: Path, tmp_path: Path) -> None:
    bundle.rename(tmp_path / "elsewhere")
    assert verify(tmp_path / "elsewhere").code == 0


def test_a_changed_file_is_told_by_its_hash(bundle: Path) -> None:
    content = bytearray((bundle / NAME).read_bytes())
    content[-1] ^= 1
    (bundle / NAME).write_bytes(content)
    outcome = verify(bundle)
    assert outcome.code == 2 and outcome.err.startswith(f"slimexport: not proven right: {NAME}.\n{NAME}: failed, ")
    assert "SHA-256 is" in outcome.err and "was changed or damaged" in outcome.err
    assert [line.split()[5] for line in outcome.out.splitlines()[1:3]] == [
        "passed",
        "failed",
    ]


def test_a_changed_file_whose_hash_was_changed_too_fails_verification(bundle: Path) -> None:
    model = onnx.load(bundle / NAME)
    edit_weight(model, "features.0.0.weight", negate_largest)
    onnx.save(model, bundle / NAME)
    digest = hashlib.sha256((bundle / NAME).read_bytes()).hexdigest()
    edit_manifest(bundle, lambda manifest: manifest["artifacts"][1].update(sha256=digest))
    outcome = verify(bundle)
    refused(outcome, 1, "s_mobilenet_v1_x0_5")
    assert "s_mobilenet_v1_x0_25" not in outcome.err
    assert [line.split()[5] for line in outcome.out.splitlines()[1:3]] == ["passed", "failed"]


def test_a_missing_file_is_told(bundle: Path) -> None:
    (bundle / NAME).unlink()
    refused(verify(bundle), 2, NAME, "not there")


def test_a_folder_without_manifest_is_told(tmp_path: Path) -> None:
    refused(verify(tmp_path), 2, "holds no manifest.json")
    refused(verify(tmp_path / "none"), 2, "holds no manifest.json")


def test_changed_reference_logits_fail(bundle: Path) -> None:
    edit_reference(bundle, lambda arrays: arrays.update(logits_x0_5=arrays["logits_x0_5"] * 1.001))
    refused(verify(bundle), 1, "s_mobilenet_v1_x0_5")


def test_reference_logits_that_are_not_finite_never_pass(bundle: Path) -> None:
    for bad in (np.nan, np.inf):
        edit_reference(bundle, lambda arrays, bad=bad: arrays.update(logits_x0_5=arrays["logits_x0_5"] * bad))  # type: ignore[misc]
        outcome = verify(bundle)
        assert outcome.code in (1, 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.pop("logits_x0_5"),
        lambda arrays: arrays.pop("images"),
        lambda arrays: arrays.update(images=arrays["images"][:, :, :32]),
        lambda arrays: arrays.update(images=arrays["images"].astype(np.float64)),
        lambda arrays: arrays.update(images=arrays["images"][:0]),
        lambda arrays: arrays.update(images=np.float32(1)),
        lambda arrays: arrays.update(logits_x0_5=np.float64(1)),
        lambda arrays: arrays.update(logits_x0_5=arrays["logits_x0_5"][:0]),
    ],
    ids=["logits", "images", "size", "dtype", "no images", "no array", "no logits array", "no logits"],
)
def test_a_reference_that_does_not_fit_is_bad_input_and_no_traceback(
    bundle: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    edit_reference(bundle, change)
    outcome = verify(bundle)
    assert outcome.code in (1, 2), outcome
    assert "slimexport:" in outcome.err


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.update(artifacts=[1]),
        lambda manifest: manifest.update(artifacts=[{}]),
        lambda manifest: manifest.pop("source"),
        lambda manifest: manifest["artifacts"][0].pop("sha256"),
        lambda manifest: manifest["artifacts"][0].update(sha256=None),
        lambda manifest: manifest["artifacts"][0].update(file=None),
        lambda manifest: manifest["artifacts"][0].pop("verification"),
        lambda manifest: manifest["artifacts"][0].update(verification=None),
        lambda manifest: manifest["artifacts"][0].pop("macs"),
    ],
    ids=[
        *("entry is a number", "entry is empty", "no source", "no hash", "hash is null", "file is null"),
        *("no verification", "verification is null", "no macs"),
    ],
)
def test_a_manifest_that_was_edited_is_bad_input_and_no_traceback(
    bundle: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    edit_manifest(bundle, change)
    refused(verify(bundle), 2, "slimexport:", "manifest")


def test_a_bundle_with_nothing_in_it_is_not_called_proven(bundle: Path) -> None:
    edit_manifest(bundle, lambda manifest: manifest.update(artifacts=[]))
    assert verify(bundle).code != 0


def test_a_file_that_is_no_onnx_is_told(bundle: Path) -> None:
    (bundle / NAME).write_bytes(b"not onnx")
    digest = hashlib.sha256(b"not onnx").hexdigest()
    edit_manifest(bundle, lambda manifest: manifest["artifacts"][1].update(sha256=digest))
    refused(verify(bundle), 2, NAME, "is no ONNX file")


def test_a_file_of_another_network_fails(bundle: Path) -> None:
    """Same bundle, same hash in the manifest, but the narrow network under the wide one's name."""
    shutil.copy(bundle / "s_mobilenet_v1_x0_25.onnx", bundle / NAME)
    digest = hashlib.sha256((bundle / NAME).read_bytes()).hexdigest()
    edit_manifest(bundle, lambda manifest: manifest["artifacts"][1].update(sha256=digest))
    refused(verify(bundle), 1, "s_mobilenet_v1_x0_5")


@pytest.mark.parametrize("tells_file", [True, False], ids=["this version", "an earlier one"])
def test_an_accuracy_is_told_of_the_file_that_it_was_measured_on(bundle: Path, tells_file: bool) -> None:
    def measured(manifest: dict[str, Any]) -> None:
        for top1, entry in zip((0.25, 0.75), manifest["artifacts"], strict=True):
            entry["accuracy"] = {"top1": top1, "images": 360, "data": "digits"}
            entry["accuracy"] |= {"sha256": entry["sha256"]} if tells_file else {}

    edit_manifest(bundle, measured)
    right = verify(bundle)
    assert "25.00%" in right.out and "75.00%" in right.out and "the 360 images of digits" in right.out
    shutil.copy(bundle / "s_mobilenet_v1_x0_25.onnx", bundle / NAME)  # and its hash is mended
    digest = hashlib.sha256((bundle / NAME).read_bytes()).hexdigest()
    edit_manifest(bundle, lambda manifest: manifest["artifacts"][1].update(sha256=digest))
    wrong = verify(bundle)
    assert wrong.code == 1 and "25.00%" in wrong.out and "75.00%" not in wrong.out
    printed = json.loads(verify(bundle, "--json").out)
    assert [entry["accuracy"] is None for entry in printed] == [False, True]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs there")
@pytest.mark.parametrize("name", ["manifest.json", "reference.npz", NAME])
def test_what_is_no_file_is_told_and_not_waited_for(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    refused(verify(bundle), 2, name)


def hostile(folder: Path, draw: random.Random) -> None:
    """A file of a bundle with something else somewhere."""
    name = draw.choice(["manifest.json", "reference.npz", NAME])
    content = bytearray((folder / name).read_bytes())
    for _ in range(draw.choice([1, 4])):
        begin = draw.randrange(len(content))
        content[begin : begin + draw.choice([0, 1, 20])] = draw.choice([b"", b"\xff", b"9" * 400, b"[" * 3000, b"-1", b"null"])
    (folder / name).write_bytes(content)
    if name == NAME:
        digest = hashlib.sha256(content).hexdigest()
        edit_manifest(folder, lambda manifest: manifest["artifacts"][1].update(sha256=digest))


def test_whatever_is_in_a_bundle_is_told_and_no_traceback(bundle: Path, tmp_path: Path) -> None:
    draw = random.Random(16)
    for number in range(15):
        shutil.copytree(bundle, tmp_path / str(number))
        hostile(tmp_path / str(number), draw)
        outcome = verify(tmp_path / str(number))
        assert outcome.code in (0, 1, 2) and "Traceback" not in outcome.err, (number, outcome)


def test_an_artifact_of_another_format_is_left_to_who_can_run_it(bundle: Path) -> None:
    engine = {"format": "trt", "precision": "fp16", "file": "s_mobilenet_v1_x0_5.fp16.plan"}
    edit_manifest(bundle, lambda manifest: manifest["artifacts"].append({**manifest["artifacts"][1], **engine}))
    assert verify(bundle).code == 0


def test_usage_a_bundle_goes_with_verify_only_and_not_with_a_checkpoint(bundle: Path) -> None:
    refused(run("--bundle", bundle), 2, "--verify-only")
    refused(run("--bundle", bundle, "--verify-only", "--ckpt", "x.pt"), 2, "not both")
    refused(run("--verify-only", "--ckpt", "random:s_mobilenet_v1"), 2, "--bundle")
