"""The `python -m slimtrain` command: parse, call, print. torch is imported only once the options are known to be right."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from slimtrain.base.command import CONTEXT, Command, Group, messages
from slimtrain.base.errors import UserError
from slimtrain.base.options import parse_widths
from slimtrain.base.text import count
from slimtrain.base.version import __version__
from slimtrain.cli_options import (
    USUAL,
    WEIGHTS,
    checkpoint_options,
    config_options,
    key_option,
    model_option,
    policy_options,
    set_option,
    training_options,
    weights_option,
)
from slimtrain.config.config import KEYS, Config, dump_config
from slimtrain.config.reading import APP, config_names, read_config
from slimtrain.search.from_plans import plans_config
from slimtrain.search.request import SearchRequest, beside, search_folder

PROGRAM = "slimtrain"


class _Command(Command):
    settings = tuple(KEYS)


class _Group(Group):
    """Published files are run as they always were: `app:apps/NAME.yml` stands for `train app:apps/NAME.yml`."""

    command_class = _Command

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
      python -m slimtrain train detect_digits
      python -m slimtrain search digits
      python -m slimtrain train us_mobilenet_v1 --set data_dir=/data/imagenet --amp bf16
      torchrun --nproc-per-node=8 -m slimtrain train us_mobilenet_v1 --set data_dir=/data/imagenet
      python -m slimtrain app:apps/us_mobilenet_v1_train_val.yml

    CONFIG is one of ours by its name, a YAML file with the same keys, or app:PATH, a published file. `--set key=value`
    changes any of its keys, `--set detector.key=value` one of a detector's own.

    Exit codes: 0 done; 1 training diverged; 2 usage or bad input; 3 the environment lacks something.
    """


@main.command(context_settings=CONTEXT)
@config_options
@training_options
@click.option("--output-dir", metavar="DIR", help="Folder of the run.  [default: runs/CONFIG]")
@model_option
@key_option("--pretrained", "Weights to start from.", metavar="PATH", empty="random ones")
@key_option("--weights", WEIGHTS.format("--pretrained"), key="pretrained_weights", metavar="KEY", empty=USUAL)
@key_option(
    "--teacher",
    "inplace: a step's widest width teaches its others (arXiv 1903.05134, sec. 3.3); frozen: the --pretrained network, as it "
    "came, teaches all widths, beside the labels (arXiv 1908.09791).",
    metavar="NAME",
    empty="inplace with `distill`",
)
@key_option(
    "--grow",
    "The range of widths grows in stages of equally many epochs: the narrowest of each, as in 0.75,0.5,0.25 (progressive "
    "shrinking, arXiv 1908.09791, sec. 3.3).",
    metavar="LIST",
    empty="all widths from the start",
)
@key_option("--resume", "none, auto (the folder's last.pt where there is one), or a path.", metavar="WHAT")
@key_option("--ema", "Average the weights, as in 0.9999.", metavar="DECAY")
@key_option("--compile/--no-compile", "torch.compile.")
@key_option("--layout", "own or published, of the finished checkpoint.", metavar="NAME")
@key_option("--checkpoint-every", "Write last.pt within epochs too.", metavar="STEPS", empty="at their ends")
@key_option("--best-by", "What best.pt follows: widest, narrowest, mean or a width.", metavar="RULE")
@click.option(
    "--plans", metavar="DIR", help="Train the networks that a search found, as the switches of one network.  [default: none]"
)
@click.option("--plan", metavar="NAME", help="Of --plans, this one alone.  [default: all]")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the resolved configuration, look at data and checkpoint, do one step of a few fake images.",
)
def train(
    config: str,
    changes: Sequence[str],
    dry_run: bool,
    plans: str | None,
    plan: str | None,
    **options: Any,
) -> None:
    """Train CONFIG, calibrate and test it. Ours are named without a path."""
    notes: Sequence[str] = ()
    with messages(PROGRAM):
        if options["model"] and not any(change.startswith("weights=") for change in changes):
            changes = (*changes, "weights=")  # a packaged file's name is that of its own network
        settings = read_config(config, changes, **options)
        if plans is not None:
            settings, notes = plans_config(settings, Path(plans), plan or "")
            if not options["output_dir"]:
                settings = replace(settings, output_dir=str(beside(Path(settings.output_dir), f"_{plan or 'found'}")))
        elif plan is not None:
            raise UserError(f"--plan {plan}: of which folder? Name it: --plans DIR.")
        elif settings.model and settings.family == "autoslim" and not settings.channel_lists:
            raise UserError(
                f"--model {settings.model}: an AutoSlim network of it needs channel lists, which a search finds: name its "
                "plan files, --plans DIR, or train all widths: --set network=us_any."
            )
    hint = f"Go on with --resume auto: {settings.output_dir} holds what was saved." if not dry_run else ""
    with messages(PROGRAM, f"interrupted. {hint}".rstrip()):
        if settings.test_only and not dry_run:
            _test(settings, settings.pretrained, None, (), False, settings.pretrained_weights or None)
            return
        from slimtrain.training.distributed import processes

        with processes(settings.device) as joined:
            if dry_run:
                from slimtrain.running import dry_run as try_out

                if joined.first:
                    click.echo(dump_config(settings), nl=False)
                    click.echo("".join(f"# {note}\n" for note in notes), nl=False)
                lines = try_out(settings, joined)
                if joined.first:
                    click.echo("\n".join(lines))
            else:
                from slimtrain.running import train as run

                run(settings, joined, notes)


@main.command(context_settings=CONTEXT)
@config_options
@training_options
@click.option("--ckpt", metavar="PATH", help="A trained us_ network to slim.  [default: train CONFIG's first]")
@weights_option("--ckpt")
@model_option
@key_option("--pretrained", "Weights to start from, of a --model or a detector.", metavar="PATH", empty="random ones")
@click.option("--targets", metavar="LIST", help="Costs to find networks for: 150M,325M,572M.  [default: CONFIG's]")
@key_option("--cost", "What targets are of: macs, params, activations or latency (ms).", key="search_cost", metavar="NAME")
@key_option("--latency-table", "For --cost latency, by `python -m benchmarks channels`.", metavar="FILE")
@key_option("--latency-device", "The device to find networks for: refuse a table of another one.", metavar="NAME", empty="any")
@key_option("--groups", "Steps that a group's channels are divided into.", key="search_groups", metavar="N")
@key_option("--search-images", "Held-out training images that measure a candidate; 0: all.", metavar="N", empty="all")
@key_option("--search-batch", "Images per batch of the search.", metavar="N", empty="that of tests, as far as it fits")
@key_option("--criterion", "error (as published) or error-per-cost.", key="search_criterion", metavar="NAME")
@key_option(
    "--error", "A detector's: loss, ap50 or ap (what precision lacks).", key="search_error", metavar="NAME", empty="ap50"
)
@key_option("--statistics", "A candidate's, batch or calibrated.", key="search_statistics", metavar="NAME")
@key_option("--finish/--no-finish", "Then train, test and export what was found.", key="search_finish")
@click.option(
    "--resume",
    type=click.Choice(["none", "auto"]),
    default="none",
    show_default=True,
    help="auto: go on with what the folder holds.",
)
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
      python -m slimtrain search us_any --model timm:mobilenetv4_conv_small --data-dir photos/ --set holdout=0.2 --targets 50M
      python -m slimtrain search us_detect_digits
    """
    with messages(PROGRAM):
        options["search_targets"] = targets.split(",") if targets is not None else None
        settings = read_config(config, changes, **options)
        if options["pretrained"] and not settings.model and settings.detector is None:
            raise UserError(
                f"--pretrained {options['pretrained']}: a network is trained for a search from random weights, a module from "
                "its own. Name it: --model MODULE; to slim a network that is trained: --ckpt PATH."
            )
        if weights and ckpt is None:
            raise UserError(f"--weights {weights}: of which checkpoint? Name it: --ckpt PATH.")
        request = SearchRequest(settings, Path(output_dir) if output_dir else search_folder(settings), ckpt, config, weights)
    with messages(PROGRAM, f"interrupted. Go on with --resume auto: {request.folder} holds what was done."):
        from slimtrain.search.run import run_whole_search
        from slimtrain.training.distributed import processes

        with processes(settings.device) as joined:
            run_whole_search(request, joined, resume=resume == "auto")


@main.command(context_settings=CONTEXT)
@config_options
@checkpoint_options
@click.option("--json", "as_json", is_flag=True, help="Print figures as JSON.  [default: a table]")
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
    """Loss and accuracy of a checkpoint's widths on CONFIG's test images, or average precision of a detector's."""
    with messages(PROGRAM):
        settings = read_config(config, changes, **options)
        _test(settings, ckpt, widths, channels, as_json, weights)


def _test(
    settings: Config, ckpt: str, widths: str | None, channels: Sequence[str], as_json: bool, weights: str | None
) -> None:
    from slimtrain.running import opened
    from slimtrain.training.distributed import processes
    from slimtrain.training.report import results_table
    from slimtrain.training.testing import results_of

    with processes(settings.device) as joined:
        plans, results = results_of(opened(settings, joined, ckpt, weights), widths, channels)
        if not joined.first:
            return
        if as_json:
            rows = [
                {"plan": plan.name, "width": plan.width, **result.figures, "images": result.images}
                for plan, result in zip(plans, results, strict=True)
            ]
            click.echo(json.dumps(rows, indent=1))
        else:
            click.echo(f"{ckpt}, on {count(results[0].images, 'test image')}\n{results_table(plans, results)}")


@main.command(context_settings=CONTEXT)
@config_options
@checkpoint_options
@click.option("--output", metavar="PATH", help="The calibrated checkpoint.  [default: NAME_calibrated.pt beside it]")
@key_option("--layout", "own or published.", metavar="NAME")
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
        from slimtrain.running import opened
        from slimtrain.training.distributed import processes
        from slimtrain.training.testing import calibrated_path, write_calibrated

        path = Path(output) if output else calibrated_path(Path(ckpt))
        with processes(settings.device) as joined:
            plans = write_calibrated(opened(settings, joined, ckpt, weights), path, widths, channels)
            if joined.first:
                click.echo(f"{path}: {count(len(plans), 'width')} calibrated: {', '.join(plan.name for plan in plans)}")


@main.command(context_settings=CONTEXT)
@click.argument("config", metavar="CONFIG")
@set_option
@click.option("--widths", metavar="LIST", help="0.5,1.0 or 0.25:1.0:0.05 or all.  [default: the switches, or those it tests]")
@click.option("--json", "as_json", is_flag=True, help="Print figures as JSON.  [default: a table]")
def profile(config: str, changes: Sequence[str], widths: str | None, as_json: bool) -> None:
    """Multiply-accumulates and parameters of CONFIG's widths, at batch 1."""
    with messages(PROGRAM):
        from slimtrain.costs.profiling import cost_table
        from slimtrain.running import costs_of

        rows, published = costs_of(read_config(config, changes), parse_widths(widths) if widths else None)
        click.echo(json.dumps(rows, indent=1) if as_json else cost_table(rows, published))


@main.command(context_settings=CONTEXT)
@click.argument("model", metavar="MODEL")
@click.option("--image-size", default="224", show_default=True, metavar="SIZE", help="Pixels: 224, or 256x192 (height first).")
@click.option(
    "--in-channels", type=click.IntRange(1, 4096), default=3, show_default=True, metavar="N", help="Channels of an image."
)
@click.option(
    "--classes",
    type=click.IntRange(1),
    metavar="N",
    help="Outputs, where the model's builder takes a number.  [default: its own]",
)
@click.option("--widths", metavar="LIST", help="Widths whose cost is shown.  [default: 1.0,0.75,0.5,0.25]")
@policy_options
def groups(
    model: str,
    image_size: str,
    in_channels: int,
    classes: int | None,
    widths: str | None,
    heads: str,
    conv_groups: str,
    shuffles: str,
) -> None:
    """What shrinks together in MODEL, what stays and why, and what widths cost.

    \b
      python -m slimtrain groups torchvision:mobilenet_v3_small
      python -m slimtrain groups timm:mobilenetv4_conv_small
      python -m slimtrain groups my_package.my_module:build --image-size 64
    """
    with messages(PROGRAM):
        from slimtrain.tracing.examining import examined

        shown = (parse_widths(widths) if widths else None) or ()
        click.echo(examined(model, image_size, in_channels, classes, shown, heads, conv_groups, shuffles))


@main.command(context_settings=CONTEXT)
def configs() -> None:
    """The names of our own configurations."""
    click.echo("\n".join(config_names()))
