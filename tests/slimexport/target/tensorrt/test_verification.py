"""Engines run again: what was proven before is only told, what was only built becomes proven or goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import slimexport
from slimexport.cli import main
from slimexport.target.errors import BundleError, MissingBackend
from slimexport.target.manifest import read_manifest
from slimexport.target.tensorrt.build_settings import BuildSettings
from slimexport.target.tensorrt.plan_header import PlanMismatch
from slimexport.target.tensorrt.verification import verify_engines
from tests.support.cuda_fake import FakeCudart
from tests.support.trt_fake import RTX
from tests.support.trt_helpers import SETTINGS, Machine, build, engines_of, machine, names, without_gpu, write_bundle

FORM, BACKEND = "trt-rtx", "tensorrt-rtx"


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return machine(monkeypatch, RTX, FakeCudart(capability=(8, 9)))


def built(folder: Path, **options: Any) -> Path:
    """A bundle with RTX engines that were built where no GPU is."""
    bundle = write_bundle(folder / "b", ("fp32", "fp16"))
    with pytest.MonkeyPatch.context() as patch:
        without_gpu(patch)
        build(bundle, form=FORM, precisions=["fp32", "fp16"], **options)
    return bundle


def verify(bundle: Path, *options: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, ["--bundle", str(bundle), "--verify-only", "--backend", BACKEND, *options])
    return done.exit_code, done.stdout, done.stderr


def test_what_was_built_is_proven_where_it_runs(board: Machine, tmp_path: Path) -> None:
    bundle = built(tmp_path)
    assert {artifact.verification.status for artifact in engines_of(bundle, FORM).values()} == {"built"}
    code, out, err = verify(bundle)
    assert code == 0, err
    assert "all 4 files passed their check" in out
    for artifact in engines_of(bundle, FORM).values():
        check, engine = artifact.verification, artifact.engine
        assert (check.status, check.backend, check.batches) == ("passed", BACKEND, (1, 4, 6))
        assert engine is not None and (engine.gpu, engine.compute_capability) == ("NVIDIA Test GPU", "8.9")
        assert engine.device_memory_bytes == 12345
    before = (bundle / "manifest.json").read_bytes()
    assert verify(bundle)[0] == 0 and (bundle / "manifest.json").read_bytes() == before


def test_what_is_not_right_goes_unless_it_was_proven_before(board: Machine, tmp_path: Path) -> None:
    bundle = built(tmp_path)
    there = names(bundle)
    board.behaviour.defect = lambda logits, batch: logits * 1.005  # within fp16's tolerance only
    code, _, err = verify(bundle)
    files = "net_x0_5.rtx.plan, net_x1_0.rtx.plan"
    first, *reasons, last = err.splitlines()
    assert code == 1 and first == f"slimexport: not proven right: {files}."
    assert [reason.split(":")[0] for reason in reasons] == files.split(", ")
    assert all("failed, a difference of 5.0e-03 of the logits' scale, expected at most 1e-04" in reason for reason in reasons)
    assert last == f"Removed, as nothing had proven it before: {files}."
    assert there - names(bundle) == {"net_x0_5.rtx.plan", "net_x1_0.rtx.plan"}
    manifest = read_manifest(bundle)
    assert [artifact.verification.status for artifact in manifest.of_format(FORM)] == ["passed", "passed"]
    assert [(entry.file, entry.verification.status) for entry in manifest.rejected] == [(None, "failed")] * 2
    board.behaviour.defect = lambda logits, batch: -logits
    code, _, err = verify(bundle)
    assert code == 1 and "Removed" not in err
    assert [artifact.verification.status for artifact in read_manifest(bundle).of_format(FORM)] == ["passed", "passed"]


def test_where_there_is_a_gpu_an_engine_is_proven_at_once(board: Machine, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", widths=(0.5,))
    build(bundle, form=FORM)
    (artifact,) = engines_of(bundle, FORM).values()
    assert (artifact.file, artifact.verification.status) == ("net_x0_5.rtx.plan", "passed")
    assert artifact.engine is not None and artifact.engine.timing_cache is None


@pytest.mark.parametrize(
    ("here", "targets", "status"),
    [
        ((8, 9), (), "passed"),
        ((8, 9), ("8.6",), "built"),
        ((8, 9), ("8.6", "8.9"), "passed"),
        ((7, 5), (), "built"),
        ((9, 0), (), "built"),  # a GPU that TensorRT-RTX does not know
    ],
)
def test_an_engine_for_other_gpus_is_not_run_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, here: tuple[int, int], targets: tuple[str, ...], status: str
) -> None:
    machine(monkeypatch, RTX, FakeCudart(capability=here))
    bundle = write_bundle(tmp_path / "b", widths=(0.5,))
    settings = BuildSettings(SETTINGS.batch, targets=targets)
    build(bundle, form=FORM, settings=settings)
    (artifact,) = engines_of(bundle, FORM).values()
    assert artifact.verification.status == status
    assert artifact.engine is not None and artifact.engine.targets == targets
    if targets == ("8.6",):
        with pytest.raises(PlanMismatch, match=r"was built with TensorRT-RTX \S+ for sm_86; this machine has .* and sm_89"):
            verify_engines(bundle, read_manifest(bundle), FORM)


def test_without_a_gpu_the_command_for_one_is_told(board: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = built(tmp_path)
    without_gpu(monkeypatch)
    code, out, err = verify(bundle)
    assert (code, out) == (3, "")
    assert err == (
        f"slimexport: {bundle}: TensorRT-RTX engines cannot run here, no GPU is visible here (CUDA_VISIBLE_DEVICES, a "
        "container without --gpus?). Copy the bundle to a machine with their GPU, and there: "
        f"slimexport --bundle {bundle} --verify-only --backend {BACKEND}\n"
    )
    with pytest.raises(MissingBackend):
        slimexport.verify_bundle(bundle, BACKEND)


def test_a_bundle_without_such_engines_is_told(board: Machine, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b")
    with pytest.raises(BundleError, match=r"names no TensorRT-RTX engine\. Build some .* --format trt-rtx"):
        verify_engines(bundle, read_manifest(bundle), FORM)


def test_such_an_engine_is_opened_by_its_backend(board: Machine, tmp_path: Path) -> None:
    bundle = built(tmp_path)
    with slimexport.open_network(bundle, 0.5, backend=BACKEND) as network:
        assert network(np.zeros((2, 3, 4, 4), np.float32)).shape == (2, 5)
        assert network.artifact.file == "net_x0_5.rtx.plan" and network.backend == BACKEND


def test_the_manifest_of_what_was_built_is_read_back(board: Machine, tmp_path: Path) -> None:
    bundle = built(tmp_path, settings=BuildSettings(SETTINGS.batch, targets=("8.6", "12.0")))
    text = (bundle / "manifest.json").read_text()
    entry = next(entry for entry in json.loads(text)["artifacts"] if entry["format"] == FORM)
    assert entry["verification"] == {"status": "built"} and entry["accuracy"] is None
    assert entry["engine"]["targets"] == ["8.6", "12.0"]
    assert [entry["engine"][key] for key in ("gpu", "cuda", "driver", "driver_cuda", "compute_capability")] == [None] * 5
    assert slimexport.read_manifest(bundle).of_format(FORM)


def test_an_engine_that_does_not_load_says_nothing_of_those_after_it(board: Machine, tmp_path: Path) -> None:
    bundle = built(tmp_path)
    first, *others = engines_of(bundle, FORM)
    content = bytearray((bundle / first).read_bytes())
    content[-1] ^= 1
    (bundle / first).write_bytes(content)
    code, out, err = verify(bundle)
    assert code == 2 and "3 of 4 files passed their check" in out and "failed" in out
    assert err.startswith(f"slimexport: not proven right: {first}.\n") and f"{first}: SHA-256 is" in err
    statuses = {file: artifact.verification.status for file, artifact in engines_of(bundle, FORM).items()}
    assert statuses == {first: "built"} | dict.fromkeys(others, "passed")
    assert (bundle / first).exists()


def test_where_no_engine_loads_the_reason_is_the_error(board: Machine, tmp_path: Path) -> None:
    bundle = built(tmp_path)
    for file in engines_of(bundle, FORM):
        (bundle / file).write_bytes(b"nothing")
    code, out, err = verify(bundle)
    assert (code, out) == (2, "") and "SHA-256 is" in err
