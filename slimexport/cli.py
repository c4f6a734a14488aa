"""The `slimexport` command: its options are read and checked here. What it does is in `commands`, which is loaded once they
are known to be right: numpy takes longer to load than the help text to print, and torch much longer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from slimexport import __version__
from slimexport.options import CommandOptions, all_options
from slimexport.target.backends import ENGINES
from slimexport.target.precision import CPU, EVERY_TARGET, EXACT, check_option, needed_for, row_of
from slimtrain.base.command import CONTEXT, Command, messages

PROGRAM = "slimexport"


@click.command(PROGRAM, cls=Command, context_settings=CONTEXT)
@click.version_option(__version__, message="slimexport %(version)s")
@all_options
def main(**options: Any) -> None:
    """Export widths of a slimmable network as small, verified ONNX networks and TensorRT engines.

    \b
      slimexport --ckpt us_mbv1.pt --widths 0.5,1.0
      slimexport --ckpt us_mbv1.pt --widths 0.33 --calibration-data train/
      slimexport --ckpt random:us_mobilenet_v1 --widths all --dry-run
      slimexport --ckpt us_mbv1.pt --widths 0.5,1.0 --format trt --precision fp16
      slimexport --bundle exports/us_mobilenet_v1 --format trt
      slimexport --bundle exports/us_mobilenet_v1 --format trt-rtx --targets 8.6,12.0
      slimexport --bundle exports/us_mobilenet_v1 --predict photo.jpg
      slimexport --bundle exports/us_mobilenet_v1 --serve --slo-ms 50

    Exit codes: 0 done; 1 a verification failed, or no width meets a budget; 2 usage or bad input; 3 the environment
    lacks something.
    """
    given = CommandOptions(**options)
    kept = "what was finished is kept, nothing is half-written" if given.bundle else "nothing was written"
    if any(form in given.formats for form in ENGINES) and not given.bundle:
        kept = "the ONNX files and engines that were finished are kept"
    with messages(PROGRAM, f"interrupted, {kept}."):
        _run(given)


def _run(options: CommandOptions) -> None:
    if options.env:
        from slimexport.environment import describe

        click.echo(describe())
        return
    if options.images and not options.predict:
        raise click.UsageError(f"unexpected argument {options.images[0]!r}: every value goes with an option, see --help.")
    options.check_serving(bool(options.bundle), bool(options.triton))
    options.check_detecting(not options.bundle)
    engines, precisions = options.engine_formats, options.precisions
    if engines or options.targets:
        _ = options.build_settings  # a wrong option is told before anything is written
    if options.bundle:
        if options.ckpt:
            raise click.UsageError("give --ckpt or --bundle, not both.")
        _work_on(Path(options.bundle), options, engines)
        return
    if options.predict:
        raise click.UsageError("--predict goes with --bundle: export first, then predict with the bundle.")
    if not options.ckpt:
        raise click.UsageError("give a checkpoint: --ckpt PATH, or --ckpt random:us_mobilenet_v1 to try it out.")
    if options.verify_only or options.backend:
        raise click.UsageError("--verify-only and --backend go with --bundle; a new export is verified anyway.")
    if options.triton:
        raise click.UsageError("--triton goes with --bundle: export first, then write the repository from the bundle.")
    _make(options, precisions, engines)


def _work_on(folder: Path, options: CommandOptions, engines: list[str]) -> None:
    """What can be done with a bundle, without torch."""
    if options.int8_target != EVERY_TARGET:
        raise click.UsageError("--int8-target goes with --ckpt: it says which int8 files an export writes.")
    if not (options.verifier or engines or options.triton or options.predict or options.serve):
        raise click.UsageError(
            "--bundle needs something to do: --verify-only, --predict IMAGE, --format trt or trt-rtx, --triton DIR, --serve."
        )
    from slimexport import commands

    if options.verifier:
        commands.verify(folder, options.verifier, options.as_json)
    for form in engines:
        commands.build(folder, form, options, options.engine_widths)
    if options.triton:
        commands.write_triton(folder, Path(options.triton), options)
    if options.predict:
        commands.tell(folder, options)
    if options.serve:
        commands.serve(folder, options)


def _make(options: CommandOptions, precisions: list[str], engines: list[str]) -> None:
    """Export a checkpoint, and build its engines where they are asked for."""
    if engines:
        if options.int8_target == CPU and any(row_of(name).calibrated for name in precisions):
            raise click.UsageError(
                "--int8-target cpu writes int8 files that TensorRT does not build engines from: leave it out, or --format."
            )
        files = list(dict.fromkeys([EXACT, *(file for precision in precisions for file in needed_for(precision))]))
    else:
        files = precisions
        for name in precisions:
            check_option(name)
    options.check()
    from slimexport import commands

    folder = commands.export_bundle(options, files)
    if folder is not None:
        for form in engines:
            commands.build(folder, form, options)
