"""Every name of TensorRT that the code mentions exists in the versions that reach it; and what is built on which."""

from __future__ import annotations

import importlib.util
import platform
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from slimexport.environment import engine_lines
from slimexport.target.errors import BundleError, MissingBackend
from slimexport.target.manifest import read_manifest
from slimexport.target.tensorrt import api as tensorrt_api
from slimexport.target.tensorrt.api import create, emission, logger, messages, require_tensorrt, said, supported
from slimexport.target.tensorrt.build_settings import BatchRange, BuildSettings
from slimexport.target.tensorrt.engines import verify_engines
from tests.support import ROOT
from tests.support.cuda_fake import FakeCudart
from tests.support.trt_fake import VERSIONS, inventory
from tests.support.trt_helpers import build, machine, write_bundle
from tests.support.trt_mentions import MODULE, Mention, Reader, has

TARGET = ROOT / "slimexport" / "target"
OBJECTS = ("api", "build", "engine", "timing_cache")  # these hold TensorRT's objects
INVENTORIES = {version: inventory(version) for version in VERSIONS}
OLD, *NEW = VERSIONS


def mentions(name: str) -> list[Mention]:
    return Reader(INVENTORIES).mentions((TARGET / "tensorrt" / f"{name}.py").read_text(encoding="utf-8"))


def test_the_inventories_are_of_the_versions_that_are_supported() -> None:
    assert VERSIONS == ["8.6.0", "10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0"]


@pytest.mark.parametrize("name", OBJECTS)
def test_every_name_exists_in_every_version_that_reaches_it(name: str) -> None:
    found = [mention for mention in mentions(name) if mention.name != "__init__"]
    assert found
    for mention in found:
        for version in mention.versions:
            assert has(INVENTORIES[version], mention.owner, mention.name), f"{name}.py: {mention} is not in {version}"


def test_other_modules_ask_tensorrt_for_its_version_only() -> None:
    for path in TARGET.rglob("*.py"):
        if path not in [TARGET / "tensorrt" / f"{name}.py" for name in OBJECTS]:
            found = {
                (m.owner, m.name)
                for m in Reader({"8.6.0": {}}).mentions(path.read_text(encoding="utf-8"))
                if m.owner == MODULE
            }
            assert found <= {(MODULE, "__version__")}, path


def test_names_are_not_put_together_from_strings() -> None:
    for name in OBJECTS:
        assert "getattr(" not in (TARGET / "tensorrt" / f"{name}.py").read_text(encoding="utf-8")


def test_every_mention_is_reached_by_a_build_and_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the stand-ins, which refuse what a version lacks, have seen all of it."""
    reached: set[tuple[str, str]] = set()
    everything = BuildSettings(BatchRange(1, 2, 3), 1 << 20, 5, 1, version_compatible=True, hardware_compatible=True)
    for version in VERSIONS:
        board = machine(monkeypatch, version)
        board.behaviour.says = [("WARNING", "a"), ("ERROR", "b")]
        bundle = write_bundle(tmp_path / version / "b", ("fp32", "fp16", "int8", "int8-fp16"), (0.5,))
        precisions = [precision for precision in supported(board.trt) if precision != "bf16"]
        build(bundle, precisions=precisions, settings=everything)
        board.behaviour.parser_errors = ["no such operator"]
        with pytest.raises(BundleError):
            build(bundle)
        verify_engines(bundle, read_manifest(bundle))
        reached |= board.behaviour.mentioned
        assert board.library.leaks == []
    wanted = {(m.owner, m.name) for name in OBJECTS for m in mentions(name) if m.owner != MODULE and m.name != "__init__"}
    assert len(wanted) > 60
    assert wanted <= reached


@pytest.mark.parametrize(
    ("source", "versions"),
    [
        ("trt.BuilderFlag.FP16", VERSIONS),
        ("if hasattr(trt.BuilderFlag, 'FP16'):\n    trt.BuilderFlag.FP16", VERSIONS[:-1]),
        ("if not hasattr(trt.BuilderFlag, 'FP16'):\n    0\nelse:\n    trt.BuilderFlag.FP16", VERSIONS[:-1]),
        ("def f():\n    if strongly_typed(trt):\n        return 1\n    return trt.BuilderFlag.FP16", [OLD]),
        ("hasattr(trt, 'IProgressMonitor') and trt.BuilderFlag.FP16", NEW),
        ("1 if unknown else self.trt.BuilderFlag.FP16", VERSIONS),
    ],
)
def test_branches_are_told_apart(source: str, versions: list[str]) -> None:
    found = [m for m in Reader(INVENTORIES).mentions(source) if m.name == "FP16"]
    assert [list(m.versions) for m in found] == [versions]


# ---------------------------------------------------------------------------------------------------------- emissions


@pytest.mark.parametrize(
    ("precision", "old", "new"),
    [
        ("fp32", ("fp32", ()), ("fp32", ())),
        ("tf32", ("fp32", ()), ("fp32", ())),
        ("fp16", ("fp32", ("FP16",)), ("fp16", ())),
        ("bf16", None, ("bf16", ())),
        ("int8", ("int8", ("FP16", "INT8")), ("int8-fp16", ())),
    ],
)
def test_a_target_takes_the_file_that_it_can_read(monkeypatch: pytest.MonkeyPatch, precision: str, old: Any, new: Any) -> None:
    for version in VERSIONS:
        trt = machine(monkeypatch, version).trt
        expected = old if version == OLD else new
        assert (precision in supported(trt)) == (expected is not None)
        if expected is None:
            with pytest.raises(MissingBackend, match=r"bf16: TensorRT 8\.6\.0 builds no bf16 engines.*fp32, tf32, fp16, int8"):
                emission(trt, precision)
        else:
            found = emission(trt, precision)
            assert (found.onnx, found.flags) == expected


def test_the_environment_says_what_each_version_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [tensorrt_api.describe(machine(monkeypatch, version).trt) for version in (OLD, NEW[-1])]
    assert lines == [
        "TensorRT 8.6.0: engines in fp32, tf32, fp16, int8 (no bf16 before TensorRT 10)",
        "TensorRT 11.4.0.106: engines in fp32, tf32, fp16, bf16, int8",
    ]


# ------------------------------------------------------------------------------------------------------ no TensorRT


def without_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "tensorrt" else find(name, *rest))


class Driver:
    """A driver's library that knows one CUDA version."""

    def __init__(self, version: int) -> None:
        self.version = version

    def cuDriverGetVersion(self, target: Any) -> int:  # as the driver calls it
        target._obj.value = self.version
        return 0


@pytest.mark.parametrize(
    ("driver", "package"), [(None, "tensorrt-cu13"), (Driver(12080), "tensorrt-cu12"), (Driver(13000), "tensorrt-cu13")]
)
def test_without_tensorrt_its_package_for_this_driver_is_named(
    monkeypatch: pytest.MonkeyPatch, driver: Driver | None, package: str
) -> None:
    without_tensorrt(monkeypatch)
    monkeypatch.setattr(tensorrt_api, "driver_library", lambda: driver)
    with pytest.raises(MissingBackend) as caught:
        require_tensorrt("The ONNX files are written; run again with --format trt.")
    assert caught.value.exit_code == 3
    assert str(caught.value) == (
        f"TensorRT is not installed: pip install {package} (its libraries come from NVIDIA's package index). The ONNX files "
        "are written; run again with --format trt."
    )


def test_on_a_jetson_it_comes_with_jetpack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(tensorrt_api, "JETSON", tmp_path)
    assert "apt install python3-libnvinfer" in tensorrt_api.install_hint()


def test_a_tensorrt_that_does_not_load_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise AttributeError(name)

    module = Broken("tensorrt")
    module.__spec__ = ModuleSpec("tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt", module)

    def fails(name: str) -> Any:
        raise OSError("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", fails)
    with pytest.raises(MissingBackend, match=r"installed but does not load \(libnvinfer\.so\.10: cannot open"):
        require_tensorrt()


def test_a_tensorrt_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("tensorrt")
    module.__spec__, module.__version__, module.IBuilderConfig = ModuleSpec("tensorrt", None), "8.5.3", object
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    with pytest.raises(MissingBackend, match=r"TensorRT 8\.5\.3 is too old, expected 8\.6 or later"):
        require_tensorrt()


# ------------------------------------------------------------------------------------------------------------ logger


def test_there_is_one_logger_and_it_keeps_errors_and_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    trt = machine(monkeypatch).trt
    assert logger(trt) is logger(trt)
    with messages(trt) as outer:
        logger(trt).log(trt.ILogger.WARNING, "one")
        with messages(trt) as inner:
            logger(trt).log(trt.ILogger.ERROR, "two\n  lines")
            logger(trt).log(trt.ILogger.INFO, "nothing")
        logger(trt).log(trt.ILogger.INTERNAL_ERROR, "three")
    assert outer == [("warning", "one"), ("error", "three")]
    assert said(inner) == "two lines"


def test_what_tensorrt_fails_to_make_is_an_error_of_the_environment() -> None:
    def null() -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    for fails in (null, lambda: None):
        with pytest.raises(MissingBackend, match="TensorRT cannot make a builder here"):
            create("a builder", fails)
    assert create("a thing", lambda: SimpleNamespace(x=1)).x == 1


# -------------------------------------------------------------------------------------------------- what --env prints


def test_what_a_machine_has_is_told_in_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "8.6.0")
    monkeypatch.setattr("slimexport.target.cuda.device.DRIVER_FILES", ())
    gpu, tensorrt = engine_lines()
    assert gpu == "GPU for engines: NVIDIA Test GPU (sm_90, 0 GiB), CUDA runtime 12.4, the driver runs CUDA up to 12.8"
    assert tensorrt.startswith("TensorRT 8.6.0: engines in fp32,")


def test_what_a_machine_lacks_is_told_in_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, library=FakeCudart(devices=0))
    without_tensorrt(monkeypatch)
    gpu, tensorrt = engine_lines()
    assert gpu.startswith("GPU for engines: no GPU is visible here")
    assert tensorrt.startswith("no engines: TensorRT is not installed: pip install tensorrt")
