"""The `slimexport` command: parse, call, print. torch is imported only once the options are known to be right."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import click

from slimexport import __version__
from slimtrain.errors import UserError, nearest
from slimtrain.registry import published_spec, split_name
from slimtrain.widths import ALL, parse_macs, parse_widths

FORMATS = ("onnx",)
PRECISIONS = ("fp32",)
PLANNED = {"trt": "TensorRT engines", "tf32": "tf32 engines", "fp16": "fp16 files", "bf16": "bf16 files", "int8": "int8 files"}


class Failure(click.ClickException):
    """A user's mistake or a failed check: one message, the error's exit code, no traceback."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.exit_code = getattr(error, "exit_code", 2)  # type: ignore[misc]

    def show(self, file: Any = None) -> None:
        click.echo(f"slimexport: {self.message}", err=True)


def choices(text: str, known: tuple[str, ...], what: str) -> list[str]:
    """A comma-separated list of known names; UserError with the nearest one otherwise."""
    names = [name.strip().lower() for name in text.split(",")]
    for name in names:
        if name in PLANNED and name not in known:
            raise UserError(
                f"{what} {name!r}: slimexport {__version__} does not make {PLANNED[name]} yet. Available: {', '.join(known)}."
            )
        if name not in known:
            raise UserError(f"{what} {name!r}: not known{nearest(name, known)}. Available: {', '.join(known)}.")
    return names


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="slimexport %(version)s")
@click.option("--ckpt", metavar="PATH", help="Checkpoint (.pt, .pt.zip, .safetensors), or random:NETWORK, an untrained one.")
@click.option("--bundle", metavar="DIR", help="A bundle to verify again (with --verify-only); needs no torch.")
@click.option("--verify-only", is_flag=True, help="With --bundle: run its files against its reference.npz.")
@click.option("--widths", metavar="LIST", help="0.5,1.0 or 0.25:1.0:0.05 or all; switch numbers for AutoSlim.  [default: all]")
@click.option("--macs", metavar="LIST", help="Budgets, as in 150M,300M: for each the widest width that fits.")
@click.option("--channels", metavar="FILE", multiple=True, help="A plan file: YAML, channel group to channels. Repeatable.")
@click.option("--format", "formats", metavar="LIST", default="onnx", show_default=True, help="File formats: onnx.")
@click.option("--precision", metavar="LIST", default="fp32", show_default=True, help="Number formats: fp32.")
@click.option("--output-dir", metavar="DIR", help="Where the bundle goes.  [default: exports/NETWORK]")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is there.")
@click.option(
    "--image-size",
    type=int,
    metavar="PIXELS",
    help="Side of the images.  [default: 224]",
)
@click.option(
    "--calibration-data", metavar="PATH", help="Images for widths without batch-norm statistics: a folder, .npy or .npz."
)
@click.option("--calibration-batch-size", type=click.IntRange(1), default=64, show_default=True, metavar="N")
@click.option("--verify-data", metavar="FOLDER", help="Photographs to verify with, in place of noise.")
@click.option(
    "--probes", type=click.IntRange(2, 256), default=2, show_default=True, metavar="N", help="Images to verify with."
)
@click.option("--accuracy-data", metavar="DATA", help="Labeled images to test the files on: class folders, or `digits`.")
@click.option("--no-verify", is_flag=True, help="Write files without proof that they are right.")
@click.option("--network", metavar="NAME", help="What the checkpoint holds, where its shapes do not tell.")
@click.option("--switches", metavar="LIST", help="Its switches or widths, in stored order, where its shapes do not tell.")
@click.option("--config", metavar="FILE", help="The published apps/NAME.yml it was trained with.")
@click.option("--dry-run", is_flag=True, help="Print the table without writing anything.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest instead of the table.")
@click.option("--env", is_flag=True, help="Print versions and providers, and nothing else.")
def main(**options: Any) -> None:
    """Export widths of a slimmable network as small, verified ONNX networks.

    \b
      slimexport --ckpt us_mbv1.pt --widths 0.5,1.0
      slimexport --ckpt us_mbv1.pt --widths 0.33 --calibration-data train/
      slimexport --ckpt random:us_mobilenet_v1 --widths all --dry-run

    Exit codes: 0 done; 1 a verification failed, or no width meets a budget; 2 usage or bad input; 3 the environment
    lacks something.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, _stop)
    try:
        _run(**options)
    except ValueError as error:
        if not hasattr(error, "exit_code"):  # not a user's mistake but ours
            raise
        raise Failure(error) from error
    except KeyboardInterrupt:
        click.echo("slimexport: interrupted, nothing was written.", err=True)
        sys.exit(130)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _stop(number: int, frame: Any) -> None:
    """A polite kill ends as Ctrl-C does: what was begun is cleaned up."""
    raise KeyboardInterrupt


def _run(*, env: bool, bundle: str | None, verify_only: bool, ckpt: str | None, as_json: bool, **options: Any) -> None:
    if env:
        from slimexport.environment import describe

        click.echo(describe())
        return
    choices(options.pop("formats"), FORMATS, "format")
    choices(options.pop("precision"), PRECISIONS, "precision")
    if bundle:
        if ckpt:
            raise click.UsageError("give --ckpt or --bundle, not both.")
        if not verify_only:
            raise click.UsageError("--bundle needs --verify-only: there is nothing else to do with a bundle yet.")
        _verify_bundle(Path(bundle), as_json)
        return
    if not ckpt:
        raise click.UsageError("give a checkpoint: --ckpt PATH, or --ckpt random:us_mobilenet_v1 to try it out.")
    if verify_only:
        raise click.UsageError("--verify-only goes with --bundle; a new export is verified anyway.")
    _export(ckpt, as_json, **options)


def _export(
    ckpt: str, as_json: bool, *, widths: str | None, macs: str | None, switches: str | None, no_verify: bool, **options: Any
) -> None:
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
    if not as_json and not options["dry_run"]:
        folder = options["output_dir"] or Path("exports") / manifest["source"]["network"]
        click.echo(f"{len(manifest['artifacts'])} networks in {folder}")


def _print(manifest: dict[str, Any], as_json: bool) -> None:
    from slimexport.report import table
    from slimexport.target.manifest import dump_manifest

    if as_json:
        click.echo(dump_manifest(manifest), nl=False)
    else:
        if manifest["source"].get("untrained"):
            click.echo("an untrained network: its weights are random, its outputs mean nothing")
        click.echo(table([*manifest["artifacts"], *manifest.get("rejected", [])]))


def _verify_bundle(folder: Path, as_json: bool) -> None:
    from slimexport.report import table
    from slimexport.target.manifest import read_manifest
    from slimexport.target.verify import PASSED, verify_bundle

    manifest = read_manifest(folder)
    results = verify_bundle(folder, manifest)
    shown = [{**artifact, "verification": verification} for artifact, verification in results]
    click.echo(json.dumps(shown, indent=1) if as_json else table(shown))
    failed = [artifact["name"] for artifact in shown if artifact["verification"]["status"] != PASSED]
    if failed:
        error = ValueError(f"not proven right: {', '.join(failed)}.")
        error.exit_code = 1  # type: ignore[attr-defined]
        raise error


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

    def finished(self, artifact: dict[str, Any]) -> None:
        self.number += 1
        if self.bar is not None:
            self.bar.set_postfix_str(artifact["name"])
            self.bar.update()
        else:
            click.echo(f"{self.number}/{self.total} {artifact['name']}: {artifact['verification']['status']}", err=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
