"""End to end, as a user does it: a published checkpoint file, the command in a process of its own, and a bundle whose
files plain onnxruntime runs to the golden logits."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from tests.support import ROOT, TESTS

WIDTHS = (0.25, 0.5, 1.0)
NAMES = ("x0_25", "x0_5", "x1_0")


def command(*args: str | Path, cwd: Path, seed: str) -> subprocess.CompletedProcess[str]:
    """`python -m slimexport ARGS` in `cwd`, with a hash seed of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
    line = [sys.executable, "-m", "slimexport", *map(str, args)]
    return subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=600)


def infer(path: Path, images: NDArray[Any]) -> NDArray[Any]:
    """What README tells users to write."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["output"], {"input": images})
    return np.asarray(logits)


@pytest.fixture(scope="module")
def work(checkpoint_path: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the command has just been run."""
    folder = tmp_path_factory.mktemp("work")
    done = command("--ckpt", checkpoint_path("us_mobilenet_v1"), "--widths", "0.25,0.5,1.0", cwd=folder, seed="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"3 networks in {Path('exports') / 'us_mobilenet_v1'}"
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == ["passed"] * 3, "only progress, one line each"
    return folder


@pytest.fixture(scope="module")
def bundle(work: Path) -> Path:
    return work / "exports" / "us_mobilenet_v1"


@pytest.fixture(scope="module")
def manifest(bundle: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())
    return content


def test_the_bundle_is_all_that_was_written(work: Path) -> None:
    files = sorted(str(path.relative_to(work)) for path in work.rglob("*") if path.is_file())
    folder = "exports/us_mobilenet_v1/"
    assert files == sorted(
        [f"{folder}manifest.json", f"{folder}reference.npz", *(f"{folder}us_mobilenet_v1_{name}.onnx" for name in NAMES)]
    )


def test_the_files_give_the_golden_logits_in_plain_onnxruntime(bundle: Path, golden_images: NDArray[Any]) -> None:
    with np.load(TESTS / "reference" / "golden" / "us_mobilenet_v1.npz") as golden:
        for width, name in zip(WIDTHS, NAMES, strict=True):
            expected = golden[str(width)]
            logits = infer(bundle / f"us_mobilenet_v1_{name}.onnx", golden_images)
            assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
            assert (logits.argmax(1) == expected.argmax(1)).all()


def test_the_files_give_the_bundles_own_reference_logits(bundle: Path) -> None:
    with np.load(bundle / "reference.npz") as reference:
        assert sorted(reference.files) == ["images", *(f"logits_{name}" for name in NAMES)]
        for name in NAMES:
            expected = reference[f"logits_{name}"]
            for images, rows in ((reference["images"], slice(None)), (reference["images"][:1], slice(1))):
                logits = infer(bundle / f"us_mobilenet_v1_{name}.onnx", images)
                assert np.abs(logits - expected[rows]).max() <= 1e-5 * np.abs(expected).max()


def test_the_manifest_is_as_the_design_promises(
    manifest: dict[str, Any], bundle: Path, checkpoint_path: Callable[[str], Path]
) -> None:
    checkpoint = checkpoint_path("us_mobilenet_v1")
    assert manifest["schema_version"] == 1
    source = manifest["source"]
    assert (source["file"], source["network"]) == ("us_mobilenet_v1.pt", "us_mobilenet_v1")
    assert source["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert manifest["input"].keys() >= {"name", "channels", "image_size", "mean", "std"}
    assert (manifest["input"]["name"], manifest["input"]["image_size"]) == ("input", 224)
    assert manifest["output"] == {"name": "output", "classes": 1000}
    layout = json.loads((TESTS / "reference" / "layouts" / "us_mobilenet_v1.json").read_text())
    for artifact, width, name in zip(manifest["artifacts"], WIDTHS, NAMES, strict=True):
        content = (bundle / artifact["file"]).read_bytes()
        assert artifact["name"] == f"us_mobilenet_v1_{name}"
        assert artifact["width"] == width
        assert artifact["sha256"] == hashlib.sha256(content).hexdigest()
        assert artifact["size_bytes"] == len(content) <= 4 * artifact["params"] + 120_000
        assert artifact["macs"] == layout["macs"][str(width)] - artifact["channels"]["features.13"] * 7 * 7
        assert artifact["verification"]["status"] == "passed"
        assert artifact["verification"]["max_rel_error"] <= 1e-5
        assert artifact["verification"]["top1_agreement"] == 1.0
    assert [artifact["params"] for artifact in manifest["artifacts"]] == [467_336, 1_326_120, 4_221_032]


def test_the_same_command_writes_the_same_bytes_in_another_process(
    bundle: Path, checkpoint_path: Callable[[str], Path], tmp_path: Path
) -> None:
    checkpoint = checkpoint_path("us_mobilenet_v1")
    done = command("--ckpt", checkpoint, "--widths", "0.25,0.5,1.0", "--output-dir", tmp_path / "b", cwd=tmp_path, seed="2")
    assert done.returncode == 0, done.stderr
    for path in bundle.iterdir():
        assert (tmp_path / "b" / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_bundle_proves_itself_again_where_it_was_copied(bundle: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(bundle, tmp_path / "copy")
    done = command("--bundle", tmp_path / "copy", "--verify-only", cwd=tmp_path, seed="3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("passed") == 3


def test_the_command_refuses_to_do_it_twice_in_one_place(
    work: Path, bundle: Path, checkpoint_path: Callable[[str], Path]
) -> None:
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    done = command("--ckpt", checkpoint_path("us_mobilenet_v1"), "--widths", "0.25", cwd=work, seed="4")
    assert done.returncode == 2
    assert "--overwrite" in done.stderr and "Traceback" not in done.stderr
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
