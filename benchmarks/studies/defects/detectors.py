"""Whether the proof of an export catches single defects in a detector's file: caught, harmless, missed.

    python -m benchmarks.studies.defects.detectors --ckpt runs/detect_digits/s_faster_rcnn.pt [--width 0.25] [--defects 1000]
        [--verify-only] [--probes 64]

Each defect (`detector_mutations.py`), none twice, is put into a file that was exported and proven; then the file is proven as
the export does it, part by part, and as `--verify-only` does with nothing but the bundle. What one of both lets pass is
harmless if on 64 scenes that nobody saw every detection of the right file is there, within the file's tolerance, and no other;
else it was missed.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.machine.environment import environment, portable
from benchmarks.studies.defects.__main__ import packed
from benchmarks.studies.defects.trying import HARMLESS, MISSED, OUTCOMES, TRIES
from benchmarks.studies.defects.victim import AGAIN, AT_EXPORT, PASSES, WAYS
from benchmarks.studies.script import needs, parse, script_parser, write_result
from slimtrain.base.command import script_messages
from slimtrain.base.text import table

if TYPE_CHECKING:
    from benchmarks.studies.defects.detector_victim import DetectorVictim

PROGRAM = "benchmarks.studies.defects.detectors"


def attempts(victim: DetectorVictim, most: int, seed: int, at_export: bool = True) -> Iterator[dict[str, Any]]:
    """`most` defects, kinds in turn, none twice: what, where, and what came of it, also `at_export`."""
    from benchmarks.studies.defects.detector_mutations import NEIGHBOUR

    seen, tried = set[bytes](), 0
    norms = victim.neighbours()
    for name, content, where in _drawn(victim, seed):
        for one, file, place in [(name, content, where), *((NEIGHBOUR, *norm) for norm in _next(norms, tried))]:
            digest = hashlib.sha256(file).digest()
            if digest in seen:
                continue
            seen.add(digest)
            tried += 1
            yield {"defect": one, "where": place, **_judged(victim, file, at_export)}
            if tried == most:
                return


def _next(norms: Iterator[tuple[bytes, str]], tried: int) -> list[tuple[bytes, str]]:
    """Of norms one in twenty defects."""
    norm = next(norms, None) if tried % 20 == 0 else None
    return [] if norm is None else [norm]


def _drawn(victim: DetectorVictim, seed: int) -> Iterator[tuple[str, bytes, str]]:
    """Defects of kinds in turn, until there is no other one of any."""
    from benchmarks.studies.defects.detector_mutations import DETECTOR_MUTATIONS
    from benchmarks.studies.defects.mutations import NotHere
    from slimexport.onnx_files.graph_writer import INNER

    draw, kinds, seen = np.random.default_rng(seed), list(DETECTOR_MUTATIONS), set[bytes]()
    assert any(entry.key == INNER for entry in victim.model.metadata_props)
    while kinds:
        name = kinds.pop(0)
        for _ in range(TRIES):
            copy = type(victim.model)()
            copy.CopyFrom(victim.model)
            try:
                where = DETECTOR_MUTATIONS[name](copy, draw)
            except NotHere:
                continue
            content = copy.SerializeToString(deterministic=True)
            if (digest := hashlib.sha256(content).digest()) not in seen:
                seen.add(digest)
                kinds.append(name)
                yield name, content, where
                break


def _judged(victim: DetectorVictim, content: bytes, at_export: bool) -> dict[str, Any]:
    outcome = victim.try_one(content, at_export)
    judged = {AGAIN: outcome.again} if outcome.export is None else {AT_EXPORT: outcome.export, AGAIN: outcome.again}
    row: dict[str, Any] = {"differs": None, "detections": None}
    if (fresh := outcome.fresh) is not None:
        verdict = MISSED if fresh.reasons else HARMLESS
        judged = {way: verdict if one == PASSES else one for way, one in judged.items()}
        row = {"differs": fresh.mismatches + fresh.faults, "detections": fresh.detections}
    return {**judged, **row}


def summary(rows: list[dict[str, Any]]) -> list[list[str]]:
    """A row for each way of proving that was tried."""
    lines = [["proof", "tried", *OUTCOMES]]
    for way in [way for way in (AT_EXPORT, AGAIN) if rows and way in rows[0]]:
        counts = Counter(row[way] for row in rows)
        lines.append([WAYS[way], str(counts.total()), *(str(counts[name]) for name in OUTCOMES)])
    return lines


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--ckpt", required=True, help="of a detector of digits")
    parser.add_argument("--width", type=float, help="[default: the narrowest]")
    parser.add_argument("--defects", type=int, default=1000)
    parser.add_argument("--minutes", type=float, help="after which no other is tried  [default: none]")
    parser.add_argument("--probes", type=int, help="scenes that files are proven on  [default: as an export has]")
    parser.add_argument("--verify-only", action="store_true", help="try this alone, which takes a tenth of the time")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parse(parser)
    needs(PROGRAM, "torch", "torchvision", "onnx", "onnxruntime")
    with script_messages(PROGRAM, "interrupted, nothing was written."), tempfile.TemporaryDirectory() as folder:
        import torch

        from benchmarks.studies.defects.detector_victim import DetectorVictim

        torch.set_num_threads(1)
        victim = DetectorVictim(arguments.ckpt, arguments.width, Path(folder), arguments.probes)
        rows, end = [], time.monotonic() + 60 * (arguments.minutes or float("inf"))
        for row in attempts(victim, arguments.defects, arguments.seed, not arguments.verify_only):
            rows.append(row)
            if MISSED in row.values():
                print(f"missed: {row}", flush=True)
            if time.monotonic() > end:
                break
        header, *lines = summary(rows)
        print(table(header, lines))
        command = f"python -m {PROGRAM} --ckpt {portable(arguments.ckpt)} --width {victim.plan.width} --defects {len(rows)}"
        command += f" --probes {arguments.probes}" if arguments.probes else ""
        command += " --verify-only" if arguments.verify_only else ""
        result: dict[str, Any] = {"command": f"{command} --seed {arguments.seed}", "environment": environment()}
        result |= {"probes": len(victim.job.images), "tolerance": victim.check.tolerance}
        write_result(arguments.json, {**result, "rows": packed(rows)})


if __name__ == "__main__":
    main()
