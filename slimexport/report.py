"""What the command says: a table of files, and what failed and what to do. No torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from slimexport.target.backends import ONNX
from slimexport.target.manifest import FileEntry, Manifest
from slimexport.target.precision import EXACT, PRECISIONS, Difference, row_of
from slimexport.target.proof.detections import UNDECIDED
from slimexport.target.proof.differences import why_apart
from slimexport.target.proof.verify import MOST_UNREACHED
from slimexport.target.verification import IN_PART, PASSED, UNVERIFIABLE
from slimtrain.base.side_by_side import side_by_side
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
    if check.least_alike is not None and check.max_rel_error is None:  # of detections as a whole
        error, tolerance = "-", "alike nan" if check.alike is None else f"alike {check.alike:.4f}"
    elif check.least_cosine is not None:
        tolerance = "cosine nan" if check.cosine is None else f"cosine {check.cosine:.4f}"
    else:
        tolerance = _figure(check.tolerance, ".0e") + (" *" if _is_widened(entry) else "")
    agreement = "" if check.top1_agreement is None else f"{check.top1_agreement:.0%}"
    return [*row, check.status, error, tolerance, agreement, _figure(check.spread, ".2g")]


def _figure(value: float | None, form: str) -> str:
    """A number of a manifest, which need not tell it."""
    return "-" if value is None else f"{value:{form}}"


def _is_widened(entry: FileEntry) -> bool:
    """Whether a file was held to another tolerance than its precision's own."""
    return entry.verification.tolerance_from not in (None, "default")


def _check_columns(entries: Sequence[FileEntry | None]) -> list[list[str]]:
    """What differs between the files of a format and precision, in their order; "-" where a width has none."""
    present = [entry for entry in entries if entry is not None]
    rows = {entry.name: entry_row(entry) for entry in present}
    by_cosine = any(entry.verification.least_cosine is not None for entry in present)
    columns = [["MiB", *(f"{entry.size_bytes / 2**20:.2f}" if entry else "-" for entry in entries)]]
    if any(entry.verification.status != PASSED for entry in present):
        columns.append([CHECK, *(entry.verification.status if entry else "-" for entry in entries)])
    if any(entry.verification.backend is not None for entry in present):
        cosines = [
            "-" if entry is None or entry.verification.cosine is None else f"{entry.verification.cosine:.4f}"
            for entry in entries
        ]
        errors = [rows[entry.name][ERROR_AT] if entry and len(rows[entry.name]) > ERROR_AT else "-" for entry in entries]
        columns.append(["cosine", *cosines] if by_cosine else ["error", *errors])
        if any(entry.verification.top1_agreement is not None for entry in present):
            columns.append(["agree", *(_agreement(entry) if entry else "-" for entry in entries)])
    columns += [[cell or "-" for cell in column] for column in _accuracy_columns(entries)]
    return columns


def _accuracy_columns(entries: Sequence[FileEntry | None]) -> list[list[str]]:
    """Of classifiers how often they are right, of detectors average precision; a header, and a cell for each entry, empty
    where nothing was measured. None where there is nothing at all."""
    measured = [entry.accuracy if entry else None for entry in entries]
    columns = []
    for header, name, form in FIGURES:
        values = [getattr(accuracy, name) if accuracy else None for accuracy in measured]
        if any(value is not None for value in values):
            columns.append([header, *("" if value is None else f"{value:{form}}" for value in values)])
    return columns


def _agreement(entry: FileEntry) -> str:
    agreement = entry.verification.top1_agreement
    return "-" if agreement is None else f"{agreement:.0%}"


def _joint_table(entries: Sequence[FileEntry]) -> list[str]:
    """The files of several precisions, a line for each width, and what all files of a precision were held to."""
    formats = {entry.format for entry in entries}
    first = {entry.name: entry for entry in reversed(entries)}
    names = list(dict.fromkeys(entry.name for entry in entries))
    known = [
        ["width", *(width_text(first[name]) for name in names)],
        ["MACs", *(format_macs(first[name].macs) for name in names)],
        ["params", *(f"{first[name].params:,}" for name in names)],
    ]
    tables, held = [], []
    for key in dict.fromkeys((entry.format, entry.precision) for entry in entries):
        mine = {entry.name: entry for entry in entries if (entry.format, entry.precision) == key}
        title = key[1] if len(formats) == 1 else " ".join(key)
        tables.append((title, _check_columns([mine.get(name) for name in names])))
        bounds = dict.fromkeys(_tolerance(entry) for entry in mine.values() if entry.verification.backend)
        says = [" or ".join(bounds).replace(f" or {ERROR_UP_TO}", " or ")]
        if runtimes := next(iter(mine.values())).made_for:
            says.append(f"for {' and '.join(runtimes)}")
        if text := "; ".join(filter(None, says)):
            held.append(f"{title}: {text}")
    checked = [entry for entry in entries if entry.verification.backend]
    passed = sum(entry.verification.status == PASSED for entry in checked)
    if passed:
        whole = passed == len(checked) == len(entries)
        held.insert(0, f"{f'all {passed}' if whole else f'{passed} of {len(entries)}'} files passed their check")
    return [*side_by_side(known, tables).splitlines(), *held]


def _tolerance(entry: FileEntry) -> str:
    """What a file was held to: the largest error permitted, or the least cosine."""
    check = entry.verification
    if check.least_cosine is not None:
        return f"cosine at least {check.least_cosine:g}"
    return f"{ERROR_UP_TO}{_figure(check.tolerance, '.0e')}{' *' * _is_widened(entry)}"


HEADER = ["width", "MACs", "params", "size", "check", "error", "tolerance", "agree", "spread"]
OF_LOGITS = ("agree", "spread")  # columns that say nothing of a detector's files
CHECK = "check"
FIGURES = (  # of an accuracy: column, key, how it is shown
    ("accuracy", "top1", ".2%"),
    ("AP", "ap", ".3f"),
    ("AP50", "ap50", ".3f"),
    ("mask AP", "ap_masks", ".3f"),
    ("keypoint AP", "ap_keypoints", ".3f"),
    ("checkpoint", "checkpoint_ap", ".3f"),
)
TOP1 = "accuracy: the files' top-1"
ERROR_UP_TO = "error up to "
ERROR_AT = HEADER.index("error")


def table(entries: Sequence[FileEntry]) -> str:
    """All entries under a header, numbers to the right: a line for each file or, of several widths in several precisions, for
    each width."""
    kinds = {(entry.format, entry.precision) for entry in entries}
    joint = len(kinds) > 1 and len({entry.name for entry in entries}) > 1
    text = [*_joint_table(entries), *_stars(entries)] if joint else [*_list(entries), *_stars(entries), *_made_for(entries)]
    text += _unexercised(entries) + _detections(entries)
    measured = [(a.top1 is None, a.data, a.images) for entry in entries if (a := entry.accuracy)]
    for detects, data, images in dict.fromkeys(measured):
        on = f"on the {count(images, 'image')} of {data}"
        text.append(f"AP: COCO's average precision of the files, and of the checkpoint, {on}" if detects else f"{TOP1} {on}")
    return "\n".join(text)


def _unexercised(entries: Sequence[FileEntry]) -> list[str]:
    """How many channels no probe image moves, of the file of which these are most."""
    shares = [
        (check.unexercised / check.watched, check.unexercised, check.watched, _file_name(entry))
        for entry in entries
        if (check := entry.verification).unexercised and check.watched
    ]
    if not shares:
        return []
    share, still, watched, name = max(shares)
    line = (
        f"no probe image moves {still:,} of {watched:,} channels of {name} ({share:.1%}): what is wrong with these goes unseen"
    )
    if any(entry.verification.status == IN_PART and not entry.verification.reason for entry in entries):
        line += (
            f"; {IN_PART}: other images of the kind move more than {MOST_UNREACHED:.0%} of the channels that these do not. "
            "Take more of them: --probes 32"
        )
    return [line]


def _detections(entries: Sequence[FileEntry]) -> list[str]:
    """What came of detectors' detections on the probe images, over all files."""
    every = [check for entry in entries if (check := entry.verification).detections is not None]
    whole = [check for check in every if check.alike is not None]
    checks = [check for check in every if check.alike is None]
    parts = [entry.verification for entry in entries if entry.verification.status == IN_PART]
    ends = [f"{IN_PART}: {reason}" for reason in dict.fromkeys(check.reason for check in parts) if reason]
    lines = []
    if whole:
        least = min(check.alike or 0.0 for check in whole)
        lines.append(
            f"files of fewer bits detect what the checkpoint does to {least:.2f} at least (1: the same boxes and scores); "
            "their layers were proven one by one"
        )
    if not checks:
        return lines + ends
    matched, ties = sum(check.detections or 0 for check in checks), sum(check.ties or 0 for check in checks)
    boxes, scores = (max(getattr(check, name) or 0.0 for check in checks) for name in ("box_error", "score_error"))
    lines.append(
        f"{count(matched, 'detection')} matched one to one with the checkpoint's: boxes within {boxes:.1g} px, scores within "
        f"{scores:.1g}; {count(ties, 'tie')}, where near-equals decide otherwise"
    )
    return lines + ends


def _list(entries: Sequence[FileEntry]) -> list[str]:
    """A line for each file."""
    rows = [entry_row(entry) for entry in entries]
    columns = max(map(len, rows), default=5)
    lines = [HEADER[:columns], *([*row, *[""] * (columns - len(row))] for row in rows)]
    if not any(entry.verification.top1_agreement is not None or entry.verification.spread is not None for entry in entries):
        lines = [[cell for name, cell in zip(HEADER, line, strict=False) if name not in OF_LOGITS] for line in lines]
    precisions = [entry.precision for entry in entries]
    if set(precisions) - {EXACT}:
        for line, precision in zip(lines, ["precision", *precisions], strict=True):
            line.insert(1, precision)
    formats = [entry.format for entry in entries]
    if len(set(formats)) > 1:
        for line, form in zip(lines, ["format", *formats], strict=True):
            line.insert(1, form)
    for column in _accuracy_columns(entries):
        for line, cell in zip(lines, column, strict=True):
            line.append(cell)
    sizes = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return ["  ".join(cell.rjust(size) for cell, size in zip(line, sizes, strict=True)).rstrip() for line in lines]


def _stars(entries: Sequence[FileEntry]) -> list[str]:
    """What is to be told of tolerances that are not a precision's own."""
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
    return notes


def _made_for(entries: Sequence[FileEntry]) -> list[str]:
    """Who the files are for."""
    several = {entry.precision for entry in entries if entry.format == ONNX and entry.made_for}
    return [f"{row.name}: for {' and '.join(row.made_for)}" for row in PRECISIONS.values() if row.name in several]


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
        text = reason.removeprefix(_file_name(entry)).replace(entry.name, "")
        by_text.setdefault(re.sub(r"\d\S*", "#", text), []).append((entry, reason))
    lines = []
    for (_, text), *more in by_text.values():
        names = ", ".join(_file_name(entry) for entry, _ in more)
        lines.append(f"{text} The same for {len(more)} more: {names}." if more else text)
    return lines


def _file_name(entry: FileEntry) -> str:
    """A network's name, and the precision of its file where that is not fp32."""
    return entry.name if entry.precision == EXACT else f"{entry.name} {entry.precision}"


INT8_ADVICE = (
    "Verify with images of the kind that it was calibrated on (--verify-data; noise is far from photographs), calibrate with "
    "more images, or with --int8-calibration max."
)
REPORT = "Please report this with the checkpoint's layout."


def _reason(entry: FileEntry) -> str:
    """Why an ONNX file was rejected, and what to do."""
    check = entry.verification
    if check.status == UNVERIFIABLE:
        return (
            f"{_file_name(entry)}: unverifiable, the probe images' {check.output or 'logits'} differ by {check.spread:.1e} of "
            "their scale only, so that most defects would go unseen. Give photographs with --verify-data FOLDER, or other "
            "inputs as a .npy file (or skip the proof with --no-verify)."
        )
    if check.reason is not None:
        what_to_do = "" if UNDECIDED in check.reason else f" {REPORT}"  # that says itself what to do
        return f"{_file_name(entry)}: failed, {check.reason}. The file was not kept.{what_to_do}"
    if apart := why_apart(check):
        return f"{_file_name(entry)}: failed, {apart}. The file was not kept. {INT8_ADVICE}"
    if check.least_cosine is not None:
        its = "logits point" if check.output is None else f"output {check.output} points"
        cosine = "unknown" if check.cosine is None else f"{check.cosine:.3f}"
        return (
            f"{_file_name(entry)}: failed, its {its} elsewhere (cosine {cosine}, "
            f"expected at least {check.least_cosine}). The file was not kept. {INT8_ADVICE}"
        )
    error = check.max_rel_error
    scale = "the logits' scale" if check.output is None else f"the scale of output {check.output}"
    what = "outputs that are not finite" if error is None else f"a difference of {error:.1e} of {scale}"
    gap = check.rounding_gap
    own = "" if gap is None else f" (the slimmable network itself, rounded to {entry.precision}, is off by {gap:.1e})"
    return (
        f"{_file_name(entry)}: failed, {what}{own}, expected at most "
        f"{check.tolerance:.0e}. The file was not kept. {_advice(entry)}"
    )


def _advice(entry: FileEntry) -> str:
    """What to do about a file whose logits are too far off."""
    if entry.precision == EXACT:
        return REPORT
    wider = [name for name, row in PRECISIONS.items() if name == EXACT or (row.torch and row.weight_bytes == 2)]
    others = " or ".join(name for name in wider if name != entry.precision)
    return (
        f"This network does not bear {entry.precision}: export {others}, calibrate its batch norms on more images, or train "
        "it longer (an untrained network often is chaotic)."
    )
