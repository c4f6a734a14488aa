"""Everything here that can be run, for `python -m benchmarks --list`: read off the files themselves, so none is forgotten."""

from __future__ import annotations

import ast
from pathlib import Path

STUDIES = Path(__file__).parent / "studies"
COMMANDS = {
    "python -m benchmarks BUNDLE...": "What every width of a bundle costs on this device, next to its MACs.",
    "python -m benchmarks choose BUNDLE --latency-ms 5": "The widest, or most accurate, width within a latency budget.",
    "python -m benchmarks channels NETWORK": "Where latency steps as channels shrink; writes the latency table.",
    "python -m benchmarks load BUNDLE_OR_URL": "How a served bundle keeps deadlines under load, at what accuracy.",
}


def scripts() -> dict[str, str]:
    """Command to what it does: the commands above, then every script in `studies`, a file or a folder with a `__main__`, by
    its docstring's first paragraph."""
    commands = dict(COMMANDS)
    for name, path in sorted((_name(path), path) for path in (*STUDIES.glob("*.py"), *STUDIES.glob("*/__main__.py"))):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body):
            summary = (ast.get_docstring(tree) or "").split("\n\n")[0]
            commands[f"python -m benchmarks.studies.{name}"] = " ".join(summary.split())
    return commands


def _name(path: Path) -> str:
    """What a script is called: its file, or its folder."""
    return path.parent.name if path.stem == "__main__" else path.stem


def listing() -> str:
    """The scripts as text, a command and what it does on the line below."""
    return "\n".join(f"{command}\n    {what}" for command, what in scripts().items())
