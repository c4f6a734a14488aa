"""One network's files: fp32, ours, and those that onnxruntime's own quantizer makes of the fp32 file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimexport.target.precision import EXACT

Images = NDArray[np.float32]
OURS = "int8-cpu"
BATCH = 8  # of calibration images


@dataclass(frozen=True)
class Quantizer:
    """A way to ask for `quantize_static`: whether pairs stand around float operators (QDQ) or integer operators are written
    out, the type of activations, how ranges are taken. Weights are int8, per channel where that is possible."""

    pairs: bool = True
    unsigned: bool = True
    percentile: bool = False


THEIRS = {
    "QDQ U8S8 min-max": Quantizer(),
    "QDQ U8S8 99.99 %": Quantizer(percentile=True),
    "QDQ S8S8 min-max": Quantizer(unsigned=False),
    "QOperator U8S8 min-max": Quantizer(pairs=False),
}


def theirs(source: Path, target: Path, images: Images, quantizer: Quantizer) -> None:
    """onnxruntime's static quantization of `source`, which it prepares first, as its documentation says."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            batches = np.split(images[: len(images) // BATCH * BATCH], len(images) // BATCH)  # it wants them all alike
            self.left: Iterator[Images] = iter(batches)

        def get_next(self) -> dict[str, Images] | None:
            batch = next(self.left, None)
            return None if batch is None else {"input": batch}

    prepared = target.with_suffix(".prepared.onnx")
    options: dict[str, Any] = {"CalibPercentile": 99.99} if quantizer.percentile else {}
    with contextlib.redirect_stdout(None):  # it tells its steps there, where our table goes
        if not prepared.exists():
            quant_pre_process(str(source), str(prepared))
        quantize_static(
            str(prepared),
            str(target),
            Reader(),
            quant_format=QuantFormat.QDQ if quantizer.pairs else QuantFormat.QOperator,
            per_channel=True,
            activation_type=QuantType.QUInt8 if quantizer.unsigned else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile if quantizer.percentile else CalibrationMethod.MinMax,
            extra_options=options,
        )


def files_of(ckpt: Any, width: float | None, source: str, images: Images, folder: Path) -> dict[str, Path]:
    """One width's files by name, fp32 first. `source`: what ours are calibrated on, `images`: the same for theirs."""
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
    for name, quantizer in THEIRS.items():
        files[name] = folder / f"{name.replace(' ', '_').replace('%', 'percent')}.onnx"
        theirs(files[EXACT], files[name], images, quantizer)
    return files


def kernels(path: Path) -> Mapping[str, int]:
    """How often onnxruntime runs each operator of a file once it has optimized it."""
    from collections import Counter

    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    optimized = path.with_suffix(".optimized.onnx")
    options.optimized_model_filepath = str(optimized)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    counted = Counter(node.op_type for node in onnx.load(optimized, load_external_data=False).graph.node)
    optimized.unlink()
    return dict(counted.most_common())
