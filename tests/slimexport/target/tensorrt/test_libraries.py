"""Which library is there, and what is said where there is none that serves."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from slimexport.target.errors import MissingBackend
from slimexport.target.tensorrt import libraries
from slimexport.target.tensorrt.libraries import (
    RTX_LIBRARY,
    TRT_LIBRARY,
    lacks_plugins,
    library_of,
    repair_hint,
    require_tensorrt,
    titled,
)
from tests.support.rtx import require_rtx
from tests.support.trt_fake import RTX, VERSIONS
from tests.support.trt_helpers import machine, without_modules


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
    without_modules(monkeypatch, "tensorrt")
    monkeypatch.setattr(libraries, "driver_library", lambda: driver)
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
    monkeypatch.setattr(libraries, "JETSON", tmp_path)
    assert "apt install python3-libnvinfer" in libraries.install_hint()


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


@pytest.mark.parametrize(
    ("package", "version", "advice"),
    [
        (
            "tensorrt",
            "8.6.0",
            "pip install nvidia-cublas-cu12 'nvidia-cudnn-cu12<9' (TensorRT 8.6 needs cuBLAS 12 and cuDNN 8)",
        ),
        ("tensorrt", "8.6.1.post1", "pip install nvidia-cublas-cu12 'nvidia-cudnn-cu12<9'"),
        ("tensorrt-cu12", "10.13.3.9", "pip install --force-reinstall tensorrt-cu12==10.13.3.9"),
        ("tensorrt-cu13", "11.4.0.106", "pip install --force-reinstall tensorrt-cu13==11.4.0.106"),
        (None, "", "pip install tensorrt-cu1"),
    ],
)
def test_the_advice_fits_the_version_that_does_not_load(
    monkeypatch: pytest.MonkeyPatch, package: str | None, version: str, advice: str
) -> None:
    def of(name: str) -> str:
        if name != package:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", of)
    assert repair_hint(TRT_LIBRARY).startswith(advice)


def test_without_rtx_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    without_modules(monkeypatch, *RTX_LIBRARY.modules)
    with pytest.raises(
        MissingBackend, match=r"TensorRT-RTX is not installed: pip install 'slimmable-deploy\[trt-rtx\]'"
    ) as caught:
        require_tensorrt(library=RTX_LIBRARY)
    assert caught.value.exit_code == 3


def test_modules_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [library_of(machine(monkeypatch, version).trt) for version in (VERSIONS[0], VERSIONS[-1], RTX)] == [
        TRT_LIBRARY,
        TRT_LIBRARY,
        RTX_LIBRARY,
    ]
    assert titled(machine(monkeypatch, RTX).trt) == f"TensorRT-RTX {RTX}"


def test_the_real_rtx_is_found() -> None:
    trt = require_rtx()
    assert require_tensorrt(library=RTX_LIBRARY) is trt and library_of(trt) is RTX_LIBRARY


def test_plugins_that_are_not_there_are_linked_where_the_others_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board, maps = machine(monkeypatch, "8.6.0"), tmp_path / "maps"
    maps.write_text(
        "7f00-7f01 r-xp 00000000 fe:00 17 /usr/lib/libc.so.6\n"
        "7f02-7f03 r-xp 00000000 fe:00 18                  /opt/my site/tensorrt/libnvinfer_plugin.so.8\n"
    )
    advice = str(lacks_plugins(board.trt, maps))
    link = "ln -s libnvinfer_plugin.so.8 '/opt/my site/tensorrt'/libnvinfer_vc_plugin.so.8"
    assert f"{link} && export LD_LIBRARY_PATH='/opt/my site/tensorrt':$LD_LIBRARY_PATH" in advice
    assert "FOLDER_OF_ITS_LIBRARIES" in str(lacks_plugins(board.trt, tmp_path / "none"))
