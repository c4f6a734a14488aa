"""What the scripts share: a parser that shows the script's own description, and `--json FILE`, which the results go to."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slimtrain.base.files import write_atomically


def script_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that shows a script's docstring as it is written."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments, `--json` among them."""
    parser.add_argument("--json", type=Path, help="write the results here too")
    return parser.parse_args()


def write_result(path: Path | None, result: Mapping[str, Any]) -> None:
    """Write what a script measured, if anybody wants it. Raises what `write_atomically` raises."""
    if path is not None:
        write_atomically(path, (json.dumps(result, indent=1) + "\n").encode())
