"""What the command prints: a table of artifacts. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slimtrain.costs.cost import format_macs


def format_bytes(size: int) -> str:
    """`5.06 MiB`."""
    return f"{size / 2**20:.2f} MiB"


def width_text(artifact: dict[str, Any]) -> str:
    """What the first column shows: the width, the switch, or a plan's name."""
    return artifact["name"] if artifact["width"] is None else str(artifact["width"])


def artifact_row(artifact: dict[str, Any]) -> list[str]:
    """One line of the table."""
    check = artifact["verification"]
    row = [
        width_text(artifact),
        format_macs(artifact["macs"]),
        f"{artifact['params']:,}",
        format_bytes(artifact["size_bytes"]),
    ]
    if "max_rel_error" not in check:
        return [*row, check["status"]]
    error = "not finite" if check["max_rel_error"] is None else f"{check['max_rel_error']:.1e}"
    if "cosine" in check:
        tolerance = "cosine nan" if check["cosine"] is None else f"cosine {check['cosine']:.4f}"
    else:
        tolerance = f"{check['tolerance']:.0e}"
        if check["tolerance_from"] != "default":
            tolerance += " *"
    return [*row, check["status"], error, tolerance, f"{check['top1_agreement']:.0%}", f"{check['spread']:.2g}"]


HEADER = ["width", "MACs", "params", "size", "check", "error", "tolerance", "agree", "spread"]
ACCURACY = "accuracy"


def table(artifacts: Sequence[dict[str, Any]]) -> str:
    """All artifacts, a line each, under a header; numbers to the right."""
    rows = [artifact_row(artifact) for artifact in artifacts]
    columns = max(map(len, rows), default=5)
    lines = [HEADER[:columns], *([*row, *[""] * (columns - len(row))] for row in rows)]
    precisions = [artifact.get("precision", "fp32") for artifact in artifacts]
    if set(precisions) - {"fp32"}:
        for line, precision in zip(lines, ["precision", *precisions], strict=True):
            line.insert(1, precision)
    measured = [artifact.get("accuracy") for artifact in artifacts]
    if any(measured):
        lines[0].append(ACCURACY)
        for line, accuracy in zip(lines[1:], measured, strict=True):
            line.append(f"{accuracy['top1']:.2%}" if accuracy else "")
    sizes = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join(cell.rjust(size) for cell, size in zip(line, sizes, strict=True)).rstrip() for line in lines]
    if any(artifact["verification"].get("tolerance_from", "default") != "default" for artifact in artifacts):
        text.append("* 20 times what float32 costs the slimmable network on the same images, at most 1e-2")
    for found in dict.fromkeys((a["data"], a["images"]) for a in measured if a):
        text.append("accuracy: the files' top-1 on the {1} images of {0}".format(*found))
    return "\n".join(text)
