"""Whether the proof of an export catches single defects in its files: caught, harmless, missed, of every precision.

    python -m benchmarks.studies.defects [--networks us_mobilenet_v1,...] [--image-size 64] [--defects 1000] [--json r.json]
    python -m benchmarks.studies.defects --ckpt runs/digits/us_mbv1.pt [--width 0.5] [--defects 1000] [--json r.json]

Each defect (`mutations.py`) is put into a file that was exported and proven, as drawn; then the file is proven as the export
does it, and as `--verify-only` does on another machine, with nothing but the bundle. One that no longer loads or runs is
counted apart: that is no merit of the proof. What a proof lets pass is harmless if no output changes by more than the file's
tolerance on 64 fresh images, which are digits of a checkpoint and noise of an untrained network; else it was missed. The
tolerance of int8 files is a hundredth of the scale at the export, and what roundings move them by at --verify-only.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine.environment import environment
from benchmarks.studies.script import needs, parse, script_parser, write_result
from slimexport.target.precision import PRECISIONS, Difference, row_of
from slimexport.target.proof.verify import verify_again
from slimexport.target.reference import Probes
from slimtrain.base.command import script_messages
from slimtrain.base.text import table

PROGRAM = "benchmarks.studies.defects"
NETWORKS = "us_mobilenet_v1,s_mobilenet_v2,s_resnet50,s_shufflenet"
FRESH = 64
CALIBRATED = 32  # images of noise
INT8_TOLERANCE = 1e-2
PASSES = "passes"
AT_EXPORT, AGAIN = "outcome", "verify_only"
OUTCOMES = BROKEN, CAUGHT, HARMLESS, MISSED = "does not run", "caught", "harmless", "missed"
TRIES = 20  # for a place of a defect that is drawn


class Victim:
    """A plan of a network, its files, and how they are proven."""

    def __init__(self, ckpt: str, width: float | None, size: int | None, digits: bool) -> None:
        import torch

        from slimexport.job import Job
        from slimexport.onnx_files.calibration import Calibration
        from slimexport.probes.choosing import choose
        from slimexport.probes.sources import probe_images
        from slimexport.request import MOST_PROBES
        from slimexport.results import results_of
        from slimtrain.checkpoints.checkpoint import open_checkpoint
        from slimtrain.costs.cost import CostCounter
        from slimtrain.data.images import open_source, preprocessing_of
        from slimtrain.data.noise import noise_images

        checkpoint = open_checkpoint(ckpt)
        size_ = checkpoint.image_size if size is None else size
        self.plan = checkpoint.spec.plans[0] if width is None else checkpoint.spec.plan(width)
        preprocessing = preprocessing_of(checkpoint, size_, False)
        channels = preprocessing.channels
        if digits:
            images = np.stack(open_source("digits", preprocessing).some(CALIBRATED + FRESH, "defects"))
            calibrated, self.fresh = images[:CALIBRATED], images[CALIBRATED:]
        else:
            calibrated = noise_images(CALIBRATED, size_, 2, channels)
            self.fresh = noise_images(FRESH, size_, 3, channels)
        calibration = Calibration.of([calibrated], "auto")
        files = tuple(row for row in PRECISIONS.values() if row.weight_bytes)
        torch.set_num_threads(1)
        first, more = probe_images(checkpoint, preprocessing, 2, calibrated="digits" if digits else None)
        if not digits:  # int8 is calibrated on noise, and not on more contrast than that has
            more = partial(noise_images, FRESH, size_, 1, channels)
        probes = choose(checkpoint.network, [self.plan], first, more, MOST_PROBES).images
        count = CostCounter(checkpoint.spec, size_)
        self.job = Job(checkpoint, preprocessing, count, probes, files, calibration, results=results_of(checkpoint))
        self.expected = self.job.reference(self.plan)
        self.files = {artifact.precision: (content, recorded) for artifact, content, recorded in self.job.emit(self.plan)}
        self.artifacts = {artifact.precision: artifact for artifact in self.job.describe(self.plan)}
        self.own: dict[str, Probes | None] = {}

    def proven(self, precision: str, folder: Path) -> bool:
        """Whether the right file is proven, which is what others are then held to."""
        path = folder / "right.onnx"
        content, recorded = self.files[precision]
        path.write_bytes(content)
        check, own = self.job.verify(path, precision, self.plan, self.expected, recorded), None
        if check.passed and check.layers is not None:
            check, expected = self.job.own_outputs(path, precision, self.expected, check)
            own = Probes(self.job.images, expected)
        self.own[precision] = own
        self.artifacts[precision] = replace(self.artifacts[precision], verification=check)
        return check.passed

    def again(self, precision: str, content: bytes, folder: Path) -> str:
        """What --verify-only makes of a file."""
        from slimexport.onnx_files.runner import onnx_runner

        path = folder / "file.onnx"
        path.write_bytes(content)
        probes, artifact = Probes(self.job.images, self.expected), self.artifacts[precision]
        try:
            check = verify_again(onnx_runner(path, precision), artifact, probes, self.own[precision])
        except Exception:  # as in `proof`
            return BROKEN
        return PASSES if check.passed else CAUGHT

    def tolerance(self, precision: str) -> float:
        """What --verify-only permits."""
        check = self.artifacts[precision].verification
        return check.own_tolerance or check.tolerance or INT8_TOLERANCE

    def proof(self, precision: str, content: bytes, folder: Path) -> str:
        """What the export's proof makes of a file: PASSES, CAUGHT, or BROKEN where it does not load or run."""
        path = folder / "file.onnx"
        path.write_bytes(content)
        try:
            check = self.job.verify(path, precision, self.plan, self.expected, self.files[precision][1])
        except Exception:  # onnx's and onnxruntime's own kinds, and assertions of what reads files of ours
            return BROKEN
        return PASSES if check.passed else CAUGHT

    def changes(self, precision: str, content: bytes, folder: Path) -> float:
        """How far the outputs of a file are from those of the right one on fresh images, relative to their scale."""
        from slimexport.onnx_files.runner import onnx_runner

        outputs = []
        for part in (self.files[precision][0], content):
            path = folder / "file.onnx"
            path.write_bytes(part)
            runner = onnx_runner(path, precision)
            outputs.append(np.concatenate([np.asarray(runner(self.fresh[i : i + 8])) for i in range(0, len(self.fresh), 8)]))
        right, wrong = outputs
        return float(np.abs(wrong - right).max() / np.abs(right).max())


def attempts(victim: Victim, precision: str, most: int, seed: int, folder: Path) -> Iterator[dict[str, Any]]:
    """`most` defects of one file: what, where, and what came of it."""
    import onnx

    from benchmarks.studies.defects.mutations import MUTATIONS, NotHere, mutated

    model = onnx.load_from_string(victim.files[precision][0])
    assert victim.proven(precision, folder), f"the right {precision} file is not proven right"
    draw = np.random.default_rng(seed)
    proof = row_of(precision).proof
    tolerance = proof.tolerance if isinstance(proof, Difference) else INT8_TOLERANCE
    names = list(MUTATIONS)
    number = 0
    idle = 0
    while number < most and idle < TRIES * len(names):
        name = names[(number + idle) % len(names)]
        try:
            defect, where = mutated(model, name, draw)
        except NotHere:
            idle += 1
            continue
        number += 1
        content = defect.SerializeToString()
        outcomes = {AT_EXPORT: victim.proof(precision, content, folder), AGAIN: victim.again(precision, content, folder)}
        change = victim.changes(precision, content, folder) if PASSES in outcomes.values() else None
        for way, permitted in ((AT_EXPORT, tolerance), (AGAIN, victim.tolerance(precision))):
            if outcomes[way] == PASSES:
                assert change is not None
                outcomes[way] = HARMLESS if change <= permitted else MISSED
        yield {"precision": precision, "defect": name, "where": where, **outcomes, "change": change}


def summary(rows: list[dict[str, Any]]) -> list[list[str]]:
    """A row per way of proving and precision."""
    lines = [["proof", "precision", "tried", *OUTCOMES]]
    for way, title in ((AT_EXPORT, "at export"), (AGAIN, "--verify-only")):
        for precision in dict.fromkeys(row["precision"] for row in rows):
            counts = Counter(row[way] for row in rows if row["precision"] == precision)
            lines.append([title, precision, str(counts.total()), *(str(counts[name]) for name in OUTCOMES)])
    return lines


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--networks", default=NETWORKS, help="untrained")
    parser.add_argument("--ckpt", help="a trained one, on digits")
    parser.add_argument("--width", type=float, help="[default: the narrowest]")
    parser.add_argument("--image-size", type=int, default=64, help="of untrained networks")
    parser.add_argument("--defects", type=int, default=1000, help="defects of each precision, over all networks")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parse(parser)
    needs(PROGRAM, "torch", "onnx", "onnxruntime")
    with script_messages(PROGRAM, "interrupted, nothing was written."):
        names = [arguments.ckpt] if arguments.ckpt else [f"random:{name}" for name in arguments.networks.split(",")]
        rows: list[dict[str, Any]] = []
        with tempfile.TemporaryDirectory() as folder:
            for number, name in enumerate(names):
                size = None if arguments.ckpt else arguments.image_size
                victim = Victim(name, arguments.width, size, digits=bool(arguments.ckpt))
                for precision in victim.files:
                    most = -(-arguments.defects // len(names))
                    for row in attempts(victim, precision, most, arguments.seed + number, Path(folder)):
                        rows.append({"network": name.removeprefix("random:"), **row})
                        if MISSED in (row[AT_EXPORT], row[AGAIN]):
                            print(f"missed: {rows[-1]}", flush=True)
        header, *lines = summary(rows)
        print(table(header, lines))
        write_result(arguments.json, {"command": " ".join(_words(arguments)), "environment": environment(), "rows": rows})


def _words(arguments: Any) -> list[str]:
    words = [f"python -m {PROGRAM}"]
    given = (
        {"ckpt": arguments.ckpt} if arguments.ckpt else {"networks": arguments.networks, "image_size": arguments.image_size}
    )
    given |= {"width": arguments.width, "defects": arguments.defects, "seed": arguments.seed}
    return words + [f"--{key.replace('_', '-')} {value}" for key, value in given.items() if value is not None]


if __name__ == "__main__":
    main()
