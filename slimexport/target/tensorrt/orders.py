"""Which engines are to be built from a bundle, from which of its ONNX files, and what their entries begin with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slimexport.target.backends import ONNX, TRT
from slimexport.target.errors import BundleError
from slimexport.target.manifest import Artifact, Manifest
from slimexport.target.precision import OPTIONS, PRECISIONS, check_option, row_of
from slimexport.target.tensorrt.api import Emission, emission

SHOWN = 3  # networks that a message names


@dataclass(frozen=True)
class Order:
    """One engine to build: from which ONNX artifact, and how."""

    source: Artifact
    emission: Emission

    @property
    def file(self) -> str:
        """`NAME.plan` for fp32, `NAME.fp16.plan` and so on."""
        return f"{self.source.name}{PRECISIONS[self.emission.precision].infix}.plan"


def orders(
    bundle: Path, manifest: Manifest, trt: Any, widths: Sequence[float | str] | None, precisions: Sequence[str]
) -> list[Order]:
    """What is to be built: every network of the bundle, or those of `widths` (switch numbers for AutoSlim; names), in every
    precision. BundleError where the bundle lacks a width or an ONNX file, UserError for an unknown precision, MissingBackend
    for one that this TensorRT has not."""
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
    files = {(artifact.name, artifact.precision): artifact for artifact in sources}
    for wanted in emissions:
        if lacking := [name for name in networks if (name, wanted.onnx) not in files]:
            raise BundleError(_lacks(bundle, manifest, trt, wanted, lacking))
    return [Order(files[name, wanted.onnx], wanted) for name in networks for wanted in emissions]


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
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return (
        f"{bundle}: lacks the {wanted.onnx} ONNX file of {shown}, which TensorRT {trt.__version__} needs for "
        f"{wanted.precision} engines. Where the checkpoint is: {command} --output-dir {bundle} --overwrite"
    )


def entry_of(order: Order) -> Artifact:
    """An engine's entry as far as it is its ONNX file's."""
    return replace(
        order.source,
        format=TRT,
        precision=order.emission.precision,
        file=order.file,
        sha256=None,
        size_bytes=0,
        accuracy=None,
        engine=None,
    )
