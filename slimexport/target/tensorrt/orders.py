"""Which engines are to be built from a bundle, from which of its ONNX files, and what their entries begin with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slimexport.target.backends import ONNX
from slimexport.target.cuda.device import GpuDevice
from slimexport.target.errors import BundleError, MissingBackend
from slimexport.target.manifest import Artifact, Manifest
from slimexport.target.precision import OPTIONS, PRECISIONS, TRT_8, TRT_10, check_option, row_of
from slimexport.target.proof.detector_verdict import is_tensorrt_s
from slimexport.target.tensorrt.api import EFFICIENT_NMS, Emission, emission, has_efficient_nms
from slimexport.target.tensorrt.libraries import Library, library_of, titled
from slimtrain.base.image_size import format_size

SHOWN = 3  # networks that a message names


@dataclass(frozen=True)
class Order:
    """One engine to build: from which ONNX artifact, how, and by what."""

    source: Artifact
    emission: Emission
    library: Library

    @property
    def file(self) -> str:
        """`NAME.plan` for fp32, `NAME.fp16.plan`, `NAME.fp16.rtx.plan` and so on."""
        return f"{self.source.name}{PRECISIONS[self.emission.precision].infix}{self.library.suffix}"


def orders(
    bundle: Path, manifest: Manifest, trt: Any, widths: Sequence[float | str] | None, precisions: Sequence[str]
) -> list[Order]:
    """What is to be built: every network of the bundle, or those of `widths` (switch numbers for AutoSlim; names), in every
    precision. BundleError where the bundle lacks a width or an ONNX file, UserError for an unknown precision, MissingBackend
    for one that this TensorRT has not, as for a plugin that files end in."""
    for precision in precisions:
        check_option(precision, engines=True)
    emissions = [emission(trt, precision) for precision in dict.fromkeys(precisions)]
    sources = manifest.of_format(ONNX)
    networks = {artifact.name: artifact.width for artifact in sources}
    if widths is not None:
        known = {value for pair in networks.items() for value in pair if value is not None}
        if missing := [str(width) for width in widths if width not in known]:
            there = ", ".join(name if width is None else str(width) for name, width in networks.items()) or "nothing"
            raise BundleError(f"{bundle}: holds no {', '.join(missing)}. Choose from {there}, or export again.")
        networks = {name: width for name, width in networks.items() if width in widths or name in widths}
    if not networks:
        raise BundleError(f"{bundle}: its manifest names no ONNX file, so there is nothing to build. Export again.")
    if is_tensorrt_s(manifest.detector) and not has_efficient_nms(trt):
        raise MissingBackend(
            f"{bundle}: its files end in {EFFICIENT_NMS}, a plugin of TensorRT 8 and 10, which {titled(trt)} lacks. Export "
            "with --nms fixed, or build with one of those."
        )
    files = {(artifact.name, artifact.precision): artifact for artifact in sources}
    for wanted in emissions:
        if lacking := [name for name in networks if (name, wanted.onnx) not in files]:
            raise BundleError(_lacks(bundle, manifest, trt, wanted, lacking))
    library = library_of(trt)
    return [Order(files[name, wanted.onnx], wanted, library) for name in networks for wanted in emissions]


def _lacks(bundle: Path, manifest: Manifest, trt: Any, wanted: Emission, names: list[str]) -> str:
    """Which ONNX files an engine needs, and the command that exports them beside those that the bundle has."""
    source = manifest.source
    sources = manifest.of_format(ONNX)
    files = {wanted.onnx, *(artifact.precision for artifact in sources)}
    rows = [row_of(file) for file in files]
    exported = [option for option in OPTIONS if option in {row.option for row in rows}]
    widths = list(dict.fromkeys(artifact.width for artifact in sources))
    command = f"slimexport --ckpt {source.file}"
    if None not in widths:
        command += f" --widths {','.join(map(str, widths))}"
    command += f" --precision {','.join(exported)}"
    if any(row.calibrated for row in rows):
        command += " --calibration-data FOLDER"
    if not manifest.input.shape:  # the checkpoint's own size may be another
        command += f" --image-size {format_size(manifest.input.image_size)}"
    others = [row.name for row in rows if row.calibrated and TRT_8 not in row.made_for and TRT_10 not in row.made_for]
    unfit = f" (its {others[0]} files are for CPUs)" if others and row_of(wanted.onnx).calibrated else ""
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return (
        f"{bundle}: lacks the {wanted.onnx} ONNX file of {shown}, which {titled(trt)} needs for "
        f"{wanted.precision} engines{unfit}. Where the checkpoint is: {command} --output-dir {bundle} --overwrite"
    )


def of_gpu(device: GpuDevice | None) -> dict[str, Any]:
    """What an engine's record says of the GPU that runs it, and of its software; null where there is none."""
    names = ("cuda", "driver", "driver_cuda", "gpu", "compute_capability")
    return {name: None if device is None else getattr(device, name) for name in names}


def entry_of(order: Order) -> Artifact:
    """An engine's entry as far as it is its ONNX file's."""
    return replace(
        order.source,
        format=order.library.form,
        precision=order.emission.precision,
        file=order.file,
        sha256=None,
        size_bytes=0,
        accuracy=None,
        engine=None,
    )
