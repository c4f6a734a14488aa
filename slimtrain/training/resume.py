"""Going on with a run, and making room for a new one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from slimtrain.base.errors import CheckpointError, UserError
from slimtrain.checkpoints.own import is_own, read_own
from slimtrain.checkpoints.reading import read_content
from slimtrain.config.config import Config, run_settings
from slimtrain.config.run_folder import LAST, RESOLVED
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork

AUTO = "auto"


def run_to_resume(config: Config) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint that `config.resume` asks to go on from, and its content; None where `auto` finds none.

    CheckpointError for a file that is none; UserError where `pretrained` names weights that the run did not start from:
    a resumed run would not use them.
    """
    path = Path(config.output_dir) / LAST if config.resume == AUTO else Path(config.resume)
    if config.resume == AUTO and not path.exists():
        return None
    if path.is_dir():
        path = path / LAST
    content = read_content(path)
    if not is_own(content) or not isinstance(content.get("training"), dict):
        raise CheckpointError(
            f"{path}: is no checkpoint of a run that could go on (those are called {LAST}). To start from its weights, set "
            f"pretrained={path}."
        )
    began = content["training"].get("config")
    if not isinstance(began, dict):
        raise CheckpointError(f"{path}: does not say which run it belongs to. The file is damaged, take another.")
    if config.pretrained and config.pretrained != began.get("pretrained"):
        raise UserError(
            f"resume {config.resume} and pretrained {config.pretrained}: {path} is of a run that started from "
            f"{began.get('pretrained') or 'random weights'}, resuming it would ignore the pretrained ones. Choose one: leave "
            "pretrained out, or set resume=none."
        )
    return path, content


def read_run(
    path: Path, content: Mapping[str, Any], config: Config, spec: NetworkSpec
) -> tuple[SlimmableNetwork, dict[str, Any]]:
    """The network and the training state of `last.pt`; CheckpointError where it is of another network, UserError where the
    configuration now asks for another run."""
    network = read_own(content, path.name)
    if network.spec != spec:
        found, expected = network.spec, spec
        if found.channel_lists != expected.channel_lists and found.name == expected.name:
            raise CheckpointError(
                f"{path}: is a {found.name} of other channel lists than those to be trained. Other plans are another run: set "
                "resume=none, or another output_dir."
            )
        what = "widths" if found.name == expected.name else "network"
        raise CheckpointError(
            f"{path}: is a {found.name} with {found.describe_widths()} and {found.classes} classes, the configuration trains "
            f"a {expected.name} with {expected.describe_widths()} and {expected.classes} classes. Another {what} is another "
            "run: set resume=none, or another output_dir."
        )
    training: dict[str, Any] = content["training"]
    check_settings(path, training["config"], config)
    return network, training


def check_settings(path: Path, before: Mapping[str, Any], config: Config) -> None:
    """UserError where `path` belongs to a run whose settings were not those of `config`. Keys that an older version did
    not know are passed over."""
    now = run_settings(config)
    changed = [key for key in now if key in before and before[key] != now[key]]
    if changed:
        listed = ", ".join(f"{key} was {before[key]!r} and is {now[key]!r}" for key in changed)
        raise UserError(
            f"{path}: belongs to a run with other settings: {listed}. A resumed run goes on as it began: undo these, or "
            "begin a new run with resume=none."
        )


def move_aside(folder: Path) -> Path | None:
    """Rename a folder that holds a run to the first free `NAME.1`, `NAME.2`, ...; None where it holds none.

    Nothing is overwritten: rerunning a configuration keeps what the last run made.
    """
    if not any((folder / name).exists() for name in (LAST, RESOLVED)):
        return None
    if Path.cwd().is_relative_to(folder.resolve()):
        raise UserError(f"{folder}: holds a run already, and the working folder cannot be renamed. Choose another output_dir.")
    folder = folder if folder.name not in ("", "..") else folder.resolve()
    number = 1
    while (moved := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    try:
        folder.rename(moved)
    except OSError as error:
        raise UserError(
            f"{folder}: holds a run and cannot be renamed ({error.strerror}). Choose another output_dir."
        ) from error
    return moved


def generators(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's generators."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_generators(states: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Undo what happened since `generators`."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
