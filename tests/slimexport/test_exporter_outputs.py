"""Bundles of networks that are no classifiers of images: several outputs, maps of classes, signals, images of any channels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import slimtrain
from slimexport import CalibrationImages, export, open_network, verify_bundle
from slimexport.exporter import VerificationFailed
from slimexport.job import Job
from slimexport.predict import predict
from slimexport.request import Proof
from slimexport.target.errors import BundleError
from slimexport.target.manifest import Manifest, read_manifest
from slimexport.target.reference import Expected
from slimexport.target.serving.triton.repository import write_repository
from slimtrain.base.errors import UserError
from slimtrain.models.channels import ChannelPlan
from slimtrain.tracing.outputs import tensors_of
from tests.support.user_outputs import Gives, Segmentation, SignalClassifier, seeded

SIZE = (64, 66)  # more places than a reference keeps


def exported(module: nn.Module, shape: tuple[int, ...], folder: Path, **options: Any) -> Manifest:
    """The bundle `folder/bundle` of a module at 0.5 and 1.0, its checkpoint `folder/mine.pt`."""
    network = slimtrain.make_slimmable(seeded(module), torch.zeros(2, *shape), name="mine")
    batch = torch.randn(8, *shape, generator=torch.Generator().manual_seed(0))
    slimtrain.calibrate(network, [network.plan(0.5), network.plan(1.0)], [batch])
    slimtrain.save(network, folder / "mine.pt")
    return export(folder / "mine.pt", widths=[0.5, 1.0], output_dir=folder / "bundle", **options)


def equals_the_checkpoint(folder: Path, shape: tuple[int, ...]) -> None:
    """Every file of the bundle gives what the slimmable network gives, by name."""
    network = slimtrain.open_checkpoint(folder / "mine.pt").network
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    manifest = read_manifest(folder / "bundle")
    for width in (0.5, 1.0):
        with network.at(network.plan(width)), torch.no_grad():
            expected = [tensor.numpy() for tensor in tensors_of(network(x))]
        with open_network(folder / "bundle", width) as opened:
            given = opened(x.numpy())
        arrays = list(given.values()) if isinstance(given, dict) else [given]
        assert not isinstance(given, dict) or list(given) == [result.name for result in manifest.results]
        for array, wanted, result in zip(arrays, expected, manifest.results, strict=True):
            assert array.shape == wanted.shape and (3, *result.own_shape) == array.shape and str(array.dtype) == result.dtype
            assert np.abs(array.astype(float) - wanted).max() < 1e-4 * np.abs(wanted).max()


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("segmentation")
    np.save(folder / "images.npy", np.random.default_rng(0).normal(size=(5, 3, *SIZE)).astype(np.float32))
    exported(
        Segmentation(),
        (3, *SIZE),
        folder,
        precisions=["fp32", "fp16", "int8"],
        calibration=CalibrationImages(folder / "images.npy"),
    )
    return folder


def test_a_segmentation_network_is_written_and_proven(segmented: Path) -> None:
    manifest = read_manifest(segmented / "bundle")
    assert [a.verification.status for a in manifest.artifacts] == ["passed"] * 10
    content = json.loads((segmented / "bundle" / "manifest.json").read_text())
    assert content["output"] == {"name": "out", "classes": 5}
    assert content["outputs"] == [{"name": n, "shape": ["batch", 5, *SIZE], "dtype": "float32"} for n in ("out", "aux")]
    assert all(a.verification.output in ("out", "aux") for a in manifest.artifacts)
    agreements = [a.verification.top1_agreement for a in manifest.artifacts]
    assert agreements[0] == 1 and all(agreement is not None and agreement > 0.95 for agreement in agreements)
    model = onnx.load(segmented / "bundle" / manifest.artifacts[0].file)
    assert [output.name for output in model.graph.output] == ["out", "aux"]
    assert all(output.type.tensor_type.shape.dim[0].dim_param == "batch" for output in model.graph.output)
    equals_the_checkpoint(segmented, (3, *SIZE))


def test_openvino_proves_every_output_of_every_precision(segmented: Path) -> None:
    pytest.importorskip("openvino")
    checks = [artifact.verification for artifact in verify_bundle(segmented / "bundle", "openvino")]
    assert [(check.status, check.backend) for check in checks] == [("passed", "openvino")] * 10
    assert {check.output for check in checks} <= {"out", "aux"}


def test_a_reference_keeps_some_places_of_large_maps_and_still_bites(segmented: Path, tmp_path: Path) -> None:
    bundle = segmented / "bundle"
    with np.load(bundle / "reference.npz") as archive:
        reference = {key: archive[key] for key in archive.files}
    assert reference["logits_x0_5.aux"].shape == (2, 5, 4096, 1) and reference["places.aux"].shape == (4096,)
    network = slimtrain.open_checkpoint(segmented / "mine.pt").network.double()
    with network.at(network.plan(0.5)), torch.no_grad():
        whole = network(torch.from_numpy(reference["images"]).double())["aux"].numpy()
    picked = whole.reshape(2, 5, -1)[:, :, reference["places.aux"]]
    np.testing.assert_allclose(reference["logits_x0_5.aux"][..., 0], picked, rtol=1e-9)
    assert {a.verification.status for a in verify_bundle(bundle)} <= {"passed", "skipped"}
    for name in [path.name for path in bundle.iterdir()]:
        (tmp_path / name).write_bytes((bundle / name).read_bytes())
    changed = dict(reference)
    changed["logits_x0_5.aux"] = reference["logits_x0_5.aux"] + 0.5
    np.savez(tmp_path / "reference.npz", **changed)
    checks = {a.file: a.verification for a in verify_bundle(tmp_path)}
    wrong = checks["us_mine_x0_5.onnx"]
    assert (wrong.status, wrong.output) == ("failed", "aux") and checks["us_mine_x1_0.onnx"].status == "passed"


def test_what_needs_classes_says_so(segmented: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"out \['batch', 5, 64, 66\].*open_network"):
        predict(segmented / "bundle", ["a.png"])
    with pytest.raises(UserError, match="gives out Nx5x64x66, aux Nx5x64x66, expected one output of N x classes"):
        export(segmented / "mine.pt", widths=[0.5], output_dir=tmp_path / "b", proof=Proof(accuracy_data="digits"))
    assert not (tmp_path / "b").exists()


def test_a_model_repository_names_every_output(segmented: Path, tmp_path: Path) -> None:
    bundle = segmented / "bundle"
    write_repository(bundle, read_manifest(bundle), tmp_path / "models")
    config = (tmp_path / "models" / "us_mine_x0_5" / "config.pbtxt").read_text()
    for name in ("out", "aux"):
        assert f'    name: "{name}"\n    data_type: TYPE_FP32\n    dims: [ 5, 64, 66 ]\n' in config
    assert "  },\n  {\n" in config and config.count("{") == config.count("}")


def test_a_wrong_output_of_several_fails_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Job.reference

    def wrong(self: Job, plan: ChannelPlan) -> tuple[Expected, ...]:
        first, second = right(self, plan)
        return first, Expected(second.name, second.values[:, ::-1])

    monkeypatch.setattr(Job, "reference", wrong)
    with pytest.raises(VerificationFailed, match="of the scale of output aux, expected at most"):
        exported(Segmentation(), (3, 8, 12), tmp_path)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(("channels", "size"), [(1, (8, 12)), (4, (12, 8))])
def test_images_of_other_channels_and_sides(channels: int, size: tuple[int, int], tmp_path: Path) -> None:
    manifest = exported(Gives(lambda y: y.mean((2, 3)), channels), (channels, *size), tmp_path)
    assert (manifest.input.channels, manifest.input.image_size, manifest.outputs) == (channels, size, ())
    assert [a.verification.status for a in manifest.artifacts] == ["passed", "passed"]
    equals_the_checkpoint(tmp_path, (channels, *size))


def test_a_classifier_of_signals(tmp_path: Path) -> None:
    shape = (12, 50)
    manifest = exported(SignalClassifier(), shape, tmp_path)
    assert [a.verification.status for a in manifest.artifacts] == ["passed", "passed"]
    assert (manifest.input.shape, manifest.output.classes, manifest.outputs) == (shape, 6, ())
    assert [a.verification.status for a in verify_bundle(tmp_path / "bundle")] == ["passed", "passed"]
    equals_the_checkpoint(tmp_path, shape)
    own = np.random.default_rng(0).normal(size=(6, *shape)).astype(np.float32)
    np.save(tmp_path / "own.npy", own)
    more = export(
        tmp_path / "mine.pt",
        widths=[0.7],
        calibration=CalibrationImages(tmp_path / "own.npy"),
        proof=Proof(images=tmp_path / "own.npy"),
        output_dir=tmp_path / "more",
    )
    assert more.artifacts[0].verification.passed
    with np.load(tmp_path / "more" / "reference.npz") as reference:
        assert {tuple(image) for image in reference["images"].reshape(len(reference["images"]), -1)} <= {
            tuple(image) for image in own.reshape(6, -1)
        }
    with pytest.raises(UserError, match=r"digits: holds images, the network takes inputs \[12, 50\].*\.npy"):
        export(tmp_path / "mine.pt", widths=[0.7], calibration=CalibrationImages("digits"), output_dir=tmp_path / "no")
    with pytest.raises(BundleError, match=r"take \[12, 50\], --predict reads photographs"):
        predict(tmp_path / "bundle", ["a.png"])


def test_rows_of_numbers_masks_and_numbers_of_an_image(tmp_path: Path) -> None:
    manifest = exported(nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 4)), (20,), tmp_path)
    assert manifest.input.shape == (20,) and all(a.verification.passed for a in manifest.artifacts)
    (tmp_path / "masks").mkdir()
    manifest = exported(Gives(lambda y: {"mask": y > 0, "mean": y.mean((1, 2, 3))}), (3, 8, 8), tmp_path / "masks")
    assert [(r.name, r.shape, r.dtype) for r in manifest.outputs] == [
        ("mask", ("batch", 4, 8, 8), "bool"),
        ("mean", ("batch",), "float32"),
    ]
    assert all(a.verification.status == "passed" for a in manifest.artifacts)
    equals_the_checkpoint(tmp_path / "masks", (3, 8, 8))


@pytest.mark.parametrize(
    "outputs", [lambda y: (y, torch.ones(5, 4) + y.mean()), lambda y: y.permute(1, 0, 2, 3)], ids=["of all", "transposed"]
)
def test_outputs_that_count_no_images_first_are_refused(outputs: Callable[[Tensor], Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected outputs whose first size counts images"):
        exported(Gives(outputs), (3, 8, 8), tmp_path)
    assert not (tmp_path / "bundle").exists()


def test_a_classifier_s_manifest_and_reference_are_as_before(tmp_path: Path) -> None:
    exported(Gives(lambda y: y.mean((2, 3))), (3, 8, 8), tmp_path)
    content = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert content["output"] == {"name": "output", "classes": 4} and "outputs" not in content
    assert "shape" not in content["input"] and "output" not in content["artifacts"][0]["verification"]
    with np.load(tmp_path / "bundle" / "reference.npz") as reference:
        assert sorted(reference.files) == ["images", "logits_x0_5", "logits_x1_0", "more_images", "more_x0_5", "more_x1_0"]
        assert reference["logits_x0_5"].dtype == np.float64
