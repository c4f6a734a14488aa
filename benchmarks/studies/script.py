"""What the scripts share: a parser that shows the script's own description, and `--json FILE`, which the results go to."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slimtrain.base.command import script_messages
from slimtrain.base.files import write_atomically
from slimtrain.base.image_size import ImageSize, as_image_size
from slimtrain.base.packages import is_installed


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """The description as it is written, and the default behind the help of every option that has one."""

    def add_argument(self, action: argparse.Action) -> None:
        default, text = action.default, action.help or ""
        silent = default is None or isinstance(default, bool) or argparse.SUPPRESS in (default, text) or "default" in text
        if action.option_strings and not silent:
            shown = ",".join(map(str, default)) if isinstance(default, list | tuple) else default
            action.help = f"{text}  [default: {str(shown).replace('%', '%%') or 'none'}]".strip()
        super().add_argument(action)


def script_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that shows a script's docstring as it is written, and every default."""
    return argparse.ArgumentParser(description=description, formatter_class=_Formatter)


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments, `--json` among them."""
    parser.add_argument("--json", type=Path, help="write the results here too")
    return parser.parse_args()


def whole_number(text: str) -> int:
    """What an option of 1 or more takes."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, 1 or more")
    return number


def image_size(text: str) -> ImageSize:
    """What an option of a size takes: `224`, or height and width as in `320x544`."""
    try:
        return as_image_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def needs(program: str, *modules: str) -> None:
    """End the script `program` with one line and exit code 3 where one of `modules` is not installed; none is loaded."""
    with script_messages(program):
        for module in modules:
            if not is_installed(module):
                raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def write_result(path: Path | None, result: Mapping[str, Any]) -> None:
    """Write what a script measured, if anybody wants it. Raises what `write_atomically` raises."""
    if path is not None:
        write_atomically(path, (json.dumps(result, indent=1) + "\n").encode())
