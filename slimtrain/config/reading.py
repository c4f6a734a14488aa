"""Configurations from files: a packaged name (`digits`, `us_mobilenet_v1`), a YAML file with the keys of `Config`, or a
published one (`app:apps/NAME.yml`, see published_keys.py), each changed by `key=value`. No torch."""

from __future__ import annotations

import math
import os
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from slimtrain.base.errors import UserError, nearest
from slimtrain.base.yaml_file import load_yaml
from slimtrain.config.config import KEYS, Config
from slimtrain.config.published_keys import PUBLISHED_KEYS, translate

CONFIGS = Path(__file__).parents[1] / "configs"
APP = "app:"
TYPES = typing.get_type_hints(Config)
_WRONG = object()


def config_names() -> list[str]:
    """The packaged configurations."""
    return sorted(path.stem for path in CONFIGS.glob("*.yml"))


def read_config(source: str, changes: Sequence[str] = (), **options: Any) -> Config:
    """The configuration called `source`: a packaged name, a path, or `app:PATH` for a published file.

    `changes` are `key=value` texts, later ones count; `options` are keys with their values, which count above these, None
    where not given.

    >>> import slimtrain
    >>> config = slimtrain.read_config("us_mobilenet_v1", ["epochs=90", "lr=0.25"], seed=3)
    >>> config.epochs, config.lr, config.seed, config.schedule
    (90, 0.25, 3, 'linear')

    Raises UserError for a file that cannot be read, an unknown key (with the nearest), or a wrong value.
    """
    published = source.startswith(APP)
    name, values = _read(source.removeprefix(APP), packaged=not published)
    own: dict[str, Any] = {}
    for change in changes:
        key, equals, text = (part.strip() for part in change.partition("="))
        if not equals:
            raise UserError(f"--set {change}: expected key=value.")
        # A published file may be changed by its own keys too; a key of both, as lr, is changed in the file.
        (values if published and (key in PUBLISHED_KEYS or key not in KEYS) else own)[key] = _parse(text, change)
    if published:
        values = translate(values, source.removeprefix(APP))
    own.update({key: value for key, value in options.items() if value is not None})
    merged = {**values, **own}
    return make_config({**merged, "output_dir": merged.get("output_dir") or f"runs/{name}"}, source)


def make_config(values: Mapping[str, Any], source: str) -> Config:
    """A `Config` of plain values, lists taken for tuples. UserError, naming `source`, for a wrong key or value."""
    converted = {}
    for key, value in values.items():
        if key not in KEYS:
            raise UserError(f"{source}: key {key!r} is not known{nearest(str(key), KEYS)}.")
        converted[key] = _convert(key, value, source)
    if "network" not in converted:
        raise UserError(f"{source}: does not say which network to train. Expected `network: us_mobilenet_v1` or another.")
    try:
        return Config(**converted)
    except UserError as error:
        raise type(error)(f"{source}: {error}") from error


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
        return yaml.safe_load(text) if text else ""
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"--set {change}: {text!r} is not a YAML value ({' '.join(str(error).split())}).") from error


def _convert(key: str, value: Any, source: str) -> Any:
    """`value` as the type of `key`; UserError where it is another one."""
    kind = TYPES[key]
    converted = _as(kind, value)
    if converted is _WRONG:
        raise UserError(f"{source}: {key} is {value!r}, expected {_describe(kind)}.")
    return converted


def _as(kind: Any, value: Any) -> Any:  # noqa: PLR0911 (one kind after the other)
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
    if isinstance(kind, types.GenericAlias):
        return f"a list, each entry {_describe(typing.get_args(kind)[0])}"
    if isinstance(kind, types.UnionType):
        return " or ".join(map(_describe, typing.get_args(kind)))
    return {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}[kind]
