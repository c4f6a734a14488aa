"""Configurations from files: a packaged name (`digits`, `us_mobilenet_v1`), a YAML file with the keys of `Config`, or a
published one (`app:apps/NAME.yml`, see published_keys.py), each changed by `key=value`. No torch."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slimtrain.base.errors import UserError, nearest
from slimtrain.base.image_size import EXPECTED, ImageSize, as_image_size
from slimtrain.base.spelling import likely_keys
from slimtrain.base.untrusted.quoting import quoted, reason, shortened
from slimtrain.base.yaml_file import load_yaml, parse_yaml
from slimtrain.config.config import KEYS, Config, as_plain
from slimtrain.config.detector import DETECTOR_KEYS, DetectorConfig
from slimtrain.config.published_keys import PUBLISHED_KEYS, translate

log = logging.getLogger(__name__)

CONFIGS = Path(__file__).parents[1] / "configs"
APP = "app:"
FINETUNING = ("pretrained", "reset_classifier")  # a configuration that sets one of them has an lr for trained weights
FOLLOWED = ("batch_size", "lr")  # the second follows the first; published files call them so too
TYPES = typing.get_type_hints(Config)
DETECTOR = "detector"  # the key whose value has keys of its own
DETECTOR_TYPES = typing.get_type_hints(DetectorConfig)
_WRONG = object()


def config_names() -> list[str]:
    """The packaged configurations."""
    return sorted(path.stem for path in CONFIGS.glob("*.yml"))


def read_config(source: str, changes: Sequence[str] = (), **options: Any) -> Config:
    """The configuration called `source`: a packaged name, a path, or `app:PATH` for a published file.

    `changes` are `key=value` texts, later ones count; `options` are keys with their values, which count above these, None
    where not given. Where they set batch_size and not lr, lr follows it linearly; where they do not set batch_size, and the
    configuration is packaged or published, the run may take one that fits (`fit_batch`). Where nobody set lr, a run from
    pretrained weights takes a tenth of it (`scratch_lr`): a packaged or published configuration's own is for random weights,
    unless the file itself is for finetuning.

    >>> import slimtrain
    >>> config = slimtrain.read_config("us_mobilenet_v1", ["epochs=90", "lr=0.25"], seed=3)
    >>> config.epochs, config.lr, config.seed, config.schedule
    (90, 0.25, 3, 'linear')

    Raises UserError for a file that cannot be read, an unknown key (with the nearest), or a wrong value.
    """
    published = source.startswith(APP)
    name, values = _read(source.removeprefix(APP), packaged=not published)
    own: dict[str, Any] = {}
    asked = {key for key, value in options.items() if value is not None}
    given = {key: values.get(key) for key in FOLLOWED}
    finetunes = any(values.get(key) for key in FINETUNING)
    for change in changes:
        key, equals, text = (part.strip() for part in change.partition("="))
        if not equals:
            raise UserError(f"--set {shortened(change)}: expected key=value.")
        # A published file may be changed by its own keys too; a key of both, as lr, is changed in the file.
        (values if published and (key in PUBLISHED_KEYS or key not in KEYS) else own)[key] = _parse(text, change)
        asked.add(key)
    own.update({key: value for key, value in options.items() if value is not None})
    if published:
        values = translate(values, source.removeprefix(APP))
    ours = published or source in config_names()
    rules = {
        "fit_batch": ours and "batch_size" not in asked,
        "scale_lr": ours and "lr" not in asked,
        "scratch_lr": "lr" not in asked and (ours or given["lr"] is None) and not finetunes,
    }
    merged = _folded({**rules, **values, **own})
    config = make_config({**merged, "output_dir": merged.get("output_dir") or f"runs/{name}"}, source)
    return _with_lr(config, given, source) if "batch_size" in asked and "lr" not in asked else config


def _with_lr(config: Config, given: Mapping[str, Any], source: str) -> Config:
    """The configuration of another batch_size than the `given` one, its lr changed in the same proportion; a line says so."""
    batch, lr = (getattr(Config, key) if given[key] is None else _convert(key, given[key], source) for key in FOLLOWED)
    if batch < 1 or batch == config.batch_size:
        return config
    followed = following_lr(lr, batch, config.batch_size)
    if os.environ.get("RANK", "0") == "0":  # of several processes one says it
        log.info("%s", lr_line(followed, lr, batch, config.batch_size))
    return dataclasses.replace(config, lr=followed)


def following_lr(lr: float, batch: int, now: int) -> float:
    """The learning rate for batches of `now` images that `lr` is for batches of `batch` (arXiv 1706.02677, sec. 2.1), to four
    digits."""
    return float(f"{lr * now / batch:.4g}")


def lr_line(followed: float, lr: float, batch: int, now: int) -> str:
    """What is said where lr follows the batch."""
    return f"lr is {followed:g}: it follows batch_size ({lr:g} is for {batch}, this is {now}). Set lr to choose another."


def _folded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keys with `detector.neck` put into the mapping that `detector` is."""
    dotted = {key: value for key, value in values.items() if key.startswith(f"{DETECTOR}.")}
    folded = {key: value for key, value in values.items() if key not in dotted}
    if dotted:
        own = folded.get(DETECTOR)
        own = dict(own) if isinstance(own, dict) else {}
        folded[DETECTOR] = own | {key.partition(".")[2]: value for key, value in dotted.items()}
    return folded


def make_config(values: Mapping[str, Any], source: str) -> Config:
    """A `Config` of plain values, lists taken for tuples. UserError, naming `source`, for a wrong key or value."""
    converted = {}
    for key, value in values.items():
        if key not in KEYS:
            raise UserError(f"{source}: key {quoted(key)} is not known{nearest_key(shortened(str(key)))}.")
        converted[key] = _convert(key, value, source)
    if "network" not in converted:
        raise UserError(f"{source}: does not say which network to train. Expected `network: us_mobilenet_v1` or another.")
    try:
        return Config(**converted)
    except UserError as error:
        raise type(error)(f"{source}: {error}") from error


def stored_settings(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The settings of a run that a file of ours holds, as plain values, lists for tuples. UserError, naming `source`, for a
    value that is none of its key's; keys that are not known are those of other versions, and left out."""
    converted = {key: _convert(key, values[key], source) for key in KEYS if key in values}
    return {key: as_plain(value) for key, value in converted.items()}


def nearest_key(word: str) -> str:
    """`" (did you mean 'epochs'?)"` for a mistyped key, or one that is called otherwise here; nothing where none is close."""
    likely = likely_keys(word, list(KEYS))
    return f" (did you mean {likely[0]!r}?)" if likely else ""


def _read(source: str, packaged: bool) -> tuple[str, dict[str, Any]]:
    """A configuration's name and its keys."""
    path = Path(source)
    if packaged and path.suffix not in (".yml", ".yaml") and not os.path.isfile(source):  # a folder `digits` is none
        path = CONFIGS / f"{source}.yml"
        if source not in config_names():
            raise UserError(
                f"configuration {source!r}: neither a file nor one of ours{nearest(source, config_names())}. Ours are "
                f"{', '.join(config_names())}."
            )
    values = load_yaml(path)
    if values is None:
        values = {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{source}: expected `key: value` lines, found {type(values).__name__}.")
    return path.stem, values


def _parse(text: str, change: str) -> Any:
    try:
        return parse_yaml(text) if text else ""
    except ValueError as error:
        raise UserError(f"--set {shortened(change)}: {quoted(text)} is not a YAML value ({reason(error)}).") from error


def _convert(key: str, value: Any, source: str) -> Any:
    """`value` as the type of `key`; UserError where it is another one."""
    return _detector(value, source) if key == DETECTOR else _typed(key, value, TYPES[key], source)


def _detector(value: Any, source: str) -> DetectorConfig | None:
    """A detector's own keys, as the mapping that `detector` is has them."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise UserError(f"{source}: {DETECTOR} is {quoted(value)}, expected keys of its own, as in neck: 64 below it.")
    converted = {}
    for key, inside in value.items():
        if key not in DETECTOR_KEYS:
            likely = likely_keys(shortened(str(key)), list(DETECTOR_KEYS))
            hint = f" (did you mean '{DETECTOR}.{likely[0]}'?)" if likely else ""
            raise UserError(f"{source}: key {quoted(f'{DETECTOR}.{key}')} is not known{hint}.")
        converted[key] = _typed(f"{DETECTOR}.{key}", inside, DETECTOR_TYPES[key], source)
    try:
        return DetectorConfig(**converted)
    except UserError as error:
        raise type(error)(f"{source}: {error}") from error


def _typed(key: str, value: Any, kind: Any, source: str) -> Any:
    if isinstance(value, str) and "," in value and isinstance(kind, types.GenericAlias):  # --grow 0.75,0.5,0.25
        value = [item.strip() for item in value.split(",")]
    converted = _as(kind, value)
    if converted is _WRONG:
        raise UserError(f"{source}: {key} is {quoted(value)}, expected {_describe(kind)}.")
    return converted


def _as(kind: Any, value: Any) -> Any:  # noqa: PLR0911 (one kind after the other)
    if kind == ImageSize:
        try:
            return as_image_size(value)
        except ValueError:
            return _WRONG
    if isinstance(kind, types.GenericAlias):  # tuple[X, ...]
        inner = typing.get_args(kind)[0]
        if value is None or value == "":  # --set test_widths=
            return ()
        items = list(value) if isinstance(value, list | tuple) else [value]
        converted = tuple(_as(inner, item) for item in items)
        return _WRONG if any(item is _WRONG for item in converted) else converted
    if isinstance(kind, types.UnionType):  # the first that takes it
        return next((taken for inner in typing.get_args(kind) if (taken := _as(inner, value)) is not _WRONG), _WRONG)
    if kind is float and isinstance(value, str):  # YAML takes 1e-4 for text
        try:
            value = float(value)
        except ValueError:
            return _WRONG
    if kind is str and value is None:
        return ""
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # best_by: 0.5
    if isinstance(value, bool) != (kind is bool):
        return _WRONG
    if kind is float and isinstance(value, int | float):
        try:
            value = float(value)
        except OverflowError:  # a whole number of 400 digits
            return _WRONG
        return value if math.isfinite(value) else _WRONG
    return value if isinstance(value, kind) else _WRONG


def _describe(kind: Any) -> str:
    if kind == ImageSize:
        return EXPECTED
    if isinstance(kind, types.GenericAlias):
        return f"a list, each entry {_describe(typing.get_args(kind)[0])}"
    if isinstance(kind, types.UnionType):
        return " or ".join(map(_describe, typing.get_args(kind)))
    names = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text", types.NoneType: "null"}
    return names[kind]
