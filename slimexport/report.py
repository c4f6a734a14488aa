"""What the command says: a table of files, and what failed and what to do. No torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from slimexport.target.backends import ONNX
from slimexport.target.manifest import UNVERIFIABLE, FileEntry, Manifest
from slimexport.target.precision import EXACT, PRECISIONS, Difference, row_of
from slimtrain.base.text import count
from slimtrain.costs.cost import format_macs


def format_bytes(size: int) -> str:
    """`5.06 MiB`."""
    return f"{size / 2**20:.2f} MiB"


def width_text(entry: FileEntry) -> str:
    """What the first column shows: the width, the switch, or a plan's name."""
    return entry.name if entry.width is None else str(entry.width)


def entry_row(entry: FileEntry) -> list[str]:
    """One line of the table."""
    check = entry.verification
    row = [width_text(entry), format_macs(entry.macs), f"{entry.params:,}", format_bytes(entry.size_bytes)]
    if check.backend is None:
        return [*row, check.status]
    error = "not finite" if check.max_rel_error is None else f"{check.max_rel_error:.1e}"
    if check.least_cosine is not None:
        tolerance = "cosine nan" if check.cosine is None else f"cosine {check.cosine:.4f}"
    else:
        tolerance = f"{check.tolerance:.0e}" + (" *" if _is_widened(entry) else "")
    agreement = "" if check.top1_agreement is None else f"{check.top1_agreement:.0%}"
    return [*row, check.status, error, tolerance, agreement, f"{check.spread:.2g}"]


def _is_widened(entry: FileEntry) -> bool:
    """Whether a file was held to another tolerance than its precision's own."""
    return entry.verification.tolerance_from not in (None, "default")


HEADER = ["width", "MACs", "params", "size", "check", "error", "tolerance", "agree", "spread"]
ACCURACY = "accuracy"


def table(entries: Sequence[FileEntry]) -> str:
    """All entries, a line each, under a header; numbers to the right."""
    rows = [entry_row(entry) for entry in entries]
    columns = max(map(len, rows), default=5)
    lines = [HEADER[:columns], *([*row, *[""] * (columns - len(row))] for row in rows)]
    precisions = [entry.precision for entry in entries]
    if set(precisions) - {EXACT}:
        for line, precision in zip(lines, ["precision", *precisions], strict=True):
            line.insert(1, precision)
    measured = [entry.accuracy for entry in entries]
    if any(measured):
        lines[0].append(ACCURACY)
        for line, accuracy in zip(lines[1:], measured, strict=True):
            line.append(f"{accuracy.top1:.2%}" if accuracy else "")
    sizes = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join(cell.rjust(size) for cell, size in zip(line, sizes, strict=True)).rstrip() for line in lines]
    text += _notes(entries)
    for data, images in dict.fromkeys((accuracy.data, accuracy.images) for accuracy in measured if accuracy):
        text.append(f"accuracy: the files' top-1 on the {count(images, 'image')} of {data}")
    return "\n".join(text)


def _notes(entries: Sequence[FileEntry]) -> list[str]:
    """What is to be told of tolerances, and of who the files are for."""
    notes = []
    for precision in dict.fromkeys(entry.precision for entry in entries if _is_widened(entry)):
        proof = row_of(precision).proof
        if isinstance(proof, Difference):
            notes.append(
                f"* {proof.factor:g} times what {_rounding(precision)} costs the slimmable network on the same images, at "
                f"most {proof.most:.0e}"
            )
        else:
            notes.append("* of the scale: logits of one class have no direction")
    several = {entry.precision for entry in entries if entry.format == ONNX and entry.made_for}
    notes += [f"{row.name}: for {' and '.join(row.made_for)}" for row in PRECISIONS.values() if row.name in several]
    return notes


def _rounding(precision: str) -> str:
    return "float32" if precision == EXACT else f"rounding to {precision}"


def rejection(manifest: Manifest, output: Path, published: bool) -> str:
    """What failed in an export, why, what became of the rest, and what to do."""
    lines = _reasons(manifest.rejected)
    if not manifest.artifacts:
        lines.append("Nothing was written.")
    elif published:
        others = len(manifest.artifacts)
        lines.append(f"The other {'file is' if others == 1 else f'{others} files are'} in {output}.")
    else:
        lines.append(f"{output} was left as it was.")
    return "\n".join(lines)


def _reasons(entries: Sequence[FileEntry]) -> list[str]:
    """Why files were rejected; what differs in names and figures only is told once, with the names of the others."""
    by_text: dict[str, list[tuple[FileEntry, str]]] = {}
    for entry in entries:
        reason = _reason(entry)
        by_text.setdefault(re.sub(r"\d\S*", "#", reason.replace(entry.name, "")), []).append((entry, reason))
    lines = []
    for (_, text), *more in by_text.values():
        names = ", ".join(entry.name for entry, _ in more)
        lines.append(f"{text} The same for {len(more)} more: {names}." if more else text)
    return lines


def _reason(entry: FileEntry) -> str:
    """Why an ONNX file was rejected, and what to do."""
    check = entry.verification
    if check.status == UNVERIFIABLE:
        return (
            f"{entry.name}: unverifiable, the probe images' {check.output or 'logits'} differ by {check.spread:.1e} of their "
            "scale only, so that most defects would go unseen. Give photographs with --verify-data FOLDER, or other inputs as "
            "a .npy file (or skip the proof with --no-verify)."
        )
    if check.least_cosine is not None:
        its = "logits point" if check.output is None else f"output {check.output} points"
        return (
            f"{entry.name} {entry.precision}: failed, its {its} elsewhere (cosine {check.cosine or float('nan'):.3f}, "
            f"expected at least {check.least_cosine}). The file was not kept. Calibrate with more images, or with "
            "--int8-calibration max."
        )
    error = check.max_rel_error
    scale = "the logits' scale" if check.output is None else f"the scale of output {check.output}"
    what = "outputs that are not finite" if error is None else f"a difference of {error:.1e} of {scale}"
    gap = check.rounding_gap
    own = "" if gap is None else f" (the slimmable network itself, rounded to {entry.precision}, is off by {gap:.1e})"
    return (
        f"{entry.name}{'' if entry.precision == EXACT else f' {entry.precision}'}: failed, {what}{own}, expected at most "
        f"{check.tolerance:.0e}. The file was not kept. {_advice(entry)}"
    )


def _advice(entry: FileEntry) -> str:
    """What to do about a file whose logits are too far off."""
    if entry.precision == EXACT:
        return "Please report this with the checkpoint's layout."
    wider = [name for name, row in PRECISIONS.items() if name == EXACT or (row.torch and row.weight_bytes == 2)]
    others = " or ".join(name for name in wider if name != entry.precision)
    return (
        f"This network does not bear {entry.precision}: export {others}, calibrate its batch norms on more images, or train "
        "it longer (an untrained network often is chaotic)."
    )
