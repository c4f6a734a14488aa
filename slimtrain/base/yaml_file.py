"""YAML files, read without running anything: `!include FILE` is understood, the last of repeated keys counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from slimtrain.base.errors import UserError


def load_yaml(path: Path, depth: int = 0) -> Any:
    """The YAML of `path`, safely loaded, `!include`d files put in place. UserError where it cannot be read."""

    class Loader(yaml.SafeLoader):
        pass

    def include(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
        if depth > 8:
            raise UserError(f"{path}: !include goes deeper than 8 files, is it a circle?")
        assert isinstance(node, yaml.ScalarNode)
        return load_yaml(path.parent / str(loader.construct_scalar(node)), depth + 1)

    Loader.add_constructor("!include", include)
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506 (a SafeLoader)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}).") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: is not YAML: {' '.join(str(error).split())}.") from error
