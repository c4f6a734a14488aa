"""The timing cache: one for a device and its software, shared by all builds; a damaged one costs time, never a build."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slimexport.target.cuda.device import GpuDevice
from slimexport.target.tensorrt.api import emission, logger
from slimexport.target.tensorrt.build import build as build_plan
from slimexport.target.tensorrt.build_settings import BuildSettings
from slimexport.target.tensorrt.timing_cache import MAGIC, TimingCache, cache_path
from tests.support.rtx import require_rtx, small_onnx, written
from tests.support.trt_fake import VERSIONS
from tests.support.trt_helpers import Machine, build, engines_of, machine, refuses_measurements, write_bundle

DEVICE = GpuDevice("NVIDIA H200", "9.0", "12.4", "12.8", None, 1)


@pytest.fixture(params=[VERSIONS[0], VERSIONS[-1]])
def board(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return machine(monkeypatch, request.param)


def stored(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def states(bundle: Path) -> list[str | None]:
    return [artifact.engine.timing_cache for artifact in engines_of(bundle).values() if artifact.engine]


def test_widths_share_one_file_and_a_later_run_finds_it(board: Machine, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b")
    build(bundle)
    assert states(bundle) == ["cold", "warm"]
    path = stored(tmp_path / "cache")
    assert path.read_bytes().endswith(b"measured;measured;")
    build(bundle)
    assert states(bundle) == ["warm", "warm"]
    assert stored(tmp_path / "cache") == path


def test_what_changes_the_measurements_changes_the_file() -> None:
    paths = {
        cache_path(DEVICE, "10.3.0"),
        cache_path(DEVICE, "10.3.1"),
        cache_path(replace(DEVICE, gpu="NVIDIA H100"), "10.3.0"),
        cache_path(replace(DEVICE, cuda="12.5"), "10.3.0"),
        cache_path(DEVICE, "10.3.0", ["TF32"]),
        cache_path(DEVICE, "10.3.0", ["TF32", "FP16"]),
    }
    assert len(paths) == 6
    assert cache_path(replace(DEVICE, driver="1", memory_bytes=2), "10.3.0") in paths
    assert cache_path(DEVICE, "10.3.0", ["TF32"]).name == "NVIDIA_H200-trt10.3.0-cuda12.4-TF32.timing"


def test_odd_names_of_gpus_make_no_folders() -> None:
    path = cache_path(replace(DEVICE, gpu="GPU (../nvgpu) / Orin"), "8.6.0", folder=Path("c"))
    assert path.parent == Path("c") and "/" not in path.name


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:10],
        lambda content: content[:-1],
        lambda content: content[:-1] + b"?",
        lambda content: content[:30] + b"\0" + content[31:],
        lambda content: b"something else",
        lambda content: content[: len(MAGIC) + 32],
    ],
)
def test_a_damaged_file_is_discarded_with_a_notice(
    board: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: object
) -> None:
    bundle = write_bundle(tmp_path / "b", widths=(0.5,))
    build(bundle)
    path = stored(tmp_path / "cache")
    good = path.read_bytes()
    path.write_bytes(damage(good))  # type: ignore[operator]
    build(bundle)
    assert states(bundle) == ["discarded"]
    assert f"timing cache {path} is discarded, it is damaged" in caplog.text
    assert path.read_bytes() == good


def test_a_file_that_tensorrt_refuses_is_discarded_too(
    board: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_bundle(tmp_path / "b", widths=(0.5,))
    build(bundle)
    monkeypatch.setattr(board.trt.IBuilderConfig, "set_timing_cache", refuses_measurements)
    build(bundle)
    assert states(bundle) == ["discarded"]
    assert "TensorRT does not take it" in caplog.text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs there")
def test_a_cache_that_is_no_file_is_not_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(tmp_path / "x.timing")
    assert TimingCache(tmp_path / "x.timing").read() == b""
    assert "is a FIFO" in caplog.text


def test_a_folder_that_cannot_be_written_costs_no_build(
    board: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    bundle = write_bundle(tmp_path / "b", widths=(0.5,))
    build(bundle)
    assert list(engines_of(bundle)) == ["net_x0_5.plan"]
    assert "cannot be written" in caplog.text


def test_nothing_half_written_stays(board: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = TimingCache(tmp_path / "c" / "x.timing")
    config = board.trt.IBuilderConfig()
    config._cache = board.trt.ITimingCache()
    config._cache._content = b"measured"
    cache.keep(config)
    before = cache.path.read_bytes()
    config._cache._content = b"measured more"

    def interrupted(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.keep(config)
    assert [path.read_bytes() for path in cache.path.parent.iterdir()] == [before]


# ------------------------------------------------------------------------------------------------ NVIDIA's own, without a GPU


def real_config() -> Any:
    """A configuration of TensorRT-RTX, whose caches stay empty; it is kept alive by what it is of."""
    trt = require_rtx()
    builder = trt.Builder(logger(trt))
    return builder, builder.create_builder_config()


def stored_as(path: Path, content: bytes) -> TimingCache:
    """A cache whose file is whole, and holds `content` as TensorRT's."""
    path.write_bytes(MAGIC + hashlib.sha256(content).digest() + content)
    return TimingCache(path)


@pytest.mark.filterwarnings("ignore:.*no-ops in TensorRT-RTX:DeprecationWarning")
def test_bytes_that_tensorrt_cannot_read_are_discarded_though_it_makes_a_cache_of_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It comes back empty, with a warning in TensorRT's log only."""
    builder, config = real_config()
    path = tmp_path / "x.timing"
    cache = TimingCache(path)
    cache.attach(config)
    cache.keep(config)
    assert cache.state == "cold" and path.exists()
    cache.attach(config)
    assert cache.state == "cold"  # nothing had been measured
    whole = path.read_bytes()[len(MAGIC) + 32 :]
    for content in (b"garbage" * 100, whole[:-3], whole + b"more", whole[:8] + bytes([whole[8] ^ 255]) + whole[9:]):
        caplog.clear()
        cache = stored_as(path, content)
        cache.attach(config)
        assert cache.state == "discarded"
        assert f"timing cache {path} is discarded, TensorRT does not take it" in caplog.text
        assert config.get_timing_cache() is not None
    assert builder is not None


@pytest.mark.filterwarnings("ignore:.*no-ops in TensorRT-RTX:DeprecationWarning")
def test_a_real_build_takes_and_keeps_a_cache(tmp_path: Path) -> None:
    trt, cache = require_rtx(), TimingCache(tmp_path / "x.timing")
    built = build_plan(trt, written(tmp_path, small_onnx()), emission(trt, "fp32"), BuildSettings(), cache)
    assert built.timing_cache == "cold" and cache.path.read_bytes().startswith(MAGIC)
