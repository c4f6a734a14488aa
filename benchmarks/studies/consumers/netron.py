"""Whether netron opens our files: its own modules, run by node without a page, beside what the onnx package reads."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("netron.mjs")


def missing() -> str:
    """What netron cannot be asked without, or nothing."""
    if importlib.util.find_spec("netron") is None:
        return "pip install netron"
    return "" if shutil.which("node") else "node, which runs netron's JavaScript"


def opened(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """What netron shows of ONNX files: `format`, and whether `operators`, `inputs` and `outputs` are the file's; or the
    `error` that it gives."""
    spec = importlib.util.find_spec("netron")
    assert spec is not None and spec.origin is not None
    words = ["node", str(SCRIPT), str(Path(spec.origin).parent), *map(str, paths)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    if len(shown) != len(paths):
        raise RuntimeError(f"netron ended with {done.returncode}: {done.stderr.strip()[:500]}")
    return [row if "error" in row else _compared(row, path) for row, path in zip(shown, paths, strict=True)]


def _compared(row: dict[str, Any], path: Path) -> dict[str, Any]:
    """What is shown of a file beside what is in it. A constant that is a node is shown where it is used."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    operators = Counter(node.op_type for node in graph.node if node.op_type != "Constant")
    return {
        "format": row["format"],
        "nodes": len(row["operators"]),
        "operators": Counter(row["operators"]) == operators,
        "inputs": row["inputs"] == [value.name for value in graph.input],
        "outputs": row["outputs"] == [value.name for value in graph.output],
    }
