"""What the command does, and prints. torch is loaded by an export alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from slimexport.bundle import verify_bundle
from slimexport.options import CommandOptions
from slimexport.predict import as_json, as_text, predict
from slimexport.report import table
from slimexport.request import Writing
from slimexport.serving.options import one_precision
from slimexport.target.backends import TRT_RTX, backend_for, format_of
from slimexport.target.errors import BundleError, NotProven
from slimexport.target.manifest import FileEntry, FilesRejected, Manifest, dump_json, dump_manifest, read_manifest
from slimexport.target.precision import EXACT, row_of
from slimexport.target.records import to_json
from slimexport.target.serving.opening import artifacts_of, choose_backend, label_of
from slimexport.target.serving.triton.adaptive import write_adaptive
from slimexport.target.serving.triton.repository import write_repository
from slimexport.target.tensorrt.check import why_failed
from slimexport.target.tensorrt.engines import build_engines
from slimexport.target.verification import BUILT, FAILED, UNVERIFIABLE, Verification
from slimtrain.base.errors import ResourceError
from slimtrain.base.options import ALL
from slimtrain.base.text import count

UNTRAINED = "an untrained network: its weights are random, its outputs mean nothing"


def verify(folder: Path, backend: str, as_json: bool) -> None:
    """Run a bundle's files, and print what that proves. NotProven where some are not right, BundleError where these are files
    that did not run: changed, missing, or none that load."""
    artifacts = verify_bundle(folder, backend)
    click.echo(dump_json([to_json(artifact) for artifact in artifacts]) if as_json else table(artifacts))
    failed = [artifact for artifact in artifacts if not artifact.verification.passed]
    if failed:
        kept = {artifact.file for artifact in read_manifest(folder).artifacts}
        gone = [artifact.file for artifact in failed if artifact.file not in kept]
        removed = f"\nRemoved, as nothing had proven it before: {', '.join(gone)}." if gone else ""
        reasons = [f"{artifact.file}: {_outcome(artifact.verification)}" for artifact in failed]
        checks = [artifact.verification for artifact in failed]
        kind = BundleError if all(check.status == FAILED and not check.backend for check in checks) else NotProven
        raise kind("\n".join([f"not proven right: {', '.join(artifact.file for artifact in failed)}.", *reasons]) + removed)


def build(folder: Path, form: str, options: CommandOptions, widths: list[float] | None = None) -> None:
    """Build and verify a bundle's engines in one format, of all widths or some, and print them."""

    def building(file: str) -> None:
        click.echo(f"building {file}", err=True)

    def finished(entry: FileEntry) -> None:
        seconds = entry.engine.build_seconds if entry.engine else 0
        click.echo(f"{_outcome(entry.verification)}, {seconds:.1f} s", err=True)

    precisions = options.precisions
    try:
        manifest = build_engines(
            folder,
            form=form,
            widths=widths,
            precisions=precisions,
            settings=options.build_settings,
            building=building,
            finished=finished,
        )
    except FilesRejected as error:
        _print(error.manifest, options.as_json)
        raise
    except ResourceError as error:
        command = f"slimexport --bundle {folder} --format {form} --precision {','.join(precisions)}"
        command += (f" --widths {click.get_current_context().params['widths']}" if widths else "") + _given_settings()
        where = "Where it is installed" if form == TRT_RTX else "On the machine that is to run the engines"
        raise ResourceError(f"{error}\n{where}: {command}") from error
    if options.as_json:
        _print(manifest, options.as_json)
    else:
        engines = manifest.of_format(form)
        click.echo(table(engines))
        if any(engine.verification.status == BUILT for engine in engines):
            proof = f"slimexport --bundle {folder} --verify-only --backend {backend_for(form)}"
            click.echo(f"built: not proven yet, nothing has run them; on a machine with their GPU: {proof}")


def _outcome(check: Verification) -> str:
    """What came of an engine. A failure is told at once: the engines after it may take hours, or be interrupted."""
    if check.status not in (FAILED, UNVERIFIABLE):
        return check.status
    return f"{check.status}, {check.reason}" if check.reason else why_failed(check)


SETTINGS = ("batch", "targets", "workspace", "opt_level", "aux_streams", "version_compatible", "hardware_compatible")


def _given_settings() -> str:
    """The settings of engines that the command at hand was given, for the one that it advises: ` --batch 8 --targets 8.6`."""
    context = click.get_current_context()
    words = []
    for name in SETTINGS:
        if context.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            value = context.params[name]
            words.append(f" --{name.replace('_', '-')}" + ("" if value is True else f" {value}"))
    return "".join(words)


def write_triton(folder: Path, repository: Path, options: CommandOptions) -> None:
    """Write a model repository of a bundle, or with --adaptive its one model of all widths, and print its models."""
    manifest = read_manifest(folder)
    if options.adaptive:
        backend, precision = options.predictor, one_precision(options.precisions, "--adaptive")
        names = write_adaptive(
            folder,
            manifest,
            repository,
            widths=_served_widths(folder, manifest, options, backend, precision),
            precision=precision,
            backend=backend,
            overwrite=options.overwrite,
            **options.chosen_policy,
        )
    else:
        names = write_repository(folder, manifest, repository, overwrite=options.overwrite)
    click.echo(f"{count(len(names), 'model')} in {repository}: {', '.join(names)}")


def serve(folder: Path, options: CommandOptions) -> None:
    """Serve a bundle over HTTP, until a signal ends it."""
    from slimexport.serving.command import serve as serve_bundle  # which loads the server

    precision, manifest = one_precision(options.precisions, "--serve"), read_manifest(folder)
    widths = _served_widths(folder, manifest, options, choose_backend(manifest, options.backend), precision)
    serve_bundle(folder, options, widths, precision, options.backend)


def _served_widths(
    folder: Path, manifest: Manifest, options: CommandOptions, backend: str, precision: str
) -> Sequence[float | str] | None:
    """Those asked for; None: a few that are worth it."""
    if options.chosen_widths != ALL:
        return options.engine_widths
    return [
        label_of(artifact, manifest) for artifact in artifacts_of(folder, manifest, format_of(backend), precision, None)
    ] or None


def tell(folder: Path, options: CommandOptions) -> None:
    """Run photographs through a bundle's networks, and print what they see."""
    images = list(dict.fromkeys([*options.predict, *options.images]))
    predictions = predict(folder, images, options.engine_widths, options.precisions, options.predictor)
    manifest = read_manifest(folder)
    if manifest.source.untrained:
        click.echo(UNTRAINED, err=True)
    if manifest.output.class_names is None:
        click.echo("the bundle names no classes, so they are told by number: export with --class-names FILE", err=True)
    click.echo(dump_json(as_json(predictions)) if options.as_json else as_text(predictions))


def export_bundle(options: CommandOptions, precisions: list[str]) -> Path | None:
    """Export, and print; the bundle's folder, None of a dry run."""
    from slimexport.exporter import export  # which loads torch

    assert options.ckpt is not None
    progress = ExportProgress()
    writing = Writing(options.overwrite, options.dry_run)
    if not options.dry_run:  # which takes no time
        writing = Writing(options.overwrite, started=progress.started, finished=progress.finished)
    try:
        manifest = export(
            options.ckpt,
            widths=options.chosen_widths,
            macs=options.budgets,
            channels=options.channels,
            precisions=precisions,
            image_size=options.size,
            output_dir=options.output_dir,
            reading=options.reading,
            calibration=options.calibration,
            proof=options.proof,
            writing=writing,
            detecting=options.detecting,
        )
    except FilesRejected as error:
        progress.close()
        _print(error.manifest, options.as_json)
        raise
    finally:
        progress.close()
    _print(manifest, options.as_json)
    if options.dry_run:
        if not options.as_json:
            click.echo("a dry run: sizes are computed from the weights, to about 1 % (int8: 15 %), and nothing was written")
        return None
    folder = Path(options.output_dir or Path("exports") / manifest.source.network)
    if not options.as_json:
        kind = "network" if set(precisions) == {EXACT} else "file"
        click.echo(f"{count(len(manifest.artifacts), kind)} in {folder}")
    return folder


def _print(manifest: Manifest, as_json: bool) -> None:
    if as_json:
        click.echo(dump_manifest(manifest), nl=False)
    else:
        if manifest.source.untrained:
            click.echo(UNTRAINED)
        click.echo(table([*manifest.artifacts, *manifest.rejected]))


class ExportProgress:
    """A bar on a terminal, a line per network elsewhere; on standard error, so that output stays clean."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.number = self.total = 0

    def started(self, total: int) -> None:
        self.total = total
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, unit="network", disable=None, leave=False)

    def finished(self, entry: FileEntry) -> None:
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


def _label(entry: FileEntry) -> str:
    """What progress calls a file: its name, and its precision where it is not fp32."""
    return entry.name + row_of(entry.precision).infix
