"""A bundle's engines: built, verified on the device, named, described; nothing unproven or half-written at a final name."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimexport.report import table
from slimexport.target.cuda.runtime import CudaError
from slimexport.target.errors import BundleError, MissingBackend
from slimexport.target.manifest import Artifact, Engine, read_manifest
from slimexport.target.tensorrt import engines
from slimexport.target.tensorrt.build_settings import BatchRange, BuildSettings
from slimexport.target.tensorrt.engine import TensorRTRunner
from slimexport.target.tensorrt.engines import EnginesFailed, folded
from slimexport.target.tensorrt.plan_header import PlanMismatch
from slimexport.target.tensorrt.verification import verify_engines
from slimexport.target.verification import Verification
from slimtrain.base.errors import ResourceError
from slimtrain.base.files import file_sha256
from tests.support.bundle_helpers import edit_manifest, masked, stored_text
from tests.support.cuda_fake import FakeCudart
from tests.support.trt_fake import VERSIONS, logits_of, network
from tests.support.trt_helpers import CLASSES, SIZE, Machine, build, engines_of, machine, names, write_bundle

ALL = ("fp32", "fp16", "int8", "int8-fp16")


@pytest.fixture(params=VERSIONS)
def board(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return machine(monkeypatch, request.param)


@pytest.fixture
def new(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return machine(monkeypatch, VERSIONS[-1])


def off_by(share: float, only_batch: int | None = None) -> Callable[[Any, int], Any]:
    """Every logit larger by a share of the scale."""
    return lambda logits, batch: logits + share * np.abs(logits).max() * (only_batch in (None, batch))


def engine_of(artifact: Artifact) -> Engine:
    assert artifact.engine is not None
    return artifact.engine


# ------------------------------------------------------------------------------------------------------------- success


def test_engines_are_built_verified_named_and_described(board: Machine, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", ALL)
    before = names(bundle)
    seen: list[Any] = []
    manifest = build(
        bundle,
        precisions=["fp32", "tf32", "fp16", "int8"],
        started=seen.append,
        building=seen.append,
        finished=lambda entry: seen.append(entry.verification.status),
    )
    infixes = ("", ".tf32", ".fp16", ".int8")
    files_ = [f"net_{plan}{infix}.plan" for plan in ("x0_5", "x1_0") for infix in infixes]
    assert seen == [8, *(part for file in files_ for part in (file, "passed"))]
    assert names(bundle) == before | set(files_)
    assert manifest == read_manifest(bundle)
    engines = engines_of(bundle)
    assert list(engines) == files_
    old = board.trt.__version__ == "8.6.0"
    sources = {"": "", ".tf32": "", ".fp16": "" if old else ".fp16", ".int8": ".int8" if old else ".int8-fp16"}
    for infix, source in sources.items():
        artifact = engines[f"net_x0_5{infix}.plan"]
        path = bundle / artifact.file
        assert artifact.sha256 == file_sha256(path) and artifact.size_bytes == path.stat().st_size
        assert (artifact.name, artifact.width, artifact.macs) == ("net_x0_5", 0.5, 1000)
        assert artifact.accuracy is None
        engine = artifact.engine
        assert engine is not None
        assert engine.onnx == f"net_x0_5{source}.onnx" and engine.onnx_sha256 == file_sha256(bundle / engine.onnx)
        assert engine.tensorrt == board.trt.__version__
        assert (engine.cuda, engine.gpu, engine.compute_capability) == ("12.4", "NVIDIA Test GPU", "9.0")
        assert (engine.optimization_level, engine.batch) == (3, (1, 4, 6))
        assert engine.plan_bytes == path.stat().st_size and engine.device_memory_bytes == 12345
        assert engine.build_seconds >= 0
        assert engine.weighted_layers_by_precision == {(infix or ".fp32")[1:].replace("tf32", "fp32"): 2}
        verification = artifact.verification
        assert (verification.backend, verification.batches, verification.probes) == ("tensorrt", (1, 4, 6), 3)
        assert [figures.batch for figures in verification.by_batch or ()] == [1, 4, 6]
        assert verification.top1_agreement == 1.0
    tolerances = [engines[f"net_x1_0{infix}.plan"].verification.tolerance for infix in infixes]
    assert tolerances == [1e-4, 5e-3, 1e-2, None]
    assert engines["net_x0_5.int8.plan"].verification.least_cosine == pytest.approx(0.989)
    assert board.library.leaks == []
    assert "passed" in table(manifest.artifacts)


def test_the_manifests_text_is_what_earlier_versions_wrote(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For the same engines: some proven by difference, one by cosine, some rejected, one that could not be built."""
    board = machine(monkeypatch, "10.3.0")
    bundle = write_bundle(tmp_path / "b", ALL, (0.5, None))
    board.behaviour.says = [("WARNING", "a warning")]
    board.behaviour.defect = off_by(2e-3)
    with pytest.raises(EnginesFailed):
        build(bundle, precisions=["fp32", "fp16"])
    board.behaviour.defect = off_by(0)
    build(bundle, precisions=["int8"], widths=[0.5])
    board.behaviour.parser_errors = ["no importer"]
    with pytest.raises(EnginesFailed):
        build(bundle, precisions=["tf32"], widths=[0.5])
    texts = (bundle / "manifest.json").read_text(), stored_text("engines")
    written, stored = (re.sub(r'"(size_bytes)": \d+', r'"\1": *', masked(text)) for text in texts)  # files had no outline then
    written, keys = re.subn(r' *"(difference_cosine|magnitude|shift)": .*\n', "", written)  # which came later
    assert written == stored and keys == 3


def test_widths_and_names_choose_networks_and_precisions_are_made_once(new: Machine, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", widths=(0.25, 0.5, 1.0, None))
    build(bundle, widths=[0.5, "net_p"], precisions=["fp32", "fp32"])
    assert list(engines_of(bundle)) == ["net_x0_5.plan", "net_p.plan"]


def test_building_again_replaces_the_entry_and_keeps_the_others(new: Machine, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", ALL)
    build(bundle, precisions=["fp32", "fp16"])
    before = engines_of(bundle)
    build(bundle, widths=[0.5], precisions=["fp16"], settings=BuildSettings(BatchRange(1, 1, 1), optimization_level=5))
    after = engines_of(bundle)
    assert list(after) == list(before)
    assert engine_of(after["net_x0_5.fp16.plan"]).optimization_level == 5
    assert after["net_x1_0.fp16.plan"] == before["net_x1_0.fp16.plan"]
    assert after["net_x0_5.fp16.plan"].sha256 == file_sha256(bundle / "net_x0_5.fp16.plan")


def test_the_runner_gives_logits_of_any_batch(board: Machine, tmp_path: Path) -> None:
    """Also more images than the engine's largest batch, and fewer than its least."""
    bundle = write_bundle(tmp_path / "b", widths=(0.5,))
    build(bundle, settings=BuildSettings(BatchRange(2, 4, 6)))
    images = np.random.default_rng(1).normal(size=(15, 3, SIZE, SIZE)).astype(np.float32)
    with TensorRTRunner(bundle / "net_x0_5.plan", engines_of(bundle)["net_x0_5.plan"]) as runner:
        assert runner.backend == "tensorrt"
        for count in (1, 2, 5, 6, 7, 15):
            logits = runner(images[:count])
            assert logits.dtype == np.float32
            np.testing.assert_allclose(logits, logits_of(images[:count], CLASSES), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(runner(images[::2]), runner(np.ascontiguousarray(images[::2])))
        for parts in ((1, 3), (1,), (2, 4), (6, 1), (3, 5, 7)):  # as requests come, each with its images
            cuts = np.cumsum((0, *parts)).tolist()
            together = runner.together([images[start:stop] for start, stop in itertools.pairwise(cuts)])
            np.testing.assert_allclose(together, logits_of(images[: cuts[-1]], CLASSES), rtol=1e-5, atol=1e-6)
        runner(images[6:12])
        runner(images[:1])
        np.testing.assert_array_equal(runner.staging.array[:2], images[[0, 0]], "not what a run before left there")
        kept = runner(images[:4])
        before = kept.copy()
        runner(images[4:8])
        np.testing.assert_array_equal(kept, before, err_msg="an answer is not written over by the next run")
        with pytest.raises(BundleError, match=r"net_x0_5\.plan: takes images \[N, 3, 4, 4\], got \[1, 3, 8, 8\]"):
            runner(np.zeros((1, 3, 8, 8), np.float32))
        with pytest.raises(BundleError, match=r"takes images \[N, 3, 4, 4\], got \[0, 3, 4, 4\]"):
            runner.together([images[:1], images[:0]])
        with pytest.raises(BundleError, match="does not take 7 images at once, expected 2 to 6"):
            runner.set_batch(7)
    runner.close()
    assert board.library.leaks == []


# ------------------------------------------------------------------------------------------------------------- failure


@pytest.mark.parametrize(
    ("precision", "share", "passes"),
    [
        ("fp32", 0.5e-4, True),
        ("fp32", 2e-4, False),
        ("tf32", 4e-3, True),
        ("tf32", 6e-3, False),
        ("fp16", 9e-3, True),
        ("fp16", 1.1e-2, False),
        ("bf16", 4e-2, True),
        ("bf16", 6e-2, False),
    ],
)
def test_tolerances_are_those_of_the_precision(
    new: Machine, tmp_path: Path, precision: str, share: float, passes: bool
) -> None:
    bundle = write_bundle(tmp_path / "b", ("fp32", "fp16", "bf16"), (0.5,))
    new.behaviour.defect = off_by(share)
    if passes:
        build(bundle, precisions=[precision])
    else:
        with pytest.raises(EnginesFailed, match=r"net_x0_5.*plan: failed, a difference of .* of the logits' scale, expected"):
            build(bundle, precisions=[precision])
    assert bool(engines_of(bundle)) is passes


@pytest.mark.parametrize("batch", [1, 4, 6])
def test_a_defect_at_one_batch_only_is_found_and_no_plan_is_left(board: Machine, tmp_path: Path, batch: int) -> None:
    bundle = write_bundle(tmp_path / "b", widths=(0.5,))
    before = names(bundle)
    board.behaviour.defect = off_by(0.1, only_batch=batch)
    with pytest.raises(EnginesFailed) as caught:
        build(bundle)
    assert caught.value.exit_code == 1
    assert str(caught.value).endswith("expected at most 1e-04. The engine was not kept.")
    assert names(bundle) == before
    manifest = read_manifest(bundle)
    assert manifest == caught.value.manifest
    assert engines_of(bundle) == {}
    (rejected,) = manifest.rejected
    assert (rejected.file, rejected.format, rejected.verification.status) == (None, "trt", "failed")
    assert board.library.leaks == []


def test_one_failure_does_not_stop_the_others_and_a_later_success_clears_it(new: Machine, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", ALL)
    new.behaviour.defect = off_by(5e-3)
    seen: list[str] = []
    with pytest.raises(EnginesFailed):
        build(bundle, precisions=["fp32", "fp16"], finished=lambda entry: seen.append(entry.verification.status))
    assert seen == ["failed", "passed", "failed", "passed"]
    assert list(engines_of(bundle)) == ["net_x0_5.fp16.plan", "net_x1_0.fp16.plan"]
    assert len(read_manifest(bundle).rejected) == 2
    new.behaviour.defect = off_by(0)
    assert build(bundle, precisions=["fp32"]).rejected == ()


def test_an_engine_that_was_right_stays_when_a_new_one_is_not(new: Machine, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", widths=(0.5,))
    build(bundle)
    plan, entry = (bundle / "net_x0_5.plan").read_bytes(), engines_of(bundle)
    new.behaviour.defect = off_by(1)
    with pytest.raises(EnginesFailed, match=r"The earlier engine was left as it was\."):
        build(bundle, settings=BuildSettings(optimization_level=0))
    assert (bundle / "net_x0_5.plan").read_bytes() == plan
    assert engines_of(bundle) == entry


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_finite_fail(new: Machine, tmp_path: Path, value: float) -> None:
    bundle = write_bundle(tmp_path / "b", ALL, (0.5,))
    new.behaviour.defect = lambda logits, batch: np.where(np.arange(CLASSES) == 1, value, logits)
    with pytest.raises(EnginesFailed) as caught:
        build(bundle, precisions=["fp32", "int8"])
    (line,) = str(caught.value).splitlines()
    assert "not finite" in line and line.endswith("The same for 1 other: net_x0_5.int8.plan.")
    checks = [rejected.verification for rejected in caught.value.manifest.rejected]
    assert [check.max_rel_error for check in checks] == [None, None]
    table(caught.value.manifest.rejected)


def test_a_build_that_fails_is_rejected_with_tensorrts_words(new: Machine, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", widths=(0.5,))
    new.behaviour.parser_errors = ["no importer"]
    with pytest.raises(EnginesFailed, match=r"net_x0_5\.onnx: TensorRT 11.* does not read it \(Conv stem: no importer\)"):
        build(bundle)
    assert read_manifest(bundle).rejected[0].verification == Verification(
        status="failed", reason="net_x0_5.onnx: TensorRT 11.4.0.106 does not read it (Conv stem: no importer)."
    )


def test_probes_that_all_look_alike_prove_nothing(new: Machine, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", widths=(0.5,))
    images = np.ones((2, 3, SIZE, SIZE), np.float32)
    np.savez(bundle / "reference.npz", images=images, logits_x0_5=logits_of(images, CLASSES))
    with pytest.raises(EnginesFailed, match="unverifiable, the probe images' logits differ by 0"):
        build(bundle)


# ---------------------------------------------------------------------------------------------------------- precision


def weights(kind: str) -> dict[str, Any]:
    return {"LayerType": "CaskConvolution", "Weights": {"Type": kind, "Count": 1}}


def test_an_engine_that_does_not_use_the_precision_is_not_named_as_if_it_did(new: Machine, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", ALL, (0.5,))
    new.behaviour.layers = [weights("Float"), weights("Float")]
    with pytest.raises(EnginesFailed, match=r"net_x0_5\.fp16\.plan: no layer computes in fp16 \(2 fp32\)"):
        build(bundle, precisions=["fp32", "fp16"])
    assert list(engines_of(bundle)) == ["net_x0_5.plan"]
    assert not (bundle / "net_x0_5.fp16.plan").exists()


@pytest.mark.parametrize(
    ("layers", "verdict", "notice"),
    [
        ([weights("Half")] + [weights("Float")] * 2, "partly", r"fewer than half .* compute in fp16 (1 fp16, 2 fp32)"),
        (["a", "b"], "unknown", "does not tell whether fp16 is used (layers: 2 unknown)"),
        ([], "unknown", "(layers: none told)"),
    ],
)
def test_doubts_about_the_precision_are_told_and_recorded(
    new: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture, layers: list[Any], verdict: str, notice: str
) -> None:
    bundle = write_bundle(tmp_path / "b", ALL, (0.5,))
    new.behaviour.layers = layers
    build(bundle, precisions=["fp16"])
    assert engine_of(engines_of(bundle)["net_x0_5.fp16.plan"]).precision_used == verdict
    assert notice.rsplit(" .* ", maxsplit=1)[-1] in caplog.text


# --------------------------------------------------------------------------------------------------------- interruption


def test_ctrl_c_during_a_build_keeps_what_was_done_and_nothing_else(new: Machine, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b")
    before = names(bundle)
    builds: list[int] = []

    def steps(step: Callable[[], bool]) -> bool:
        builds.append(1)
        if len(builds) == 2:
            raise KeyboardInterrupt
        return step()

    new.behaviour.build_steps = steps
    with pytest.raises(KeyboardInterrupt):
        build(bundle)
    assert names(bundle) == before | {"net_x0_5.plan"}
    assert list(engines_of(bundle)) == ["net_x0_5.plan"]
    assert verify_engines(bundle, read_manifest(bundle))[0][1].status == "passed"


def test_ctrl_c_during_verification_leaves_nothing(new: Machine, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b")
    before = names(bundle)

    def interrupted(logits: Any, batch: int) -> Any:
        raise KeyboardInterrupt

    new.behaviour.defect = interrupted
    with pytest.raises(KeyboardInterrupt):
        build(bundle)
    assert names(bundle) == before
    assert engines_of(bundle) == {}
    assert new.library.leaks == []


@pytest.mark.parametrize("when", [1, 2])
def test_ctrl_c_between_the_names_leaves_plan_and_manifest_in_step(
    new: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    """The interruption comes right after the first, or the second file got its name."""
    bundle = write_bundle(tmp_path / "b", widths=(0.5,))
    before = names(bundle)
    replace, calls = os.replace, []

    def interrupted(source: Path, target: Path) -> None:
        replace(source, target)
        if "b" in Path(target).parent.name:
            calls.append(target)
            if len(calls) == when:
                raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(bundle)
    monkeypatch.undo()
    assert names(bundle) == before | {"net_x0_5.plan"}
    assert engines_of(bundle)["net_x0_5.plan"].sha256 == file_sha256(bundle / "net_x0_5.plan")


def test_a_full_disk_leaves_the_bundle_as_it_was(new: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_bundle(tmp_path / "b", widths=(0.5,))
    before = names(bundle)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match=r"net_x0_5\.plan: no space left on its disk") as caught:
        build(bundle)
    assert caught.value.exit_code == 3
    assert names(bundle) == before


# ------------------------------------------------------------------------------------------------- what a machine lacks


@pytest.mark.parametrize(
    ("version", "precision", "has", "lacks", "options"),
    [
        ("8.6.0", "int8", ("fp32", "int8-fp16"), "int8", "fp32,int8 --calibration-data FOLDER"),
        ("10.3.0", "int8", ("fp32", "int8"), "int8-fp16", "fp32,int8 --calibration-data FOLDER"),
        ("11.4.0", "fp16", ("fp32",), "fp16", "fp32,fp16"),
        ("8.6.0", "fp16", ("fp16",), "fp32", "fp32,fp16"),
        ("8.6.0", "tf32", ("fp16",), "fp32", "fp32,fp16"),
    ],
)
def test_a_bundle_that_lacks_the_file_is_told_with_the_command_that_adds_it(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    version: str,
    precision: str,
    has: tuple[str, ...],
    lacks: str,
    options: str,
) -> None:
    board = machine(monkeypatch, version)
    bundle = write_bundle(tmp_path / "b", has)
    with pytest.raises(BundleError) as caught:
        build(bundle, precisions=[precision])
    assert str(caught.value) == (
        f"{bundle}: lacks the {lacks} ONNX file of net_x0_5, net_x1_0, which TensorRT {board.trt.__version__} needs for "
        f"{precision} engines. Where the checkpoint is: slimexport --ckpt net.pt --widths 0.5,1.0 --precision {options} "
        f"--image-size {SIZE} --output-dir {bundle} --overwrite"
    )
    assert caught.value.exit_code == 2
    assert board.behaviour.networks == []


def test_int8_engines_are_not_built_from_files_for_cpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    board = machine(monkeypatch)
    bundle = write_bundle(tmp_path / "b", ("fp32", "int8-cpu"))
    words = r"lacks the int8-fp16 ONNX file .* int8 engines \(its int8-cpu files are for CPUs\)\."
    with pytest.raises(BundleError, match=words):
        build(bundle, precisions=["int8"])
    assert board.behaviour.networks == []


def test_an_unknown_width_is_told_with_those_there(new: Machine, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", widths=(0.5, None))
    with pytest.raises(BundleError, match=r"holds no 0\.7, 1\.0\. Choose from 0\.5, net_p"):
        build(bundle, widths=[0.5, 0.7, 1.0])


def test_bf16_on_tensorrt_8_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, "8.6.0")
    with pytest.raises(MissingBackend, match="bf16") as caught:
        build(write_bundle(tmp_path / "b", ("fp32", "bf16")), precisions=["bf16"])
    assert caught.value.exit_code == 3


def test_without_tensorrt_the_onnx_files_are_said_to_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(after: str, library: Any) -> Any:
        raise MissingBackend(f"TensorRT is not installed. {after}")

    monkeypatch.setattr(engines, "require_tensorrt", missing)
    with pytest.raises(MissingBackend, match=r"The ONNX files are written; run again with --format trt\.$") as caught:
        build(write_bundle(tmp_path / "b"))
    assert caught.value.exit_code == 3


def test_without_a_gpu_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, library=FakeCudart(devices=0))
    with pytest.raises(MissingBackend, match=r"no GPU is visible here.*run again with --format trt\.$") as caught:
        build(write_bundle(tmp_path / "b"))
    assert caught.value.exit_code == 3


def test_a_failing_device_ends_everything_and_leaves_nothing(new: Machine, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b")
    before = names(bundle)
    new.library.failing["cudaStreamSynchronize"] = 700
    with pytest.raises(CudaError, match="waiting for the device failed"):
        build(bundle)
    assert names(bundle) == before
    assert new.library.leaks == []


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("deserializes", BundleError, r"does not load it \(the plan's checksum is wrong\)"),
        ("has_context", MissingBackend, "cannot prepare to run it"),
        ("runs", MissingBackend, "does not run it"),
    ],
)
def test_tensorrts_failures_when_loading_and_running_leave_nothing(
    new: Machine, tmp_path: Path, fault: str, error: type[Exception], message: str
) -> None:
    bundle = write_bundle(tmp_path / "b")
    setattr(new.behaviour, fault, False)
    with pytest.raises(error, match=message):
        build(bundle)
    assert engines_of(bundle) == {}
    assert new.library.leaks == []


@pytest.mark.parametrize("fails", ["cudaMalloc", "cudaStreamCreateWithFlags"])
def test_a_runner_that_cannot_be_made_frees_what_it_had(new: Machine, tmp_path: Path, fails: str) -> None:
    bundle = write_bundle(tmp_path / "b", widths=(0.5,))
    build(bundle)
    new.library.failing[fails] = 2
    with pytest.raises(CudaError):
        TensorRTRunner(bundle / "net_x0_5.plan")
    assert new.library.leaks == []


# --------------------------------------------------------------------------------------------------- verifying and loading


def built(board: Machine, folder: Path) -> Path:
    bundle = write_bundle(folder / "b", widths=(0.5,))
    build(bundle)
    return bundle


def test_engines_are_verified_again(board: Machine, tmp_path: Path) -> None:
    bundle = built(board, tmp_path)
    ((artifact, check),) = verify_engines(bundle, read_manifest(bundle))
    assert check == artifact.verification
    board.behaviour.defect = off_by(1)
    assert verify_engines(bundle, read_manifest(bundle))[0][1].status == "failed"


def test_a_bundle_without_engines_is_told(new: Machine, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b")
    with pytest.raises(BundleError, match="names no engine"):
        verify_engines(bundle, read_manifest(bundle))


def test_a_changed_plan_never_reaches_tensorrt(new: Machine, tmp_path: Path) -> None:
    bundle = built(new, tmp_path)
    artifact = engines_of(bundle)["net_x0_5.plan"]
    with (bundle / "net_x0_5.plan").open("ab") as file:
        file.write(b"!")
    new.behaviour.mentioned.clear()
    with pytest.raises(BundleError, match=r"SHA-256 is .* the file was changed or damaged"):
        TensorRTRunner(bundle / "net_x0_5.plan", artifact)
    assert not [name for name in new.behaviour.mentioned if name[0] == "Runtime"]


def test_a_plan_of_another_machine_never_reaches_tensorrt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bundle = built(machine(monkeypatch, "11.4.0"), tmp_path)
    other = machine(monkeypatch, "10.3.0", FakeCudart(capability=(8, 6)))
    expected = r"engine net_x0_5\.plan was built with TensorRT 11\.4\.0\.106 for sm_90; this machine has 10\.3\.0 and sm_86\."
    with pytest.raises(PlanMismatch, match=expected + " Engines are not portable: rebuild from net_x0_5.onnx"):
        verify_engines(bundle, read_manifest(bundle))
    with pytest.raises(PlanMismatch, match=r"built with TensorRT 11\.4\.0\.106; this machine has 10\.3\.0 and sm_86"):
        TensorRTRunner(bundle / "net_x0_5.plan")
    assert not [name for name in other.behaviour.mentioned if name[0] == "Runtime"]


def test_an_engine_of_other_types_is_refused(new: Machine, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", widths=(0.5,))
    path = bundle / "net_x0_5.onnx"
    path.write_bytes(network(io="HALF"))
    edit_manifest(bundle, lambda manifest: manifest["artifacts"][0].update(sha256=file_sha256(path)))
    with pytest.raises(BundleError, match=r"input is DataType\.HALF, expected float32"):
        build(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda bundle: (bundle / "net_x0_5.onnx").write_text("changed"), "SHA-256"),
        (lambda bundle: (bundle / "reference.npz").unlink(), r"reference\.npz"),
        (lambda bundle: np.savez(bundle / "reference.npz", images=np.zeros((1, 3, 4, 4), np.float32)), "has no logits_x0_5"),
        (lambda bundle: np.savez(bundle / "reference.npz", images=np.zeros((1, 3))), "its images are float64"),
        (lambda bundle: edit_manifest(bundle, lambda m: m.update(artifacts=[])), "nothing to build"),
    ],
)
def test_a_damaged_bundle_is_told_before_anything_is_built(
    new: Machine, tmp_path: Path, change: Callable[[Path], Any], message: str
) -> None:
    bundle = write_bundle(tmp_path / "b", widths=(0.5,))
    change(bundle)
    with pytest.raises(BundleError, match=message) as caught:
        build(bundle)
    assert caught.value.exit_code == 2
    assert new.behaviour.networks == []


@pytest.mark.parametrize(
    ("said", "lines"),
    [
        ([], ()),
        (["Converting conv weight scales to fp32."] * 48, ("Converting conv weight scales to fp32. (48 times)",)),
        (
            [
                f"onnx2trt_utils.cpp:{line}: Your ONNX model has INT64 weights.\n Attempting to cast"
                for line in (374, 374, 400)
            ],
            ("onnx2trt_utils.cpp:374: Your ONNX model has INT64 weights. Attempting to cast (and 2 like it)",),
        ),
        (["Tensor 'a' is unused", "slow", "Tensor 'b' is unused"], ("Tensor 'a' is unused (and 1 like it)", "slow")),
    ],
)
def test_warnings_are_a_line_of_each_kind(said: list[str], lines: tuple[str, ...]) -> None:
    assert folded(said) == lines


def test_warnings_are_told_once_for_all_engines_and_kept_with_each(
    new: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    new.behaviour.says = [("WARNING", "scale 1"), ("WARNING", "scale 2"), ("INFO", "nothing")]
    bundle = write_bundle(tmp_path / "b")
    build(bundle)
    assert [engine_of(artifact).warnings for artifact in engines_of(bundle).values()] == [("scale 1 (and 1 like it)",)] * 2
    assert [record.getMessage() for record in caplog.records] == ["TensorRT 11.4.0.106 warns: scale 1 (and 3 like it)"]
