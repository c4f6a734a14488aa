"""The command's options, grouped by what they are about: each group's flags, and the value that they stand for. No torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

import click

from slimexport.detectors.options import DetectorOptions, detector_options
from slimexport.onnx_files.methods import AUTO, INT8_IMAGES, check_method
from slimexport.onnx_files.weight_bits import check_bits
from slimexport.request import (
    CALIBRATION_BATCH_SIZE,
    CALIBRATION_IMAGES,
    MOST_PROBES,
    PROBES,
    CalibrationImages,
    Proof,
    Reading,
)
from slimexport.serving.options import ServingOptions, serving_options
from slimexport.target.backends import BACKENDS, DEFAULT, ENGINES, FORMATS, ONNX, TRT_RTX
from slimexport.target.precision import EVERY_TARGET, EXACT, OPTIONS, check_int8_target, files_of
from slimexport.target.tensorrt.build_settings import BatchRange, BuildSettings, parse_batch, parse_targets
from slimtrain.base.errors import UserError, nearest
from slimtrain.base.image_size import ImageSize, as_image_size
from slimtrain.base.options import ALL, parse_macs, parse_widths
from slimtrain.data.class_names import IMAGENET, read_class_names
from slimtrain.models.published import RANDOM, random_spec
from slimtrain.models.registry import split_name

F = TypeVar("F", bound=Callable[..., Any])


def choices(text: str, known: Sequence[str], what: str) -> list[str]:
    """A comma-separated list of known names, each once; UserError with the nearest one otherwise."""
    names = [name.strip().lower() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UserError(f"{what} {name!r}: not known{nearest(name, known)}. Available: {', '.join(known)}.")
    return list(dict.fromkeys(names))


def group(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in this order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


all_options = group(
    # what is exported, or worked on
    click.option(
        "--ckpt", metavar="PATH", help="Checkpoint (.pt, .pt.zip, .safetensors), or random:NETWORK, an untrained one."
    ),
    click.option(
        "--bundle",
        metavar="DIR",
        help="A bundle: build its engines (--format trt, trt-rtx), verify it, serve it; needs no torch.",
    ),
    # what is done with a bundle
    click.option("--verify-only", is_flag=True, help="With --bundle: run its files against its reference.npz."),
    click.option(
        "--backend",
        metavar="NAME",
        help=f"What verifies a bundle, predicts or serves: {', '.join(BACKENDS)}.  [default: {DEFAULT}]",
    ),
    click.option(
        "--predict",
        metavar="IMAGE...",
        multiple=True,
        help="With --bundle: what every width says of photographs, and in how many milliseconds.",
    ),
    click.argument("images", nargs=-1, metavar=""),
    click.option("--triton", metavar="DIR", help="With --bundle: write a model repository for Triton Inference Server."),
    *serving_options,
    # which plans
    click.option(
        "--widths", metavar="LIST", help="0.5,1.0 or 0.25:1.0:0.05 or all; switch numbers for AutoSlim.  [default: all]"
    ),
    click.option(
        "--macs", metavar="LIST", help="Budgets, as in 150M,300M: for each the widest width that fits.  [default: none]"
    ),
    click.option(
        "--channels",
        metavar="FILE",
        multiple=True,
        help="A plan file: YAML, channel group to channels. Repeatable.  [default: none]",
    ),
    # as which files, and where
    click.option(
        "--format",
        "formats",
        metavar="LIST",
        default=ONNX,
        help=f"File formats: {', '.join(FORMATS)}. TensorRT's engines (trt) are built on the GPU that runs them, those of "
        "TensorRT-RTX (trt-rtx) anywhere, to be verified where they run.",
    ),
    click.option(
        "--precision",
        metavar="LIST",
        default=EXACT,
        help=f"Number formats: {', '.join(name if files_of(name) else f'{name} (engines)' for name in OPTIONS)}.",
    ),
    click.option("--output-dir", metavar="DIR", help="Where the bundle goes.  [default: exports/NETWORK]"),
    click.option("--overwrite", is_flag=True, help="Replace a bundle that is there."),
    click.option(
        "--image-size",
        metavar="SIZE",
        help="Pixels a side, or height and width as in 256x192.  [default: the checkpoint's, or 224]",
    ),
    *detector_options,
    # calibration
    click.option(
        "--calibration-data",
        metavar="PATH",
        help="Images for widths without batch-norm statistics, and int8: a folder, .npy, .npz or `digits`, of detectors "
        "`scenes`.  [default: none]",
    ),
    click.option(
        "--int8-calibration",
        metavar="METHOD",
        default=AUTO,
        help="Ranges for int8: max, percentile or auto.",
    ),
    click.option(
        "--int8-target",
        metavar="TARGET",
        default=EVERY_TARGET,
        help="Which int8 files are written: cpu (onnxruntime and OpenVINO on CPUs), tensorrt, or all.",
    ),
    click.option(
        "--int8-weight-bits",
        metavar="BITS",
        default=AUTO,
        help="Of int8 files for CPUs: 8, 7 for x86 without VNNI, or auto, by this machine's CPU.",
    ),
    click.option(
        "--calibration-batch-size",
        type=click.IntRange(1),
        default=CALIBRATION_BATCH_SIZE,
        metavar="N",
        help="Images per batch of it.",
    ),
    click.option(
        "--calibration-images",
        type=click.IntRange(1),
        metavar="N",
        help=f"Images to calibrate on, of every class folder alike.  [default: {CALIBRATION_IMAGES}; int8: {INT8_IMAGES}]",
    ),
    # proof
    click.option(
        "--verify-data",
        metavar="PATH",
        help="Images to verify with: a folder, .npy, .npz or `digits`.  [default: the checkpoint's, or noise; of detectors "
        "`scenes`]",
    ),
    click.option(
        "--probes",
        type=click.IntRange(2, 256),
        metavar="N",
        help=f"Images to verify with.  [default: {PROBES}, and up to {MOST_PROBES} where channels stand still on fewer]",
    ),
    click.option(
        "--accuracy-data",
        metavar="DATA",
        help="Labeled images to test the files on: class folders, or `digits`; of detectors a folder in COCO's form, or "
        "`scenes`.  [default: none]",
    ),
    click.option(
        "--workers",
        type=click.IntRange(0),
        metavar="N",
        help="Processes that load the images of --accuracy-data.  [default: up to 4]",
    ),
    click.option("--no-verify", is_flag=True, help="Write files without proof that they are right."),
    # engines
    click.option("--batch", metavar="MIN:OPT:MAX", default=str(BatchRange()), help="Images per call of an engine."),
    click.option("--opt-level", type=int, metavar="N", default=3, help="TensorRT's effort, 0 to 5."),
    click.option(
        "--targets",
        metavar="LIST",
        help="GPUs that trt-rtx engines are for, by compute capability, as in 8.6,12.0.  [default: all from 8.0 on]",
    ),
    click.option("--workspace", type=int, metavar="MIB", help="Limit of an engine's scratch memory.  [default: the GPU's]"),
    click.option("--aux-streams", type=int, metavar="N", help="Auxiliary streams of an engine.  [default: TensorRT's choice]"),
    click.option("--version-compatible", is_flag=True, help="Engines that later TensorRT versions load; slower."),
    click.option("--hardware-compatible", is_flag=True, help="Engines that every GPU from Ampere on loads; slower."),
    # what the checkpoint is
    click.option("--network", metavar="NAME", help="What the checkpoint holds.  [default: as its shapes tell]"),
    click.option("--switches", metavar="LIST", help="Its switches or widths, in stored order.  [default: as its shapes tell]"),
    click.option("--config", metavar="FILE", help="The published apps/NAME.yml it was trained with.  [default: none]"),
    click.option(
        "--class-names",
        metavar="FILE",
        help="Names of its classes, one per line or a JSON list, or `imagenet`.  [default: the checkpoint's own]",
    ),
    click.option(
        "--weights",
        metavar="KEY",
        help="Of several sets of weights in it: model, ema, or a dotted key.  [default: as trained, before averages]",
    ),
    click.option(
        "--exif-orientation/--no-exif-orientation",
        default=None,
        help="Turn photographs as their EXIF says.  [default: as in training, where the checkpoint tells; else not]",
    ),
    # what is printed
    click.option("--dry-run", is_flag=True, help="Print the table without writing anything."),
    click.option("--json", "as_json", is_flag=True, help="Print the manifest instead of the table."),
    click.option("--env", is_flag=True, help="Print versions and providers, and nothing else."),
)


@dataclass(frozen=True)
class CommandOptions(ServingOptions, DetectorOptions):
    """The options as click gives them, under their own names, and as properties what groups of them stand for.

    Properties raise UserError for what cannot be, in the words of the command.
    """

    ckpt: str | None
    bundle: str | None
    verify_only: bool
    backend: str | None
    predict: tuple[str, ...]
    images: tuple[str, ...]
    triton: str | None
    widths: str | None
    macs: str | None
    channels: tuple[str, ...]
    formats: str
    precision: str
    output_dir: str | None
    overwrite: bool
    image_size: str | None
    calibration_data: str | None
    int8_calibration: str
    int8_target: str
    int8_weight_bits: str
    calibration_batch_size: int
    calibration_images: int | None
    verify_data: str | None
    probes: int | None
    accuracy_data: str | None
    workers: int | None
    no_verify: bool
    batch: str
    opt_level: int
    targets: str | None
    workspace: int | None
    aux_streams: int | None
    version_compatible: bool
    hardware_compatible: bool
    network: str | None
    switches: str | None
    config: str | None
    exif_orientation: bool | None
    class_names: str | None
    weights: str | None
    dry_run: bool
    as_json: bool
    env: bool

    @cached_property
    def chosen_formats(self) -> list[str]:
        return choices(self.formats, FORMATS, "format")

    @cached_property
    def engine_formats(self) -> list[str]:
        """The formats that are built from ONNX files."""
        return [form for form in self.chosen_formats if form in ENGINES]

    @cached_property
    def precisions(self) -> list[str]:
        return choices(self.precision, OPTIONS, "precision")

    @cached_property
    def verifier(self) -> str | None:
        """What a bundle is verified by, if it is to be; --predict, --serve and --adaptive have a --backend of their own."""
        if not (self.verify_only or (self.backend and not (self.predict or self.serve or self.adaptive))):
            return None
        return choices(self.backend or DEFAULT, tuple(BACKENDS), "backend")[0]

    @cached_property
    def predictor(self) -> str:
        """What runs the files of a bundle for --predict."""
        return choices(self.backend or DEFAULT, tuple(BACKENDS), "backend")[0]

    @cached_property
    def chosen_widths(self) -> list[float] | Literal["all"] | None:
        return None if self.widths is None else parse_widths(self.widths) or ALL

    @cached_property
    def engine_widths(self) -> list[float] | None:
        """The widths that engines are built of; None: all."""
        return parse_widths(self.widths) if self.widths else None

    @cached_property
    def budgets(self) -> list[int]:
        return [] if self.macs is None else parse_macs(self.macs)

    @cached_property
    def reading(self) -> Reading:
        """How the checkpoint is read; what can be told of it before torch is loaded is told here."""
        switches = None if self.switches is None else parse_widths(self.switches)
        if self.switches is not None and switches is None:
            raise UserError("--switches: expected widths, as in 0.25,0.5,1.0.")
        _ = self.size
        if self.network is not None:
            split_name(self.network)
        checkpoint = self.ckpt or ""
        if checkpoint.startswith(RANDOM):
            if self.network or self.config or self.switches or self.weights:
                raise click.UsageError(
                    "random:NETWORK says all there is to say: --network, --switches, --config and --weights are for files."
                )
            random_spec(checkpoint)
        elif not os.path.exists(checkpoint):
            raise UserError(f"{checkpoint}: no such file. Give the path of a checkpoint, or random:NETWORK.")
        if self.class_names not in (None, IMAGENET):
            read_class_names(str(self.class_names))
        return Reading(self.network, switches, self.config, self.exif_orientation, self.class_names, self.weights)

    @cached_property
    def size(self) -> ImageSize | None:
        """The size of the images; None: the checkpoint's."""
        try:
            return None if self.image_size is None else as_image_size(self.image_size)
        except ValueError as error:
            raise UserError(f"--image-size: {error}.") from error

    @cached_property
    def calibration(self) -> CalibrationImages | None:
        check_method(self.int8_calibration)
        check_bits(self.int8_weight_bits)
        check_int8_target(self.int8_target)
        if self.calibration_data is None:
            return None
        return CalibrationImages(
            self.calibration_data,
            self.calibration_batch_size,
            self.int8_calibration,
            self.int8_weight_bits,
            self.calibration_images,
            self.int8_target,
        )

    def check(self) -> None:
        """Read what an export is asked for: a mistake is told before anything is loaded."""
        _ = self.chosen_widths, self.budgets, self.reading, self.calibration, self.detecting

    @cached_property
    def proof(self) -> Proof:
        return Proof(not self.no_verify, self.verify_data, self.probes, self.accuracy_data, self.workers)

    @cached_property
    def build_settings(self) -> BuildSettings:
        if self.targets is not None and self.engine_formats != [TRT_RTX]:
            raise click.UsageError("--targets goes with --format trt-rtx alone: trt builds for the GPU of this machine.")
        if TRT_RTX in self.engine_formats and (self.version_compatible or self.hardware_compatible):
            raise click.UsageError(
                "--version-compatible and --hardware-compatible are for --format trt: trt-rtx engines run on all GPUs that "
                "--targets names, from Ampere on by default, with the TensorRT-RTX that built them."
            )
        return BuildSettings(
            batch=parse_batch(self.batch),
            workspace_bytes=None if self.workspace is None else self.workspace * 2**20,
            optimization_level=self.opt_level,
            aux_streams=self.aux_streams,
            version_compatible=self.version_compatible,
            hardware_compatible=self.hardware_compatible,
            targets=() if self.targets is None else parse_targets(self.targets),
        )
