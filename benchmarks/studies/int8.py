"""What int8 costs in accuracy, beside onnxruntime's own quantizer on the same networks and images.

    python -m benchmarks.studies.int8 --ckpt runs/digits/us_mbv1.pt [--widths 0.25,0.5,1.0] [--json results.json]

Both quantize the same fp32 ONNX files, calibrated on the same training digits, and every file is run on the 360 test
digits in onnxruntime on the CPU. onnxruntime's is `quantize_static` with the settings that correspond to ours: QDQ,
symmetric int8, per-channel weights, by min-max and by percentile 99.99. Needs the `digits` extra.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine.environment import environment
from benchmarks.studies.script import parse, script_parser, write_result
from slimtrain.base.command import script_messages

CALIBRATION_IMAGES = 512


def theirs(source: Path, target: Path, images: list[NDArray[np.float32]], method: str) -> None:
    """onnxruntime's static quantization of `source`, by `minmax` or `percentile`."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left: Iterator[NDArray[np.float32]] = iter(images)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(self.left, None)
            return None if batch is None else {"input": batch}

    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(str(source), str(prepared))
    chosen = CalibrationMethod.MinMax if method == "minmax" else CalibrationMethod.Percentile
    options: dict[str, Any] = {"ActivationSymmetric": True, "WeightSymmetric": True}
    if method == "percentile":
        options["CalibPercentile"] = 99.99
    quantize_static(
        str(prepared),
        str(target),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=chosen,
        extra_options=options,
    )


def compare(ckpt: str, widths: list[float]) -> dict[str, Any]:
    """Top-1 of every way, in plain values."""
    from slimexport.accuracy import labeled_images, measure
    from slimexport.exporter import export
    from slimexport.onnx_files.calibration import calibration_batches
    from slimexport.request import CalibrationImages, Proof
    from slimexport.target.runners import OnnxRuntimeRunner
    from slimtrain.checkpoints.checkpoint import open_checkpoint
    from slimtrain.data.catalog import DIGITS
    from slimtrain.data.images import preprocessing_of

    checkpoint = open_checkpoint(ckpt)
    preprocessing = preprocessing_of(checkpoint)
    batches = list(calibration_batches(DIGITS, preprocessing, 64))
    images = list(np.concatenate(batches)[:CALIBRATION_IMAGES].reshape(-1, 64, *batches[0].shape[1:]))
    labeled = labeled_images(DIGITS, checkpoint, preprocessing)
    top1: dict[str, dict[str, float | str]] = {}

    def accuracy(run: Callable[[Any], Any]) -> float:
        return measure([run], labeled)[0].top1

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = export(
            ckpt,
            widths=widths,
            precisions=["fp32", "int8"],
            output_dir=folder / "bundle",
            calibration=CalibrationImages(DIGITS),
            proof=Proof(accuracy_data=DIGITS),
        )
        for artifact in manifest.artifacts:
            assert artifact.accuracy is not None
            row = top1.setdefault(str(artifact.width), {})
            row[artifact.precision] = artifact.accuracy.top1
            if artifact.precision == "fp32":
                for method in ("minmax", "percentile"):
                    target = folder / f"{artifact.name}.{method}.onnx"
                    theirs(folder / "bundle" / artifact.file, target, images, method)
                    row[f"onnxruntime {method}"] = accuracy(OnnxRuntimeRunner(target))
            elif artifact.precision == "int8":
                assert artifact.int8 is not None
                row["method"] = artifact.int8.method
    return {
        "command": f"python -m benchmarks.studies.int8 --ckpt {ckpt} --widths {','.join(map(str, widths))}",
        "environment": environment(),
        "checkpoint_sha256": checkpoint.sha256,
        "top1": top1,
    }


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--ckpt", required=True, help="a checkpoint trained on the digits")
    parser.add_argument("--widths", default="0.25,0.5,1.0")
    arguments = parse(parser)
    logging.disable(logging.WARNING)
    with script_messages("int8"):
        result = compare(arguments.ckpt, [float(width) for width in arguments.widths.split(",")])
    for width, row in result["top1"].items():
        shown = "  ".join(f"{way} {value:.2%}" if isinstance(value, float) else f"({value})" for way, value in row.items())
        print(f"{width:>5}  {shown}")
    write_result(arguments.json, result)


if __name__ == "__main__":
    main()
