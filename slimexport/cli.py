"""The `slimexport` command: parse, call, print. torch is imported only once the options are known to be right."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from slimexport import __version__
from slimexport.target.precision import EXACT, OPTIONS, files_of, needed_for, row_of
from slimtrain.base.command import CONTEXT, messages
from slimtrain.base.errors import ResourceError, UserError, nearest
from slimtrain.base.options import ALL, parse_macs, parse_widths
from slimtrain.models.published import published_spec
from slimtrain.models.registry import split_name

if TYPE_CHECKING:
    from slimexport.target.manifest import Entry, Manifest

PROGRAM = "slimexport"
FORMATS = ("onnx", "trt")
BACKENDS = ("onnxruntime-cpu", "onnxruntime-cuda", "tensorrt")


def choices(text: str, known: tuple[str, ...], what: str) -> list[str]:
    """A comma-separated list of known names; UserError with the nearest one otherwise."""
    names = [name.strip().lower() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UserError(f"{what} {name!r}: not known{nearest(name, known)}. Available: {', '.join(known)}.")
    return names


@click.command(context_settings=CONTEXT)
@click.version_option(__version__, message="slimexport %(version)s")
@click.option("--ckpt", metavar="PATH", help="Checkpoint (.pt, .pt.zip, .safetensors), or random:NETWORK, an untrained one.")
@click.option(
    "--bundle", metavar="DIR", help="A bundle: build its engines (--format trt), verify it, serve it; needs no torch."
)
@click.option("--verify-only", is_flag=True, help="With --bundle: run its files against its reference.npz.")
@click.option("--backend", metavar="NAME", help="What verifies a bundle: onnxruntime-cpu, onnxruntime-cuda or tensorrt.")
@click.option("--triton", metavar="DIR", help="With --bundle: write a model repository for Triton Inference Server.")
@click.option("--widths", metavar="LIST", help="0.5,1.0 or 0.25:1.0:0.05 or all; switch numbers for AutoSlim.  [default: all]")
@click.option("--macs", metavar="LIST", help="Budgets, as in 150M,300M: for each the widest width that fits.")
@click.option("--channels", metavar="FILE", multiple=True, help="A plan file: YAML, channel group to channels. Repeatable.")
@click.option("--format", "formats", metavar="LIST", default="onnx", show_default=True, help="File formats: onnx, trt.")
@click.option(
    "--precision",
    metavar="LIST",
    default=EXACT,
    show_default=True,
    help=f"Number formats: {', '.join(name if files_of(name) else f'{name} (engines)' for name in OPTIONS)}.",
)
@click.option("--output-dir", metavar="DIR", help="Where the bundle goes.  [default: exports/NETWORK]")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is there.")
@click.option(
    "--image-size",
    type=int,
    metavar="PIXELS",
    help="Side of the images.  [default: 224]",
)
@click.option(
    "--calibration-data",
    metavar="PATH",
    help="Images for widths without batch-norm statistics, and for int8: a folder, .npy, .npz or `digits`.",
)
@click.option(
    "--int8-calibration", metavar="METHOD", default="auto", show_default=True, help="Ranges for int8: max, percentile or auto."
)
@click.option("--calibration-batch-size", type=click.IntRange(1), default=64, show_default=True, metavar="N")
@click.option("--verify-data", metavar="FOLDER", help="Photographs to verify with, in place of noise.")
@click.option(
    "--probes", type=click.IntRange(2, 256), default=2, show_default=True, metavar="N", help="Images to verify with."
)
@click.option("--accuracy-data", metavar="DATA", help="Labeled images to test the files on: class folders, or `digits`.")
@click.option("--no-verify", is_flag=True, help="Write files without proof that they are right.")
@click.option("--batch", metavar="MIN:OPT:MAX", default="1:8:32", show_default=True, help="Images per call of an engine.")
@click.option("--opt-level", type=int, metavar="N", default=3, show_default=True, help="TensorRT's effort, 0 to 5.")
@click.option("--workspace", type=int, metavar="MIB", help="Limit of an engine's scratch memory.  [default: the GPU's]")
@click.option("--aux-streams", type=int, metavar="N", help="Auxiliary streams of an engine.  [default: TensorRT's choice]")
@click.option("--version-compatible", is_flag=True, help="Engines that later TensorRT versions load; slower.")
@click.option("--hardware-compatible", is_flag=True, help="Engines that every GPU from Ampere on loads; slower.")
@click.option("--network", metavar="NAME", help="What the checkpoint holds, where its shapes do not tell.")
@click.option("--switches", metavar="LIST", help="Its switches or widths, in stored order, where its shapes do not tell.")
@click.option("--config", metavar="FILE", help="The published apps/NAME.yml it was trained with.")
@click.option("--dry-run", is_flag=True, help="Print the table without writing anything.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest instead of the table.")
@click.option("--env", is_flag=True, help="Print versions and providers, and nothing else.")
def main(**options: Any) -> None:
    """Export widths of a slimmable network as small, verified ONNX networks and TensorRT engines.

    \b
      slimexport --ckpt us_mbv1.pt --widths 0.5,1.0
      slimexport --ckpt us_mbv1.pt --widths 0.33 --calibration-data train/
      slimexport --ckpt random:us_mobilenet_v1 --widths all --dry-run
      slimexport --ckpt us_mbv1.pt --widths 0.5,1.0 --format trt --precision fp16
      slimexport --bundle exports/us_mobilenet_v1 --format trt

    Exit codes: 0 done; 1 a verification failed, or no width meets a budget; 2 usage or bad input; 3 the environment
    lacks something.
    """
    kept = "what was finished is kept, nothing is half-written" if options["bundle"] else "nothing was written"
    if "trt" in options["formats"] and not options["bundle"]:
        kept = "the ONNX files and engines that were finished are kept"
    with messages(PROGRAM, f"interrupted, {kept}."):
        _run(**options)


ENGINE_OPTIONS = ("batch", "opt_level", "workspace", "aux_streams", "version_compatible", "hardware_compatible")


def _run(
    *,
    env: bool,
    bundle: str | None,
    verify_only: bool,
    backend: str | None,
    triton: str | None,
    ckpt: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    if env:
        from slimexport.environment import describe

        click.echo(describe())
        return
    formats = choices(options.pop("formats"), FORMATS, "format")
    precisions = list(dict.fromkeys(choices(options.pop("precision"), OPTIONS, "precision")))
    engines = Engines(precisions, {key: options.pop(key) for key in ENGINE_OPTIONS})
    if bundle:
        if ckpt:
            raise click.UsageError("give --ckpt or --bundle, not both.")
        _bundle(Path(bundle), as_json, verify_only, backend, triton, engines if "trt" in formats else None, options)
        return
    if not ckpt:
        raise click.UsageError("give a checkpoint: --ckpt PATH, or --ckpt random:us_mobilenet_v1 to try it out.")
    if verify_only or backend:
        raise click.UsageError("--verify-only and --backend go with --bundle; a new export is verified anyway.")
    if triton:
        raise click.UsageError("--triton goes with --bundle: export first, then write the repository from the bundle.")
    if "trt" not in formats:
        if ways := [name for name in precisions if not files_of(name)]:
            raise UserError(f"precision {ways[0]}: is a way to compute, not to store; it is for engines: add --format trt.")
        _export(ckpt, as_json, precisions=precisions, **options)
        return
    engines.settings()  # a wrong option is told before anything is written
    files = list(dict.fromkeys([EXACT, *(file for precision in precisions for file in needed_for(precision))]))
    folder = _export(ckpt, as_json, precisions=files, **options)
    if folder is not None:
        engines.build(folder, None, as_json)


@dataclass(frozen=True)
class Engines:
    """What the command line says about engines."""

    precisions: list[str]
    options: dict[str, Any]

    def settings(self) -> Any:
        """The build settings; BundleError for impossible ones."""
        from slimexport.target.tensorrt.build_settings import BuildSettings, parse_batch

        options = self.options
        return BuildSettings(
            batch=parse_batch(options["batch"]),
            workspace_bytes=None if options["workspace"] is None else options["workspace"] * 2**20,
            optimization_level=options["opt_level"],
            aux_streams=options["aux_streams"],
            version_compatible=options["version_compatible"],
            hardware_compatible=options["hardware_compatible"],
        )

    def build(self, folder: Path, widths: list[float] | None, as_json: bool) -> None:
        """Build and verify a bundle's engines, and print them."""
        from slimexport.report import table
        from slimexport.target.manifest import TRT
        from slimexport.target.tensorrt.engines import EnginesFailed, build_engines

        def building(file: str) -> None:
            click.echo(f"building {file}", err=True)

        def finished(entry: Entry) -> None:
            seconds = entry.engine.build_seconds if entry.engine else 0
            click.echo(f"{entry.verification.status}, {seconds:.1f} s", err=True)

        try:
            manifest = build_engines(
                folder,
                widths=widths,
                precisions=self.precisions,
                settings=self.settings(),
                building=building,
                finished=finished,
            )
        except EnginesFailed as error:
            _print(error.manifest, as_json)
            raise
        except ResourceError as error:
            command = f"slimexport --bundle {folder} --format trt --precision {','.join(self.precisions)}"
            raise ResourceError(f"{error}\nOn the machine that is to run the engines: {command}") from error
        if as_json:
            _print(manifest, as_json)
        else:
            click.echo(table(manifest.of_format(TRT)))


def _bundle(
    folder: Path,
    as_json: bool,
    verify_only: bool,
    backend: str | None,
    triton: str | None,
    engines: Engines | None,
    options: dict[str, Any],
) -> None:
    """What can be done with a bundle, without torch."""
    if verify_only or backend:
        _verify_bundle(folder, as_json, choices(backend or BACKENDS[0], BACKENDS, "backend")[0])
    if engines is not None:
        widths = parse_widths(options["widths"]) if options["widths"] else None
        engines.build(folder, widths, as_json)
    if triton:
        from slimexport.target.manifest import read_manifest
        from slimexport.target.triton import write_repository

        names = write_repository(folder, read_manifest(folder), Path(triton), overwrite=options["overwrite"])
        click.echo(f"{len(names)} models in {triton}: {', '.join(names)}")
    if not (verify_only or backend or engines or triton):
        raise click.UsageError("--bundle needs something to do: --format trt, --verify-only, or --triton DIR.")


def _export(
    ckpt: str, as_json: bool, *, widths: str | None, macs: str | None, switches: str | None, no_verify: bool, **options: Any
) -> Path | None:
    """Export, and print; the bundle's folder, None of a dry run."""
    chosen = None if widths is None else parse_widths(widths) or ALL
    stored = parse_widths(switches) if switches is not None else None
    budgets = parse_macs(macs) if macs is not None else []
    if switches is not None and stored is None:
        raise UserError("--switches: expected widths, as in 0.25,0.5,1.0.")
    if options["image_size"] is not None and options["image_size"] < 1:
        raise UserError(f"image size {options['image_size']}: expected a positive number of pixels.")
    if options["network"] is not None:
        split_name(options["network"])  # a mistyped name is told before torch is loaded
    if ckpt.startswith("random:"):
        if options["network"] or options["config"] or switches:
            raise click.UsageError(
                "random:NETWORK says all there is to say: --network, --switches and --config are for files."
            )
        published_spec(ckpt.removeprefix("random:"))
    elif not os.path.exists(ckpt):
        raise UserError(f"{ckpt}: no such file. Give the path of a checkpoint, or random:NETWORK.")
    progress = Progress()
    from slimexport.exporter import VerificationFailed, export

    try:
        manifest = export(
            ckpt,
            widths=chosen,
            macs=budgets,
            switches=stored,
            verify=not no_verify,
            started=progress.started,
            finished=progress.finished,
            **options,
        )
    except VerificationFailed as error:
        progress.close()
        _print(error.manifest, as_json)
        raise
    finally:
        progress.close()
    _print(manifest, as_json)
    if options["dry_run"]:
        return None
    folder = Path(options["output_dir"] or Path("exports") / manifest.source.network)
    if not as_json:
        count = len(manifest.artifacts)
        click.echo(f"{count} {'network' if set(options['precisions']) == {EXACT} else 'file'}{'s' * (count > 1)} in {folder}")
    return folder


def _print(manifest: Manifest, as_json: bool) -> None:
    from slimexport.report import table
    from slimexport.target.manifest import dump_manifest

    if as_json:
        click.echo(dump_manifest(manifest), nl=False)
    else:
        if manifest.source.untrained:
            click.echo("an untrained network: its weights are random, its outputs mean nothing")
        click.echo(table([*manifest.artifacts, *manifest.rejected]))


def _verify_bundle(folder: Path, as_json: bool, backend: str) -> None:
    from slimexport.report import table
    from slimexport.target.errors import NotProven
    from slimexport.target.manifest import dump_json, read_manifest
    from slimexport.target.records import to_json
    from slimexport.target.verify import verify_bundle

    manifest = read_manifest(folder)
    if backend == "tensorrt":
        from slimexport.target.tensorrt.engines import verify_engines

        results = verify_engines(folder, manifest)
    else:
        results = verify_bundle(folder, manifest, backend)
    checked = [replace(artifact, verification=verification) for artifact, verification in results]
    click.echo(dump_json([to_json(artifact) for artifact in checked]) if as_json else table(checked))
    failed = [artifact.file for artifact in checked if not artifact.verification.passed]
    if failed:
        raise NotProven(f"not proven right: {', '.join(failed)}.")


class Progress:
    """A bar on a terminal, a line per network elsewhere; on standard error, so that output stays clean."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.number = self.total = 0

    def started(self, total: int) -> None:
        self.total = total
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, unit="network", disable=None, leave=False)

    def finished(self, entry: Entry) -> None:
        self.number += 1
        if self.bar is not None:
            self.bar.set_postfix_str(_label(entry))
            self.bar.update()
        else:
            click.echo(f"{self.number}/{self.total} {_label(entry)}: {entry.verification.status}", err=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _label(entry: Entry) -> str:
    """What progress calls a file: its name, and its precision where it is not fp32."""
    return entry.name + row_of(entry.precision).infix
