"""Finding and loading the CUDA runtime, libcudart: by its names, in the folders where systems and pip put it.

Importing this module loads nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slimexport.target.errors import MissingBackend

MAJORS = (13, 12, 11)
OVERRIDE = "SLIMEXPORT_CUDART"  # a path, for machines on which nothing below finds it
INSTALL = "pip install nvidia-cuda-runtime (CUDA 13) or nvidia-cuda-runtime-cu12"


def _names() -> list[str]:
    """What the file may be called, newest first. Windows' names have more digits with CUDA 11 (`cudart64_110.dll`)."""
    if sys.platform == "win32":
        return [f"cudart64_{number}.dll" for number in (*MAJORS, 110)]
    return [f"libcudart.so.{major}" for major in MAJORS]


def _folders() -> Iterator[Path]:
    """Folders that a system's loader does not search by itself: NVIDIA's wheels, then the CUDA toolkit's."""
    for entry in dict.fromkeys(sys.path):
        packages = Path(entry or ".") / "nvidia"
        if packages.is_dir():
            for pattern in ("*/lib", "*/bin", "*/bin/x86_64"):
                yield from sorted(packages.glob(pattern))
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if root := os.environ.get(variable):
            yield from (Path(root) / "lib64", Path(root) / "bin", Path(root) / "bin" / "x64")
    if sys.platform != "win32":
        yield from (root / "lib64" for root in sorted(Path("/usr/local").glob("cuda*"), reverse=True))


def candidates() -> list[str]:
    """Names and paths to try, newest CUDA first, and for one CUDA those that the system's loader knows first."""
    if override := os.environ.get(OVERRIDE):
        return [override]
    folders = list(_folders())
    names = []
    for name in _names():
        names.append(name)
        names += [str(folder / name) for folder in folders if (folder / name).is_file()]
    if unversioned := ctypes.util.find_library("cudart"):
        names.append(unversioned)
    return list(dict.fromkeys(names))


def libraries() -> Iterator[Any]:
    """Every CUDA runtime that loads here, newest first. MissingBackend where there is none."""
    none = True
    for candidate in candidates():
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(candidate)
            none = False
            yield library
    if none:
        raise MissingBackend(
            f"the CUDA runtime ({' or '.join(_names())}) was not found: {INSTALL}, add its folder to the loader's path, or "
            f"name the file in {OVERRIDE}."
        )


def driver_library() -> Any | None:
    """The driver's own library (libcuda), or None where there is no NVIDIA driver."""
    for name in ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libcuda.so"):
        with contextlib.suppress(OSError):
            return ctypes.CDLL(name)
    return None
