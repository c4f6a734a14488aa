"""The options that several `slimtrain` commands share. Those that are keys of a configuration say its default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from slimtrain.config.config import Config
from slimtrain.config.reading import TYPES
from slimtrain.graph.policy import POLICIES, POLICY_TEXTS

Decorator = Callable[[Any], Any]  # of a command's function


def key_option(flag: str, text: str, *, key: str = "", empty: str = "none", **settings: Any) -> Decorator:
    """An option that is a key of the configuration, by default the one that `flag` names. `text` is its help, to which the
    key's default is added: `empty` where that is nothing, 0 or ""."""
    key = key or flag.split("/", maxsplit=1)[0][2:].replace("-", "_")
    value = getattr(Config, key)
    if isinstance(value, bool):
        shown = flag.split("/")[0 if value else 1]
    else:
        shown = f"{value:g}" if isinstance(value, float) and value else str(value or empty)
    options = {"type": TYPES[key]} if TYPES[key] in (int, float) else {}
    return click.option(flag, key, default=None, help=f"{text}  [default: CONFIG's, else {shown}]", **options, **settings)


def together(*decorators: Decorator) -> Decorator:
    """Several options as one decorator, in this order."""

    def decorate(command: Any) -> Any:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


WEIGHTS = "Of several sets of weights in {}: model, ema, or a dotted key."
USUAL = "as trained, before averages"  # of several sets of weights


def weights_option(of: str) -> Decorator:
    """Which weights of a checkpoint are read, which the option `of` names."""
    return click.option("--weights", metavar="KEY", help=f"{WEIGHTS.format(of)}  [default: {USUAL}]")


set_option = click.option("--set", "changes", metavar="KEY=VALUE", multiple=True, help="Change a key of CONFIG. Repeatable.")
config_options = together(
    click.argument("config", metavar="CONFIG"),
    set_option,
    key_option("--data-dir", "Folder of the images.", metavar="DIR"),
    key_option("--batch-size", "Images per step, over all processes; lr follows it.", metavar="N"),
    key_option("--image-size", "Pixels a side, or height and width as in 256x192.", metavar="SIZE"),
    key_option("--workers", "Processes that load images, up to the cores.", metavar="N"),
    key_option("--device", "auto, cpu or cuda.", metavar="NAME"),
    key_option("--amp", "none, bf16 or fp16.", metavar="FORMAT"),
    key_option("--channels-last/--no-channels-last", "Memory layout of images and weights.", empty="as is faster"),
)
training_options = together(
    key_option(
        "--lr",
        "Learning rate; not set, it follows --batch-size, and from trained weights is a tenth (arXiv 1908.09791).",
        metavar="RATE",
    ),
    key_option("--epochs", "Passes over the training images.", metavar="N"),
)
model_option = key_option(
    "--model", "A module to train: torchvision:NAME, timm:NAME, package.module:function.", metavar="MODULE"
)
checkpoint_options = together(
    click.option("--ckpt", metavar="PATH", required=True, help="The checkpoint: ours or a published one.  [required]"),
    weights_option("--ckpt"),
    click.option("--widths", metavar="LIST", help="0.5,1.0 or 0.25:1.0:0.05 or all.  [default: all it knows]"),
    click.option(
        "--channels", metavar="FILE", multiple=True, help="A plan file, for one width per channel group.  [default: none]"
    ),
)
policy_options = together(
    *(
        click.option(
            f"--{name.replace('_', '-')}",
            type=click.Choice(POLICIES[name]),
            default=POLICIES[name][0],
            show_default=True,
            help=text,
        )
        for name, text in POLICY_TEXTS.items()
    )
)
