"""Files of every precision: what is written, what the manifest says of it, and that the checks can fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto

from slimexport.bundle import verify_bundle
from slimexport.cli import main
from slimexport.exporter import VerificationFailed, export
from slimexport.onnx_files.ranges import Range
from slimexport.request import CalibrationImages
from slimexport.target.manifest import Manifest, read_manifest
from slimexport.target.precision import Direction
from slimexport.target.proof.comparing import cosine
from slimexport.target.proof.verify import direction_verdict
from slimexport.target.reference import Probes
from slimexport.target.runners import runs_on_cpu
from slimtrain.base.errors import UserError
from slimtrain.data.noise import noise_images
from tests.support.small_checkpoint import SIZE, small_checkpoint

WEIGHTS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "images.npy"
    np.save(path, noise_images(40, SIZE, 7))
    return path


@pytest.fixture(scope="module")
def bundle(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("bundle") / "b"
    manifest = export(
        small_checkpoint(),
        precisions=["fp32", "fp16", "bf16", "int8"],
        calibration=CalibrationImages(images),
        output_dir=folder,
    )
    return folder, manifest


def test_every_precision_is_a_file_with_its_infix(bundle: tuple[Path, Manifest]) -> None:
    folder, manifest = bundle
    infixes = ["", ".fp16", ".bf16", ".int8-cpu", ".int8", ".int8-fp16"]
    expected = [f"us_resnet50_{width}{infix}.onnx" for width in ("x0_125", "x0_25") for infix in infixes]
    assert [artifact.file for artifact in manifest.artifacts] == expected
    assert sorted(path.name for path in folder.iterdir()) == sorted([*expected, "manifest.json", "reference.npz"])
    assert read_manifest(folder) == manifest


def test_files_say_their_precision_and_hold_it(bundle: tuple[Path, Manifest]) -> None:
    folder, manifest = bundle
    for artifact in manifest.artifacts:
        model = onnx.load(folder / artifact.file)
        onnx.checker.check_model(model, full_check=True)
        assert {p.key: p.value for p in model.metadata_props}["precision"] == artifact.precision
        assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
        assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
        kinds = {tensor.data_type for tensor in model.graph.initializer}
        if artifact.precision in WEIGHTS:
            assert kinds == {WEIGHTS[artifact.precision]}
        quantized = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
        assert bool(quantized) == artifact.precision.startswith("int8")
        opset = model.opset_import[0].version
        assert opset == {"bf16": 22, "int8-fp16": 19}.get(artifact.precision, 17)


def test_each_is_verified_at_its_own_tolerance(bundle: tuple[Path, Manifest]) -> None:
    for artifact in bundle[1].artifacts:
        check = artifact.verification
        assert check.status == "passed"
        if artifact.precision.startswith("int8"):
            assert check.cosine is not None and check.cosine >= 0.97 == check.least_cosine
            assert artifact.int8 is not None
            tried = {method: result.logit_distance for method, result in artifact.int8.tried.items() if result}
            assert artifact.int8.method == min(tried, key=tried.__getitem__)
            assert (artifact.int8.images, artifact.int8.held_back) == (32, 8)
        else:
            assert check.tolerance == {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2}[artifact.precision]
            assert check.max_rel_error is not None and 0 < check.max_rel_error <= check.tolerance
        twin = not runs_on_cpu(artifact.precision)
        assert twin or artifact.precision != "bf16"
        assert check.backend == ("onnxruntime-cpu (cast twin)" if twin else "onnxruntime-cpu")
        assert (artifact.rounding is not None) == (artifact.precision in WEIGHTS)


def test_what_was_written_is_what_plain_onnxruntime_runs(bundle: tuple[Path, Manifest]) -> None:
    folder, manifest = bundle
    with np.load(folder / "reference.npz") as reference:
        for artifact in manifest.artifacts:
            if not runs_on_cpu(artifact.precision):
                continue
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            session = onnxruntime.InferenceSession(folder / artifact.file, options, providers=["CPUExecutionProvider"])
            (logits,) = session.run(None, {"input": reference["images"]})
            expected = reference["logits_" + artifact.name.removeprefix("us_resnet50_")]
            error = np.abs(logits - expected).max() / np.abs(expected).max()
            assert error <= {"fp32": 1e-4, "fp16": 1e-2}.get(artifact.precision, 0.3)


def test_a_bundle_verifies_itself_again(bundle: tuple[Path, Manifest]) -> None:
    folder, manifest = bundle
    statuses = {artifact.file: artifact.verification.status for artifact in verify_bundle(folder)}
    skipped = {artifact.file for artifact in manifest.artifacts if not runs_on_cpu(artifact.precision)}
    assert statuses == {a.file: "skipped" if a.file in skipped else "passed" for a in manifest.artifacts}


def test_the_table_names_precisions_and_cosines(images: Path, tmp_path: Path) -> None:
    from slimtrain.checkpoints.own_layout import own_content
    from slimtrain.checkpoints.writing import save

    checkpoint = small_checkpoint()
    save(own_content(checkpoint.network, SIZE, checkpoint.mean, checkpoint.std), tmp_path / "small.pt")
    options = ["--precision", "fp32,int8", "--widths", "0.125", "--calibration-data", str(images)]
    done = CliRunner().invoke(main, ["--ckpt", str(tmp_path / "small.pt"), *options, "--output-dir", str(tmp_path / "b")])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split()[:2] == ["width", "precision"]
    assert [line.split()[1] for line in lines[1:5]] == ["fp32", "int8-cpu", "int8", "int8-fp16"]
    assert all("cosine 0.9" in line for line in lines[2:5])
    assert lines[5:8] == [
        "int8-cpu: for onnxruntime on CPUs and OpenVINO",
        "int8: for TensorRT 8.6",
        "int8-fp16: for TensorRT 10 and later",
    ]


@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
def test_int8_files_of_one_target_alone_are_what_they_are_beside_the_others(
    target: str, bundle: tuple[Path, Manifest], images: Path, tmp_path: Path
) -> None:
    calibration = CalibrationImages(images, int8_target=target)
    alone = export(small_checkpoint(), precisions=["int8"], output_dir=tmp_path / "b", calibration=calibration)
    names = {"cpu": {"int8-cpu"}, "tensorrt": {"int8", "int8-fp16"}}[target]
    assert {artifact.precision for artifact in alone.artifacts} == names
    assert all(artifact.verification.passed for artifact in alone.artifacts)
    beside = {artifact.file: artifact.size_bytes for artifact in bundle[1].artifacts}
    assert {artifact.file: artifact.size_bytes for artifact in alone.artifacts}.items() <= beside.items()


def test_engines_are_not_asked_for_of_int8_files_for_cpus(images: Path, tmp_path: Path) -> None:
    options = ["--ckpt", "random:us_mobilenet_v1", "--format", "onnx,trt", "--precision", "fp16,int8", "--int8-target", "cpu"]
    folder = tmp_path / "b"
    done = CliRunner().invoke(main, [*options, "--calibration-data", str(images), "--output-dir", str(folder)])
    assert done.exit_code == 2 and not folder.exists()
    assert "--int8-target cpu writes int8 files that TensorRT does not build engines from" in done.output


def test_what_int8_needs_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="int8 needs images"):
        export(small_checkpoint(), precisions=["int8"], output_dir=tmp_path / "b")
    with pytest.raises(UserError, match="expected auto, max or percentile"):
        CalibrationImages("digits", int8_method="entropy")
    assert not (tmp_path / "b").exists()


def test_a_weight_that_fp16_cannot_hold_is_refused(tmp_path: Path) -> None:
    checkpoint = small_checkpoint()
    with torch.no_grad():
        checkpoint.network.get_parameter("classifier.0.weight")[0, 0] = 1e6
    with pytest.raises(UserError, match=r"fp16: weights of classifier\.0\.weight are larger.*bf16"):
        export(checkpoint, widths=[0.25], precisions=["fp16"], output_dir=tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_weights_that_are_lost_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = small_checkpoint()
    with torch.no_grad():
        checkpoint.network.get_parameter("classifier.0.weight")[0, :5] = 1e-9
    with caplog.at_level("WARNING"):
        manifest = export(checkpoint, widths=[0.125], precisions=["fp16", "bf16"], output_dir=tmp_path / "b")
    assert [a.rounding.underflow_to_zero for a in manifest.artifacts if a.rounding] == [5, 0]
    (line,) = [record.getMessage() for record in caplog.records if "become 0" in record.getMessage()]
    assert line.startswith("us_resnet50_x0_125: 5 of") and line.endswith("in fp16")


def test_weights_that_several_files_lose_are_told_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = small_checkpoint()
    with torch.no_grad():
        checkpoint.network.get_parameter("classifier.0.weight")[0] = 1e-9
    widths = [plan.width for plan in checkpoint.spec.plans if plan.width]
    with caplog.at_level("WARNING"):
        manifest = export(checkpoint, widths=widths, precisions=["fp16"], image_size=32, output_dir=tmp_path / "b")
    (line,) = [record.getMessage() for record in caplog.records if "become 0" in record.getMessage()]
    most = max(artifact.rounding.underflow_to_zero for artifact in manifest.artifacts if artifact.rounding)
    assert f": {most} of" in line and (len(widths) == 1 or line.endswith(f"in fp16 (the most of {len(widths)} files)"))


def test_int8_that_points_elsewhere_is_not_kept(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # everything saturates
    monkeypatch.setattr(Range, "percentile", lambda measured, percent: measured.largest / 50)
    monkeypatch.setattr(Range, "interval", lambda measured, percent: (measured.low / 50, measured.high / 50))
    with pytest.raises(VerificationFailed, match="point elsewhere"):
        export(
            small_checkpoint(),
            widths=[0.25],
            precisions=["fp32", "int8"],
            calibration=CalibrationImages(images, int8_method="percentile"),
            output_dir=tmp_path / "b",
        )
    assert not list((tmp_path / "b").glob("*int8*"))


def test_the_cosine_by_hand() -> None:
    a, b = np.array([[1.0, 2, 3], [0, 1, 0]]), np.array([[2.0, 4, 6], [0, 2, 0]])
    assert cosine(a, b) == pytest.approx(1)
    assert cosine(a + 5, b) == pytest.approx(1)  # what all classes share decides nothing
    assert cosine(-a, b) == pytest.approx(-1)
    assert np.isnan(cosine(np.full_like(a, np.nan), b))
    assert np.isnan(cosine(a[:1], b))


def test_a_nan_fails_an_int8_file() -> None:
    class Broken:
        backend = "broken"

        def __call__(self, images: Any) -> Any:
            return np.full((len(images), 3), np.nan)

    verdict = direction_verdict(
        Broken(), Probes.of(np.zeros((2, 3, 8, 8), np.float32), np.array([[1.0, 2, 3], [3, 2, 1]])), Direction()
    )
    assert (verdict.status, verdict.cosine, verdict.max_rel_error) == ("failed", None, None)
