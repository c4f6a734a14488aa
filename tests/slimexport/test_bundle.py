"""A bundle's files run and proven where they lie: one opened by name, width or precision, all verified again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from slimexport.bundle import open_network, verify_bundle
from slimexport.exporter import export
from slimexport.target.errors import BundleError
from slimexport.target.tensorrt.engines import build_engines
from slimtrain.base.files import file_sha256
from tests.support.bundle_helpers import edit_manifest
from tests.support.export_helpers import run_onnx
from tests.support.trt_helpers import machine


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("public") / "b"
    export("random:us_mobilenet_v1", widths=[0.25, 0.5], image_size=32, output_dir=folder)
    return folder


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """One that a test may spoil."""
    return Path(shutil.copytree(exported, tmp_path / "b"))


@pytest.mark.parametrize("which", ["us_mobilenet_v1_x0_5.onnx", 0.5, "us_mobilenet_v1_x0_5", "x0_5"])
def test_a_file_is_opened_by_its_name_its_width_or_its_networks_name(exported: Path, which: str | float) -> None:
    images = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)
    with open_network(exported, which) as network:
        assert (network.backend, network.artifact.width) == ("onnxruntime-cpu", 0.5)
        logits = network(images)
        np.testing.assert_array_equal(logits, run_onnx(exported / "us_mobilenet_v1_x0_5.onnx", images))
        mirrored = images[..., ::-1]  # not contiguous
        np.testing.assert_array_equal(network(mirrored), network(np.ascontiguousarray(mirrored)))
    network.close()
    with pytest.raises(BundleError, match="is closed"):
        network(images)


def test_an_engine_is_run_by_tensorrt(bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    board = machine(monkeypatch)
    build_engines(bundle, widths=[0.25])
    images = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)
    expected = run_onnx(bundle / "us_mobilenet_v1_x0_25.onnx", images)
    for words in ({"which": "us_mobilenet_v1_x0_25.plan"}, {"which": 0.25, "backend": "tensorrt"}):
        with open_network(bundle, **words) as network:
            assert (network.backend, network.artifact.format) == ("tensorrt", "trt")
            np.testing.assert_allclose(network(images), expected, rtol=1e-4, atol=1e-6)
    with open_network(bundle, 0.25) as network:
        assert network.backend == "onnxruntime-cpu", "an ONNX file comes first"
    (result,) = verify_bundle(bundle, "tensorrt")
    assert (result.format, result.verification.status, result.verification.backend) == ("trt", "passed", "tensorrt")
    assert board.library.leaks == []


def test_what_cannot_be_opened_is_told(bundle: Path, tmp_path: Path) -> None:
    def refused(message: str, which: str | float, *words: str, backend: str | None = None) -> None:
        with pytest.raises(BundleError, match=message) as caught:
            open_network(bundle, which, *words, backend=backend)
        assert caught.value.exit_code == 2

    refused(r"holds no 0\.3 in fp32\. It has us_mobilenet_v1_x0_25\.onnx, us_mobilenet_v1_x0_5\.onnx", 0.3)
    refused("holds no 0.5 in fp16", 0.5, "fp16")
    refused(r"did you mean 'us_mobilenet_v1_x0_5\.onnx'", "us_mobilnet_v1_x0_5.onnx")
    refused("holds no 0.5 in fp32", 0.5, backend="tensorrt")
    refused("tensorrt runs trt files. Use onnxruntime-cpu", "us_mobilenet_v1_x0_5.onnx", backend="tensorrt")
    refused("'onnxruntime-gpu': not known", 0.5, backend="onnxruntime-gpu")
    path = bundle / "us_mobilenet_v1_x0_5.onnx"
    whole = path.read_bytes()
    path.write_bytes(whole + b"!")
    refused("SHA-256", 0.5)
    path.write_bytes(whole)
    edit_manifest(bundle, lambda content: content["artifacts"][1].update(sha256=file_sha256(path), precision="bf16"))
    refused("no kernels for bf16", 0.5, "bf16")
    edit_manifest(bundle, lambda content: content["artifacts"][1].update(format="torch"))
    refused("has format 'torch', expected one of onnx", "us_mobilenet_v1_x0_5.onnx")
    with pytest.raises(BundleError, match=r"holds no manifest\.json"):
        open_network(tmp_path, 0.5)


def test_images_of_another_size_are_an_error_of_the_bundle(exported: Path) -> None:
    with open_network(exported, 0.25) as network, pytest.raises(BundleError, match="does not run it"):
        network(np.zeros((1, 3, 16, 16), np.float32))


# ------------------------------------------------------------------------------------------------------- verify_bundle


def test_files_that_are_no_longer_right_come_back_as_failed(bundle: Path) -> None:
    assert {a.verification.status for a in verify_bundle(bundle)} == {"passed"}
    with np.load(bundle / "reference.npz") as archive:
        arrays = dict(archive)
    np.savez(bundle / "reference.npz", **{**arrays, "logits_x0_5": 2 * arrays["logits_x0_5"]})
    assert [a.verification.status for a in verify_bundle(str(bundle))] == ["passed", "failed"]
    with pytest.raises(BundleError, match=r"'torch': not known.*Available: onnxruntime-cpu"):
        verify_bundle(bundle, "torch")
    with pytest.raises(BundleError, match="names no engine"):
        verify_bundle(bundle, "tensorrt")
