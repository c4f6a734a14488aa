"""A width that a model holds: its file, seen to be the one that was written, opened in onnxruntime on the CPU or, of an
engine, in TensorRT. A model repository gets a copy of this file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

WIDTHS = "widths.json"  # what a model's files are
ONNX, ENGINE = ".onnx", ".plan"  # how they end

Compute = Callable[[Any], dict[str, Any]]  # images [N, ...] -> outputs, by name


class Width:
    """Images [N, ...] -> its outputs, by name. `label`: what policies call it. `free`: what gives back what it holds."""

    def __init__(self, label: str, compute: Compute, free: Callable[[], None] | None = None) -> None:
        self.label, self._compute, self._free = label, compute, free

    def __call__(self, images: Any) -> dict[str, Any]:
        outputs = self._compute(images)
        for name, rows in outputs.items():
            if len(rows) != len(images):
                raise ValueError(f"{name} has {len(rows)} rows for {len(images)} images")
        return outputs

    def close(self) -> None:
        """It cannot run again."""
        if self._free is not None:
            self._free()


def open_width(folder: Path, entry: Mapping[str, Any], threads: int) -> Width:
    """One of `widths.json`. ValueError where the file is not the one that was written; what a library says where it does not
    load it. `threads`: of onnxruntime (0: as many as it takes)."""
    path = folder / entry["file"]
    content = path.read_bytes()  # what is checked is what is run
    if (digest := hashlib.sha256(content).hexdigest()) != entry["sha256"]:
        raise ValueError(
            f"{path}: SHA-256 is {digest[:12]}..., {WIDTHS} says {entry['sha256'][:12]}...: the file was changed or damaged. "
            "Write the model again: slimexport --triton DIR --adaptive --overwrite."
        )
    if path.suffix == ONNX:
        return Width(str(entry["label"]), _in_onnxruntime(content, threads))
    from slimexport.target.serving.triton.engine import Engine

    engine = Engine(content, path.name, host_code=bool(entry["host_code"]))
    return Width(str(entry["label"]), engine, engine.close)


def _in_onnxruntime(content: bytes, threads: int) -> Compute:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # threads that wait for this width's next run must not take the CPU from another width's
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    images_name = session.get_inputs()[0].name
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(None, {images_name: images}), strict=True))
