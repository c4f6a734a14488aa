"""On a machine that has TensorRT and a GPU: what the stand-ins cannot show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimexport.target.errors import BundleError
from slimexport.target.manifest import read_manifest
from slimexport.target.tensorrt.build_settings import BatchRange, BuildSettings
from slimexport.target.tensorrt.engine import TensorRTRunner
from slimexport.target.tensorrt.engines import build_engines
from slimexport.target.tensorrt.verification import verify_engines
from tests.support.export_helpers import run, write_checkpoint

pytestmark = [pytest.mark.tensorrt, pytest.mark.gpu]


def test_a_bundles_engines_are_built_and_proven_on_the_device(tmp_path: Path) -> None:
    bundle = tmp_path / "b"
    checkpoint = write_checkpoint(tmp_path / "x.pt")
    outcome = run("--ckpt", checkpoint, "--image-size", "64", "--precision", "fp32,fp16", "--output-dir", bundle)
    assert outcome.code == 0, outcome.err
    settings = BuildSettings(batch=BatchRange(1, 4, 8), optimization_level=1)
    options: dict[str, Any] = {"settings": settings, "timing_cache_folder": tmp_path / "cache"}
    manifest = build_engines(bundle, precisions=["fp32", "tf32", "fp16"], **options)
    engines = manifest.of_format("trt")
    assert {artifact.verification.status for artifact in engines} == {"passed"}
    assert all(check.status == "passed" for _, check in verify_engines(bundle, read_manifest(bundle)))
    warm = build_engines(bundle, widths=[0.25], **options).of_format("trt")
    assert next(a.engine.timing_cache for a in warm if a.engine and a.file.endswith("x0_25.plan")) == "warm"
    path = bundle / engines[0].file
    with TensorRTRunner(path, engines[0]) as runner:
        before = runner.cuda.memory_info()[0]
        assert runner(np.zeros((11, 3, 64, 64), np.float32)).shape == (11, 10)
    with TensorRTRunner(path, engines[0]) as runner:
        assert abs(runner.cuda.memory_info()[0] - before) < 64 << 20  # the first one gave back what it took
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BundleError, match="SHA-256"):
        TensorRTRunner(path, engines[0])
    with pytest.raises(BundleError, match="does not load it"):
        TensorRTRunner(path)
