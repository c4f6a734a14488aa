"""The formats of a bundle's files and what runs them: the names that the command and manifests use."""

from __future__ import annotations

FORMATS = ONNX, TRT = ("onnx", "trt")
CPU, CUDA, TENSORRT = "onnxruntime-cpu", "onnxruntime-cuda", "tensorrt"
FORMAT_OF = {CPU: ONNX, CUDA: ONNX, TENSORRT: TRT}  # of the files that each runs; the first of a format runs it by default
BACKENDS = tuple(FORMAT_OF)


def backend_for(form: str) -> str:
    """What runs files of a format unless another backend is asked for."""
    return next(backend for backend, own in FORMAT_OF.items() if own == form)
