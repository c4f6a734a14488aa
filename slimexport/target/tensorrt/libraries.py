"""TensorRT and TensorRT-RTX, two libraries with one interface: what differs around it, a row each.

TensorRT builds an engine on the GPU that runs it, by timing. TensorRT-RTX builds on any machine, for several generations of
GPUs at once, and finishes the work where the engine is loaded.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import platform
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimexport.target.backends import TENSORRT, TENSORRT_RTX, TRT, TRT_RTX
from slimexport.target.cuda.library import driver_library
from slimexport.target.errors import MissingBackend
from slimtrain.base.packages import install_command

JETSON = Path("/etc/nv_tegra_release")
VC_PLUGINS = "libnvinfer_vc_plugin.so.8"  # 8.6's parser opens it for every plugin, and the wheels lack it
PLUGINS = "libnvinfer_plugin.so.8"
MAPS = Path("/proc/self/maps")
OF_8 = "pip install nvidia-cublas-cu12 'nvidia-cudnn-cu12<9' (TensorRT 8.6 needs cuBLAS 12 and cuDNN 8)"


@dataclass(frozen=True)
class Library:
    """`title`: its name in messages. `modules`: what its bindings may be called, the first that is there counts; `packages`:
    what they come in. `form`: the format of its engines, whose files end in `suffix` and begin with `tag`; `backend` runs
    them. `builds_anywhere`: without a GPU, for those that are named (`BuildSettings.targets`), and without timing anything."""

    title: str
    modules: tuple[str, ...]
    packages: tuple[str, ...]
    form: str
    backend: str
    suffix: str
    tag: bytes
    builds_anywhere: bool = False

    @property
    def engine(self) -> str:
        """What a message calls one of its engines."""
        return f"{self.title} engine" if self.builds_anywhere else "engine"


TRT_LIBRARY = Library(
    "TensorRT", ("tensorrt",), ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"), TRT, TENSORRT, ".plan", b"ftrt"
)
RTX_LIBRARY = Library(
    "TensorRT-RTX",
    ("tensorrt_rtx_bindings", "tensorrt_rtx"),  # of PyPI's packages, and of NVIDIA's own archive
    ("tensorrt-rtx-cu12-bindings",),
    TRT_RTX,
    TENSORRT_RTX,
    ".rtx.plan",
    b"vtrt",
    builds_anywhere=True,
)
LIBRARIES = {row.form: row for row in (TRT_LIBRARY, RTX_LIBRARY)}


def library_of(trt: Any) -> Library:
    """Which of them a module of bindings is."""
    return next((row for row in LIBRARIES.values() if trt.__name__ in row.modules), TRT_LIBRARY)


def titled(trt: Any) -> str:
    """`TensorRT 10.3.0`: a module of bindings in messages."""
    return f"{library_of(trt).title} {trt.__version__}"


def require_tensorrt(after: str = "", library: Library = TRT_LIBRARY) -> Any:
    """The module of a library's bindings. MissingBackend, with what installs it and then `after`, where there is none that
    serves."""
    title = library.title
    name = next(filter(_is_installed, library.modules), None)
    if name is None:
        raise _missing(f"{title} is not installed: {install_hint(library)}.", after)
    try:
        bindings = importlib.import_module(name)
    except Exception as error:  # its loader raises ImportError, OSError, RuntimeError and others for missing libraries
        raise _missing(f"{title} is installed but does not load ({error}): {repair_hint(library)}.", after) from error
    if not hasattr(bindings.IBuilderConfig, "builder_optimization_level"):
        raise _missing(f"TensorRT {bindings.__version__} is too old, expected 8.6 or later: {install_hint(library)}.", after)
    return bindings


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # a broken entry in sys.modules
        return False


def _missing(message: str, after: str) -> MissingBackend:
    return MissingBackend(f"{message} {after}".rstrip())


def install_hint(library: Library = TRT_LIBRARY) -> str:
    """What installs a library here. TensorRT's wheels are for one CUDA, and the driver says which one runs."""
    if library.builds_anywhere:
        return f"{install_command(library.modules[0])}, wheels for Linux on x86-64, CPython 3.10 to 3.13"
    if sys.platform == "linux" and platform.machine() == "aarch64" and JETSON.exists():
        return "sudo apt install python3-libnvinfer (JetPack's; a virtual environment needs --system-site-packages)"
    package = "tensorrt-cu12" if _driver_cuda_major() == 12 else "tensorrt-cu13"
    return f"pip install {package} (its libraries come from NVIDIA's package index)"


def repair_hint(library: Library) -> str:
    """What helps a library that is installed and does not load: what its own version needs, not another version."""
    for package in library.packages:
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        if library is TRT_LIBRARY and version.startswith("8."):
            return OF_8
        return f"pip install --force-reinstall {package}=={version}"
    return install_hint(library)


def lacks_plugins(trt: Any, maps: Path = MAPS) -> MissingBackend:
    """That `VC_PLUGINS` is not there, and what helps: its name for the library of plugins that is, with which 8.6.0 built."""
    try:
        lines = maps.read_text().splitlines()
    except OSError:
        lines = []
    paths = (Path(line.split(maxsplit=5)[-1]) for line in lines if line.endswith(f"/{PLUGINS}"))
    folder = shlex.quote(str(next((path.parent for path in paths), Path("FOLDER_OF_ITS_LIBRARIES"))))
    return MissingBackend(
        f"{titled(trt)} does not read the network without {VC_PLUGINS}, which its wheels lack (RoiAlign and EfficientNMS are "
        f"plugins). Install it from NVIDIA's archive or Debian packages, or: ln -s {PLUGINS} {folder}/{VC_PLUGINS} && export "
        f"LD_LIBRARY_PATH={folder}:$LD_LIBRARY_PATH"
    )


def _driver_cuda_major() -> int | None:
    driver, version = driver_library(), ctypes.c_int()
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return version.value // 1000
