"""The runtimes that are tried, a row each: how a file is opened in one, and what it is when nothing is said.

All run on the CPU with a stated number of threads and float32 where they can be told. Nothing here loads one before it is
asked for. A new one takes a row and its opener.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

Run: TypeAlias = Callable[[Any], Any]  # images [N, 3, H, W], N as it was opened for -> output [N, classes]
INPUT, OUTPUT = "input", "output"


@dataclass(frozen=True)
class Reader:
    """A runtime. `modules`: what must be importable; `packages`: what pip calls them. `opener`: called with a file, a folder
    for what it is converted to, the images [N, 3, H, W] it is opened for, and threads. `how`: what is between file and
    figure, if anything is."""

    name: str
    modules: tuple[str, ...]
    packages: str
    opener: Callable[[Path, Path, Any, int], Run]
    how: str = ""


def _onnxruntime(path: Path, folder: Path, images: Any, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda given: session.run(None, {INPUT: given})[0]


def _openvino(path: Path, folder: Path, images: Any, threads: int) -> Run:
    from benchmarks.runners.openvino import compile_settings
    from slimexport.target.openvino import compile_file
    from slimexport.target.precision import EXACT, PRECISIONS

    precision = next((part for part in path.suffixes[-2:-1] if part.removeprefix(".") in PRECISIONS), EXACT).removeprefix(".")
    requests: dict[int, Any] = {}  # by batch: compiled for one, a network is faster than for any

    def run(given: Any) -> Any:
        if len(given) not in requests:
            compiled = compile_file(path, precision, compile_settings(threads), len(given))
            requests[len(given)] = compiled.create_infer_request()
        return requests[len(given)].infer({0: given}, share_inputs=True)[0]

    return run


def _opencv(path: Path, folder: Path, images: Any, threads: int) -> Run:
    import cv2

    cv2.setNumThreads(threads)
    network = cv2.dnn.readNetFromONNX(str(path))
    names = network.getUnconnectedOutLayersNames()

    def run(given: Any) -> Any:
        network.setInput(given)
        return network.forward(names)[0]

    return run


def _tract(path: Path, folder: Path, images: Any, threads: int) -> Run:
    import tract

    model = tract.onnx().load(str(path)).into_model().into_runnable()
    return lambda given: model.run([given])[0].to_numpy()


def _mnn(path: Path, folder: Path, images: Any, threads: int) -> Run:
    converted = folder / "network.mnn"
    # the library itself: MNN's own mnnconvert script installs a package and reports to its makers
    words = ["mnnconvert", "-f", "ONNX", "--modelFile", str(path), "--MNNModel", str(converted), "--bizCode", "x"]
    _converted([sys.executable, "-c", f"import _tools; _tools.mnnconvert({words!r})"], converted)
    import MNN

    express = MNN.expr
    settings = {"numThread": threads, "precision": "high", "backend": "CPU"}
    manager = MNN.nn.create_runtime_manager((settings,))
    network = MNN.nn.load_module_from_file(str(converted), [INPUT], [OUTPUT], runtime_manager=manager)
    image = express.placeholder(list(images.shape), express.NCHW)

    def run(given: Any) -> Any:
        image.write(given)
        return np.array(express.convert(network.forward([image])[0], express.NCHW).read())

    return run


def _ncnn(path: Path, folder: Path, images: Any, threads: int) -> Run:
    source = folder / "network.onnx"
    source.write_bytes(path.read_bytes())
    words = [
        str(Path(sys.executable).with_name("pnnx")),
        str(source),
        f"inputshape={list(images.shape)}".replace(" ", ""),
        "fp16=0",
    ]
    _converted(words, folder / "network.ncnn.bin")
    import ncnn

    network = ncnn.Net()
    options = network.opt
    options.num_threads = threads
    options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = options.use_bf16_storage = False
    if network.load_param(str(folder / "network.ncnn.param")) or network.load_model(str(folder / "network.ncnn.bin")):
        raise RuntimeError("ncnn does not load what pnnx made of it")

    def run(given: Any) -> Any:
        outputs = []
        for image in given:  # ncnn takes one at a time
            extractor = network.create_extractor()
            extractor.input("in0", ncnn.Mat(image))
            outputs.append(np.array(extractor.extract("out0")[1]))
        return np.stack(outputs)

    return run


def _tvm(path: Path, folder: Path, images: Any, threads: int) -> Run:
    import os

    os.environ["TVM_NUM_THREADS"] = str(threads)
    import onnx
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    module = from_onnx(onnx.load(path), shape_dict={INPUT: list(images.shape)}, keep_params_in_input=False)
    machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())

    def run(given: Any) -> Any:
        result = machine["main"](tvm.runtime.tensor(given))
        return (result if hasattr(result, "numpy") else result[0]).numpy()

    return run


def _reference(path: Path, folder: Path, images: Any, threads: int) -> Run:
    from onnx.reference import ReferenceEvaluator

    evaluator: Any = ReferenceEvaluator(str(path))
    return lambda given: evaluator.run(None, {INPUT: given})[0]


def _torch(path: Path, folder: Path, images: Any, threads: int) -> Run:
    import onnx2torch
    import torch

    torch.set_num_threads(threads)
    module = onnx2torch.convert(str(path)).eval()

    def run(given: Any) -> Any:
        with torch.inference_mode():
            return module(torch.from_numpy(given)).numpy()

    return run


def _converted(words: list[str], result: Path) -> None:
    """Run a converter. RuntimeError with the last that it said where it wrote no `result`."""
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode or not result.exists():
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        ended = f"ended with {done.returncode}" if done.returncode else "wrote nothing"
        raise RuntimeError(f"the converter {ended}: {said[-1] if said else 'no word'}")


BASELINE = "onnxruntime"
READERS = {
    reader.name: reader
    for reader in (
        Reader(BASELINE, ("onnxruntime",), "onnxruntime", _onnxruntime),
        Reader("openvino", ("openvino",), "openvino", _openvino, "precision hint as the file's, compiled for the batch"),
        Reader("opencv", ("cv2",), "opencv-python-headless", _opencv),
        Reader("tract", ("tract",), "tract", _tract),
        Reader("mnn", ("MNN",), "MNN", _mnn, "converted by its library, precision high"),
        Reader("ncnn", ("ncnn", "pnnx"), "ncnn pnnx", _ncnn, "converted by pnnx, fp16 off, one image at a time"),
        Reader("tvm", ("tvm", "tvm_ffi"), "apache-tvm apache-tvm-ffi", _tvm, "compiled for llvm, not tuned"),
        Reader("onnx reference", ("onnx",), "onnx", _reference, "numpy, not made to be fast"),
        Reader("onnx2torch", ("onnx2torch",), "onnx2torch", _torch),
    )
}
