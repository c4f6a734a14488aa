"""The `python -m slimtrain` command: parse, call, print. torch is imported only once the options are known to be right."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from slimtrain.base.command import CONTEXT, messages
from slimtrain.base.errors import UserError
from slimtrain.base.options import parse_widths
from slimtrain.base.version import __version__
from slimtrain.config.config import Config, dump_config
from slimtrain.config.reading import APP, config_names, read_config
from slimtrain.models.spec import IMAGENET_CLASSES
from slimtrain.search.from_plans import plans_config
from slimtrain.search.request import SearchRequest, beside, search_folder

F = TypeVar("F", bound=Callable[..., Any])
PROGRAM = "slimtrain"
WEIGHTS_HELP = "Of several sets of weights in it: model, ema, or a dotted key.  [default: as trained, before averages]"


class _Group(click.Group):
    """Published files are run as they always were: `app:apps/NAME.yml` stands for `train app:apps/NAME.yml`."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0].startswith(APP):
            args = ["train", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=_Group, context_settings=CONTEXT)
@click.version_option(__version__, message="slimtrain %(version)s")
def main() -> None:
    """Train, test, calibrate and profile slimmable networks, and search for their channel counts.

    \b
      python -m slimtrain train digits
      python -m slimtrain search digits
      python -m slimtrain train us_mobilenet_v1 --set data_dir=/data/imagenet --amp bf16
      torchrun --nproc-per-node=8 -m slimtrain train us_mobilenet_v1 --set data_dir=/data/imagenet
      python -m slimtrain app:apps/us_mobilenet_v1_train_val.yml

    CONFIG is one of ours by its name, a YAML file with the same keys, or app:PATH, a published file. `--set key=value`
    changes any of its keys.

    Exit codes: 0 done; 1 training diverged; 2 usage or bad input; 3 the environment lacks something.
    """


def _config_options(command: F) -> F:
    """CONFIG and what changes it."""
    for decorate in reversed(
        (
            click.argument("config", metavar="CONFIG"),
            click.option("--set", "changes", metavar="KEY=VALUE", multiple=True, help="Change a key of CONFIG. Repeatable."),
            click.option("--data-dir", metavar="DIR", help="Folder of the images."),
            click.option("--batch-size", type=int, metavar="N", help="Images per step, over all processes."),
            click.option("--workers", type=int, metavar="N", help="Processes that load images."),
            click.option("--device", metavar="NAME", help="auto, cpu or cuda."),
            click.option("--amp", metavar="FORMAT", help="none, bf16 or fp16."),
            click.option("--channels-last/--no-channels-last", default=None, help="Memory layout of images and weights."),
        )
    ):
        command = decorate(command)
    return command


def _checkpoint_options(command: F) -> F:
    for decorate in reversed(
        (
            click.option("--ckpt", metavar="PATH", required=True, help="The checkpoint: ours or a published one."),
            click.option("--weights", metavar="KEY", help=WEIGHTS_HELP),
            click.option("--widths", metavar="LIST", help="0.5,1.0 or 0.25:1.0:0.05 or all.  [default: all it knows]"),
            click.option("--channels", metavar="FILE", multiple=True, help="A plan file, for one width per channel group."),
        )
    ):
        command = decorate(command)
    return command


@main.command(context_settings=CONTEXT)
@_config_options
@click.option("--epochs", type=int, metavar="N")
@click.option("--output-dir", metavar="DIR", help="Folder of the run.  [default: runs/CONFIG]")
@click.option("--pretrained", metavar="PATH", help="Weights to start from.")
@click.option("--weights", "pretrained_weights", metavar="KEY", help=WEIGHTS_HELP.replace("in it", "in --pretrained"))
@click.option("--resume", metavar="WHAT", help="none, auto (the folder's last.pt where there is one), or a path.")
@click.option("--ema", type=float, metavar="DECAY", help="Average the weights, as in 0.9999.")
@click.option("--compile/--no-compile", "compile_", default=None, help="torch.compile.")
@click.option("--layout", metavar="NAME", help="own or published, of the finished checkpoint.")
@click.option("--checkpoint-every", type=int, metavar="STEPS", help="Write last.pt within epochs too.")
@click.option("--best-by", metavar="RULE", help="What best.pt follows: widest, narrowest, mean or a width.")
@click.option("--plans", metavar="DIR", help="Train the networks that a search found, as the switches of one network.")
@click.option("--plan", metavar="NAME", help="Of --plans, this one alone.")
@click.option("--dry-run", is_flag=True, help="Print the resolved configuration, and do one step on fake data.")
def train(
    config: str,
    changes: Sequence[str],
    dry_run: bool,
    compile_: bool | None,
    plans: str | None,
    plan: str | None,
    **options: Any,
) -> None:
    """Train CONFIG, calibrate and test it. Ours are named without a path."""
    notes: Sequence[str] = ()
    with messages(PROGRAM):
        settings = read_config(config, changes, compile=compile_, **options)
        if plans is not None:
            settings, notes = plans_config(settings, Path(plans), plan or "")
            if not options["output_dir"]:
                settings = replace(settings, output_dir=str(beside(Path(settings.output_dir), f"_{plan or 'found'}")))
        elif plan is not None:
            raise UserError(f"--plan {plan}: of which folder? Name it: --plans DIR.")
    hint = f"Go on with --resume auto: {settings.output_dir} holds what was saved." if not dry_run else ""
    with messages(PROGRAM, f"interrupted. {hint}".rstrip()):
        if settings.test_only and not dry_run:
            _test(settings, settings.pretrained, None, (), False, settings.pretrained_weights or None)
            return
        from slimtrain.training.distributed import processes

        with processes(settings.device) as joined:
            if dry_run:
                from slimtrain.training.dry_run import dry_run as try_out

                if joined.first:
                    click.echo(dump_config(settings), nl=False)
                    click.echo("".join(f"# {note}\n" for note in notes), nl=False)
                line = try_out(settings, joined)
                if joined.first:
                    click.echo(line)
            else:
                from slimtrain.training.run import train as run

                run(settings, joined, notes)


@main.command(context_settings=CONTEXT)
@_config_options
@click.option("--ckpt", metavar="PATH", help="A trained us_ network to slim.  [default: train CONFIG's first]")
@click.option("--weights", metavar="KEY", help=WEIGHTS_HELP.replace("in it", "in --ckpt"))
@click.option("--targets", metavar="LIST", help="Costs to find networks for: 150M,325M,572M.")
@click.option("--cost", "search_cost", metavar="NAME", help="What targets are of: macs, params, activations or latency (ms).")
@click.option("--latency-table", metavar="FILE", help="For --cost latency, by `python -m benchmarks channels`.")
@click.option("--latency-device", metavar="NAME", help="The device to find networks for: refuse a table of another one.")
@click.option("--groups", "search_groups", type=int, metavar="N", help="Steps that a group's channels are divided into.")
@click.option("--search-images", type=int, metavar="N", help="Held-out training images that measure a candidate; 0: all.")
@click.option("--search-batch", type=int, metavar="N", help="Images per batch of the search.")
@click.option("--criterion", "search_criterion", metavar="NAME", help="error (as published) or error-per-cost.")
@click.option("--statistics", "search_statistics", metavar="NAME", help="A candidate's, batch or calibrated.")
@click.option("--finish/--no-finish", "search_finish", default=None, help="Then train, test and export what was found.")
@click.option("--resume", type=click.Choice(["none", "auto"]), default="none", help="auto: go on with what the folder holds.")
@click.option("--output-dir", metavar="DIR", help="Folder of the search.  [default: runs/CONFIG_search]")
def search(
    config: str,
    changes: Sequence[str],
    ckpt: str | None,
    weights: str | None,
    targets: str | None,
    resume: str,
    output_dir: str | None,
    **options: Any,
) -> None:
    """Find a network for every target cost, by slimming a trained one group by group on held-out training images.

    \b
      python -m slimtrain search autoslim_mobilenet_v2 --set data_dir=/data/imagenet --amp bf16
      python -m slimtrain train autoslim_mobilenet_v2 --set data_dir=/data/imagenet \
          --plans runs/autoslim_mobilenet_v2_search/plans
    """
    with messages(PROGRAM):
        options["search_targets"] = targets.split(",") if targets is not None else None
        settings = read_config(config, changes, **options)
        if weights and ckpt is None:
            raise UserError(f"--weights {weights}: of which checkpoint? Name it: --ckpt PATH.")
        request = SearchRequest(settings, Path(output_dir) if output_dir else search_folder(settings), ckpt, config, weights)
    with messages(PROGRAM, f"interrupted. Go on with --resume auto: {request.folder} holds what was done."):
        from slimtrain.search.run import run_whole_search
        from slimtrain.training.distributed import processes

        with processes(settings.device) as joined:
            run_whole_search(request, joined, resume=resume == "auto")


@main.command(context_settings=CONTEXT)
@_config_options
@_checkpoint_options
@click.option("--json", "as_json", is_flag=True, help="Print figures as JSON.")
def test(
    config: str,
    changes: Sequence[str],
    ckpt: str,
    weights: str | None,
    widths: str | None,
    channels: Sequence[str],
    as_json: bool,
    **options: Any,
) -> None:
    """Loss and accuracy of a checkpoint's widths on CONFIG's test images."""
    with messages(PROGRAM):
        settings = read_config(config, changes, **options)
        _test(settings, ckpt, widths, channels, as_json, weights)


def _test(
    settings: Config, ckpt: str, widths: str | None, channels: Sequence[str], as_json: bool, weights: str | None
) -> None:
    from slimtrain.training.distributed import processes
    from slimtrain.training.report import results_table
    from slimtrain.training.testing import test_checkpoint

    with processes(settings.device) as joined:
        plans, results = test_checkpoint(settings, joined, ckpt, widths, channels, weights)
        if not joined.first:
            return
        if as_json:
            rows = [
                {"plan": plan.name, "width": plan.width, **vars(result)} for plan, result in zip(plans, results, strict=True)
            ]
            click.echo(json.dumps(rows, indent=1))
        else:
            click.echo(f"{ckpt}, on {results[0].images} test images\n{results_table(plans, results)}")


@main.command(context_settings=CONTEXT)
@_config_options
@_checkpoint_options
@click.option("--output", metavar="PATH", help="The calibrated checkpoint.  [default: NAME_calibrated.pt beside it]")
@click.option("--layout", metavar="NAME", help="own or published.")
def calibrate(
    config: str,
    changes: Sequence[str],
    ckpt: str,
    weights: str | None,
    widths: str | None,
    channels: Sequence[str],
    output: str | None,
    **options: Any,
) -> None:
    """Give a checkpoint's widths batch-norm statistics from CONFIG's training images, all in one pass."""
    with messages(PROGRAM):
        settings = read_config(config, changes, **options)
        from slimtrain.training.distributed import processes
        from slimtrain.training.testing import calibrate_checkpoint

        with processes(settings.device) as joined:
            path, plans = calibrate_checkpoint(settings, joined, ckpt, widths, channels, output, weights)
            if joined.first:
                click.echo(f"{path}: {len(plans)} widths calibrated: {', '.join(plan.name for plan in plans)}")


@main.command(context_settings=CONTEXT)
@click.argument("config", metavar="CONFIG")
@click.option("--set", "changes", metavar="KEY=VALUE", multiple=True, help="Change a key of CONFIG. Repeatable.")
@click.option("--widths", metavar="LIST", help="0.5,1.0 or 0.25:1.0:0.05 or all.")
@click.option("--json", "as_json", is_flag=True, help="Print figures as JSON.")
def profile(config: str, changes: Sequence[str], widths: str | None, as_json: bool) -> None:
    """Multiply-accumulates and parameters of CONFIG's widths, at batch 1."""
    with messages(PROGRAM):
        from slimtrain.costs.profiling import cost_table, costs, usual_widths

        settings = read_config(config, changes)
        spec = settings.spec(settings.known_classes or IMAGENET_CLASSES)
        chosen = parse_widths(widths) if widths else None
        rows = costs(spec, settings.image_size, chosen or usual_widths(spec, settings.test_widths))
        click.echo(json.dumps(rows, indent=1) if as_json else cost_table(rows))


@main.command(context_settings=CONTEXT)
def configs() -> None:
    """The names of our own configurations."""
    click.echo("\n".join(config_names()))
