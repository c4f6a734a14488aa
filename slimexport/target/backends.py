"""The formats of a bundle's files and what runs them, a row each: the names that the command and manifests use.

A new backend takes a row here and what opens its files. Nothing in this file loads a library: what opens files are dotted
names, `module:attribute`, which are loaded once they are asked for.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMATS = ONNX, TRT, TRT_RTX = ("onnx", "trt", "trt-rtx")
ENGINES = (TRT, TRT_RTX)  # formats that are built from ONNX files, on the target or for it
CPU, CUDA, OPENVINO = "onnxruntime-cpu", "onnxruntime-cuda", "openvino"
TENSORRT, TENSORRT_RTX = "tensorrt", "tensorrt-rtx"


@dataclass(frozen=True)
class Backend:
    """Something that runs files of a `format`.

    `opener`: opens a file, called with its path and its entry in the manifest. `lacks`: called with a precision, why its files
    are not run here, or nothing; "" where all are. `tunes`: the first run of every batch size takes much longer than the
    next, as it is prepared for, at the expense of the size before: a server is to run no other sizes than it began with, each
    in a session of its own.
    """

    name: str
    format: str
    opener: str
    lacks: str = ""
    tunes: bool = False

    def open(self, path: Path, artifact: Any) -> Any:
        """A file, with its `Artifact` in the manifest, as a `runners.OpenRunner`. Raises BundleError where it does not load,
        MissingBackend where nothing does."""
        return load(self.opener)(path, artifact)

    def cannot_run(self, precision: str) -> str:
        """Why files of a precision are not run here, or nothing. MissingBackend where nothing is."""
        return str(load(self.lacks)(precision)) if self.lacks else ""


ROWS = (  # the first of a format runs it by default
    Backend(CPU, ONNX, "slimexport.target.runners:open_on_cpu", lacks="slimexport.target.runners:lacks_on_cpu"),
    Backend(CUDA, ONNX, "slimexport.target.runners:open_on_cuda", lacks="slimexport.target.runners:lacks_on_cuda", tunes=True),
    Backend(OPENVINO, ONNX, "slimexport.target.openvino:open_in_openvino"),
    Backend(TENSORRT, TRT, "slimexport.target.tensorrt.engine:TensorRTRunner"),
    Backend(TENSORRT_RTX, TRT_RTX, "slimexport.target.tensorrt.engine:TensorRTRunner"),
)
BACKENDS = {row.name: row for row in ROWS}
DEFAULT = ROWS[0].name


def load(dotted: str) -> Any:
    """What a dotted name, `module:attribute`, stands for."""
    module, _, attribute = dotted.partition(":")
    return getattr(importlib.import_module(module), attribute)


def format_of(backend: str) -> str:
    """Of the files that a backend runs."""
    return BACKENDS[backend].format


def backend_for(form: str) -> str:
    """What runs files of a format unless another backend is asked for."""
    return next(row.name for row in ROWS if row.format == form)
