"""What int8 is worth on a CPU: size, time, agreement and accuracy, beside onnxruntime's own quantizer and fp32.

    python -m benchmarks.studies.int8 [--networks us_mobilenet_v1,us_mobilenet_v2,s_resnet50] [--threads 1,2] [--json r.json]
    python -m benchmarks.studies.int8 --ckpt runs/digits/us_mbv1.pt [--widths 0.25,0.5,1.0] [--json results.json]

Without a checkpoint the networks are untrained, calibrated and compared on noise: their speed and size are a trained one's.
With one, it is calibrated on the training digits, compared and tested on the 360 test digits (needs the `digits` extra).
onnxruntime's is `quantize_static` on the same fp32 files and images: QDQ, uint8 activations, int8 weights per channel, by
min-max and by percentile 99.99. Files of one network take turns, one image at a time, in an order drawn for every turn, so
that a drift of the machine meets all of them. OpenVINO runs the same files where it is installed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine.environment import environment
from benchmarks.studies.script import parse, script_parser, write_result
from slimexport.target.precision import EXACT
from slimtrain.base.command import script_messages

NETWORKS = "us_mobilenet_v1,us_mobilenet_v2,s_resnet50,s_shufflenet"
OURS = "int8-cpu"
HELD = 64  # images that files are compared on
TURNS, RUNS = 20, 10
UNTIMED = 4  # of a turn: caches fill, and threads of the run before, which spin for a while, go to sleep
Images = NDArray[np.float32]
Run = Callable[[Images], NDArray[Any]]


def theirs(source: Path, target: Path, images: Images, method: str) -> None:
    """onnxruntime's static quantization of `source`, by `minmax` or `percentile`."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left: Iterator[Images] = (images[i : i + 8] for i in range(0, len(images), 8))

        def get_next(self) -> dict[str, Images] | None:
            batch = next(self.left, None)
            return None if batch is None else {"input": batch}

    prepared = target.with_suffix(".prepared.onnx")
    with contextlib.redirect_stdout(None):  # it tells its steps there, where our table goes
        quant_pre_process(str(source), str(prepared))
        quantize_static(
            str(prepared),
            str(target),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax if method == "minmax" else CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": 99.99} if method == "percentile" else {},
        )


def onnxruntime_run(path: Path, threads: int) -> Run:
    """A file in onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(None, {"input": images})[0])


def openvino_run(path: Path, threads: int) -> Run | None:
    """A file in OpenVINO on the CPU; None where that is not installed."""
    try:
        import openvino
    except ImportError:
        return None
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(path), "CPU", settings)
    return lambda images: np.asarray(compiled(images)[compiled.output(0)])


def timed(openers: Mapping[str, Callable[[], Run]], image: Images, alone: bool = False) -> dict[str, float]:
    """Milliseconds for one image, the median over turns, of runs that take turns in a drawn order: what follows a large
    network starts with empty caches. `alone`: a run is opened for its turn and closed after it, so that no threads of another,
    which spin while they wait, share its cores."""
    samples: dict[str, list[float]] = {name: [] for name in openers}
    runs = {} if alone else {name: opener() for name, opener in openers.items()}
    for run in runs.values():
        run(image)
    order, drawn = list(openers), random.Random(0)  # noqa: S311 (no secret)
    for _ in range(TURNS):
        drawn.shuffle(order)
        for name in order:
            run = openers[name]() if alone else runs[name]
            for _ in range(UNTIMED):
                run(image)
            started = time.perf_counter()
            for _ in range(RUNS):
                run(image)
            samples[name].append(1e3 * (time.perf_counter() - started) / RUNS)
            del run
    return {name: statistics.median(values) for name, values in samples.items()}


def study(files: dict[str, Path], images: Images, threads: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Of each file by its name, fp32 first: bytes, agreement with fp32 on `images`, milliseconds by runtime and threads."""
    from slimexport.onnx_files.calibration import agreement

    logits = {name: np.concatenate([onnxruntime_run(path, 1)(images[i : i + 8]) for i in range(0, len(images), 8)])
              for name, path in files.items()}  # fmt: skip
    rows: dict[str, dict[str, Any]] = {}
    for name, path in files.items():
        near = agreement(logits[name], logits[EXACT])
        rows[name] = {"bytes": os.path.getsize(path)}
        if near is not None:
            rows[name] |= {"cosine": near.cosine, "top1_agreement": near.top1_agreement, "distance": near.logit_distance}
    for runtime, opened in (("onnxruntime", onnxruntime_run), ("openvino", openvino_run)):
        for count in threads:
            if any(opened(path, count) is None for path in files.values()):
                continue
            openers = {name: partial(_opened, opened, path, count) for name, path in files.items()}
            for name, milliseconds in timed(openers, images[:1], alone=count > 1).items():
                rows[name].setdefault("ms", {}).setdefault(runtime, {})[str(count)] = milliseconds
    return rows


def _opened(opened: Callable[[Path, int], Run | None], path: Path, threads: int) -> Run:
    run = opened(path, threads)
    assert run is not None
    return run


def quantized(ckpt: str, width: float | None, source: str, images: Images, folder: Path) -> dict[str, Path]:
    """One width's files: fp32, ours, and onnxruntime's by two methods."""
    from slimexport.exporter import export
    from slimexport.request import CalibrationImages, Proof

    manifest = export(
        ckpt,
        widths=None if width is None else [width],
        precisions=[EXACT, "int8"],
        output_dir=folder / "bundle",
        calibration=CalibrationImages(source),
        proof=Proof(verify=False),
    )
    files = {artifact.precision: folder / "bundle" / artifact.file for artifact in manifest.artifacts}
    chosen = {EXACT: files[EXACT], OURS: files[OURS]}
    for method in ("minmax", "percentile"):
        chosen[f"onnxruntime {method}"] = folder / f"{method}.onnx"
        theirs(files[EXACT], chosen[f"onnxruntime {method}"], images, method)
    return chosen


def networks(names: Sequence[str], threads: Sequence[int]) -> dict[str, Any]:
    """Untrained networks at their widest published width, on noise."""
    from slimtrain.data.noise import noise_images
    from slimtrain.models.published import published_spec

    results = {}
    for name in names:
        images = noise_images(2 * HELD, 224, 5)
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "noise.npy"
            np.save(source, images[:HELD])
            width = max(switch for switch in published_spec(name).switches if switch <= 1)
            files = quantized(f"random:{name}", width, str(source), images[:HELD], Path(folder))
            results[f"{name} {width:g}x"] = study(files, images[HELD:], threads)
    return results


def digits(ckpt: str, widths: Sequence[float], threads: Sequence[int]) -> dict[str, Any]:
    """A checkpoint that was trained on the digits."""
    from slimexport.accuracy import labeled_images, measure
    from slimexport.onnx_files.calibration import calibration_batches
    from slimtrain.checkpoints.checkpoint import open_checkpoint
    from slimtrain.data.catalog import DIGITS
    from slimtrain.data.images import preprocessing_of

    checkpoint = open_checkpoint(ckpt)
    preprocessing = preprocessing_of(checkpoint)
    labeled = labeled_images(DIGITS, checkpoint, preprocessing)
    images = np.concatenate(list(calibration_batches(DIGITS, preprocessing, 64)))
    results = {}
    for width in widths:
        with tempfile.TemporaryDirectory() as folder:
            files = quantized(ckpt, width, DIGITS, images, Path(folder))
            rows = study(files, images[-HELD:], threads)
            accuracies = measure([onnxruntime_run(path, 1) for path in files.values()], labeled)
            for name, accuracy in zip(files, accuracies, strict=True):
                rows[name]["top1"] = accuracy.top1
            results[f"digits {width:g}x"] = rows
    return results


def table(results: dict[str, Any]) -> str:
    """A line per network and file: size and times as shares of fp32's."""
    lines = []
    for network, rows in results.items():
        exact = rows[EXACT]
        lines.append(network)
        for name, row in rows.items():
            cells = [f"{name:>22}", f"size {row['bytes'] / exact['bytes']:.3f}", f"cosine {row['cosine']:.5f}"]
            for runtime, times in row["ms"].items():
                cells += [f"{runtime} {n}t {ms:.2f} ms ({ms / exact['ms'][runtime][n]:.2f})" for n, ms in times.items()]
            if "top1" in row:
                cells.append(f"top-1 {row['top1']:.2%}")
            lines.append("  ".join(cells))
    return "\n".join(lines)


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--ckpt", help="a checkpoint trained on the digits, in place of untrained networks")
    parser.add_argument("--widths", default="0.25,0.5,1.0", help="of the checkpoint (default %(default)s)")
    parser.add_argument("--networks", default=NETWORKS, help="(default %(default)s)")
    parser.add_argument("--threads", default="1,2", help="(default %(default)s)")
    arguments = parse(parser)
    logging.disable(logging.WARNING)
    threads = [int(count) for count in arguments.threads.split(",")]
    with script_messages("int8"):
        if arguments.ckpt:
            command = f"--ckpt {arguments.ckpt} --widths {arguments.widths}"
            results = digits(arguments.ckpt, [float(width) for width in arguments.widths.split(",")], threads)
        else:
            command = f"--networks {arguments.networks}"
            results = networks(arguments.networks.split(","), threads)
    print(table(results))
    run = f"python -m benchmarks.studies.int8 {command} --threads {arguments.threads}"
    write_result(arguments.json, {"command": run, "environment": environment(), "results": results})


if __name__ == "__main__":
    main()
