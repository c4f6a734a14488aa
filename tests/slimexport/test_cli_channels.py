"""`slimexport` for images that are no squares, and of other channels than pictures have: bundles say it, files take it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from slimexport.target.manifest import read_manifest
from slimtrain.data.noise import noise_images
from tests.support.export_helpers import random_state, refused, run, run_onnx, small_spec, write_checkpoint
from tests.support.slimtrain_states import network_of


def test_a_gray_published_checkpoint_at_another_shape(tmp_path: Path) -> None:
    """Its file computes what the slimmable network does in float64."""
    spec = replace(small_spec(), in_channels=1)
    path = write_checkpoint(tmp_path / "gray.pt", spec)
    assert run("--ckpt", path, "--image-size", "64x40", "--widths", "0.25", "--output-dir", tmp_path / "b").code == 0
    manifest = read_manifest(tmp_path / "b")
    assert (manifest.input.channels, manifest.input.image_size, manifest.input.mean) == (1, (64, 40), (0.459,))
    file = tmp_path / "b" / manifest.artifacts[0].file
    model = onnx.load(file)
    assert [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim][1:] == [1, 64, 40]
    assert {entry.key: entry.value for entry in model.metadata_props}["image_size"] == "64x40"
    images = np.random.default_rng(0).standard_normal((3, 1, 64, 40)).astype(np.float32)
    network = network_of(spec, random_state(spec)).double()
    with torch.inference_mode(), network.at(spec.plan(0.25)):
        expected = network(torch.from_numpy(images).double()).numpy()
    np.testing.assert_allclose(run_onnx(file, images), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_an_untrained_network_of_two_channels(tmp_path: Path) -> None:
    """Verified on arrays: no picture has two channels, and every refusal says what takes them."""
    out, array = tmp_path / "b", tmp_path / "a.npy"
    np.save(array, noise_images(8, (32, 48), 0, 2))
    words = ["--ckpt", "random:s_mobilenet_v1,in_channels=2,classes=10", "--image-size", "32x48", "--widths", "0.25"]
    outcome = run(*words, "--verify-data", array, "--output-dir", out)
    assert outcome.code == 0, outcome
    manifest = read_manifest(out)
    assert (manifest.input.channels, manifest.input.image_size, manifest.output.classes) == (2, (32, 48), 10)
    assert [artifact.verification.status for artifact in manifest.artifacts] == ["passed"]
    assert run("--bundle", out, "--verify-only").code == 0
    refused(run(*words, "--verify-data", tmp_path, "--output-dir", tmp_path / "c"), 2, "2 channels", "as a .npy file instead")
    refused(
        run(*words, "--accuracy-data", "digits", "--output-dir", tmp_path / "c"), 2, "2 channels", "slimexport.open_network"
    )
    refused(run("--bundle", out, "--predict", "photo.png"), 2, "2 channels", "slimexport.open_network(BUNDLE, WIDTH)")


@pytest.mark.parametrize("words", [["--image-size", "64x40"], []])
def test_a_dry_run_tells_the_macs_of_the_images(words: list[str]) -> None:
    """Of MobileNet v1's stem, 3 x 3 x 8 weights at half of each side, two channels of three are left out."""
    totals = []
    for source in ("random:s_mobilenet_v1", "random:s_mobilenet_v1,in_channels=1"):
        manifest = run("--ckpt", source, "--widths", "0.25", *words, "--dry-run", "--json").manifest
        totals.append(manifest["artifacts"][0]["macs"])
    height, width = (64, 40) if words else (224, 224)
    assert totals[0] - totals[1] == 2 * 8 * 9 * (height // 2) * (width // 2)


@pytest.mark.parametrize("source", ["random:us_mobilenet_v1,in_channels=0", "random:us_mobilenet_v1,channels=1"])
def test_a_wrong_name_of_an_untrained_network(source: str) -> None:
    refused(run("--ckpt", source, "--dry-run"), 2, source, "in_channels=N with 1 to 16 channels")
