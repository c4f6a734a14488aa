"""A file that was exported and proven, and what each way of proving makes of it once it has a defect."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.inside.recorded import Inside
from slimexport.target.precision import PRECISIONS
from slimexport.target.proof.verify import verify_again
from slimexport.target.reference import Own, Probes
from slimexport.target.runners import FileRunner, Given, OpenRunner, Runner

FRESH = 64
CALIBRATED = 32
SEEN = 256  # digits that no fresh one is among: those that files are made on and held against are the first ones
INT8_TOLERANCE = 1e-2
PASSES = "passes"
BROKEN, CAUGHT = "does not run", "caught"
WAYS = {"outcome": "at export", "verify_only": "`--verify-only`", "elsewhere": "`--verify-only` elsewhere"}
AT_EXPORT, AGAIN, ELSEWHERE = WAYS
BATCH = 8


class Once:
    """A runner that runs no batch twice; pieces of its file it opens as they are."""

    def __init__(self, runner: FileRunner) -> None:
        self.runner, self.backend, self.input = runner, runner.backend, runner.input
        self.given: dict[tuple[int, bytes], Given] = {}

    def __call__(self, images: Array) -> Given:
        key = len(images), hashlib.sha256(images.tobytes()).digest()
        if key not in self.given:
            self.given[key] = self.runner(images)
        return self.given[key]

    @property
    def content(self) -> bytes:
        return self.runner.content

    @property
    def stands_in(self) -> bool:
        return self.runner.stands_in

    def opened(self, content: bytes) -> OpenRunner:
        return self.runner.opened(content)


class Victim:
    """A plan of a network, its files, and how they are proven."""

    def __init__(self, ckpt: str, width: float | None, size: int | None, digits: bool) -> None:
        import torch

        from slimexport.job import Job
        from slimexport.onnx_files.calibration import Calibration
        from slimexport.probes.choosing import choose, far_reaching, most_others, others
        from slimexport.probes.sources import other_images, probe_images
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
            images = np.stack(open_source("digits", preprocessing).some(SEEN + FRESH, "defects"))
            calibrated, self.fresh = images[:CALIBRATED], images[SEEN:]
        else:
            calibrated = noise_images(CALIBRATED, size_, 2, channels)
            self.fresh = noise_images(FRESH, size_, 3, channels)
        calibration = Calibration.of([calibrated], "auto")
        files = tuple(row for row in PRECISIONS.values() if row.weight_bytes)
        torch.set_num_threads(1)
        first, more = probe_images(checkpoint, preprocessing, 2, calibrated="digits" if digits else None)
        count = MOST_PROBES + most_others(preprocessing.input_shape)
        if digits:
            pool = other_images(checkpoint, preprocessing, count, calibrated="digits")
        else:  # int8 is calibrated on noise, and not on more contrast than that has
            more, pool = partial(noise_images, FRESH, size_, 1, channels), noise_images(count, size_, 1, channels)
        probes = choose(checkpoint.network, [self.plan], first, more, MOST_PROBES).images
        kept = others(probes, far_reaching(checkpoint.network, [self.plan], probes, pool))
        costs, results = CostCounter(checkpoint.spec, size_), results_of(checkpoint)
        self.job = Job(checkpoint, preprocessing, costs, probes, files, calibration, results=results, more=kept)
        self.expected = self.job.reference(self.plan)
        self.files = {artifact.precision: (content, recorded) for artifact, content, recorded in self.job.emit(self.plan)}
        self.artifacts = {artifact.precision: artifact for artifact in self.job.describe(self.plan)}
        self.own: dict[str, Own | None] = {}
        self.inside: dict[str, Inside | None] = {}
        self.more: Probes | None = None
        self.right: dict[str, Array] = {}  # what the right files give of the fresh images

    def proven(self, precision: str, folder: Path) -> bool:
        """Whether the right file is proven, which is what others are then held to."""
        from slimexport.onnx_files.layer_proof.inside import record_inside

        path = folder / "right.onnx"
        content, recorded = self.files[precision]
        path.write_bytes(content)
        check, own = self.job.verify(path, precision, self.plan, self.expected, recorded), None
        if check.passed and check.layers is not None:
            check, own = self.job.own_outputs(path, precision, self.expected, check)
        self.own[precision] = own
        self.inside[precision] = None if own is None else record_inside(path, precision, self.job.images)
        if self.job.more is not None and self.plan in self.job.of_more:
            of_more = self.job.of_more[self.plan]
            self.more = Probes(self.job.more[: len(of_more[0].values)].astype(np.float32), of_more)
        self.right[precision] = self.on_fresh(self.runner(precision, content, folder))
        self.artifacts[precision] = replace(self.artifacts[precision], verification=check)
        return check.passed

    def runner(self, precision: str, content: bytes, folder: Path) -> Runner:
        """A file's."""
        from slimexport.onnx_files.runner import onnx_runner

        path = folder / "file.onnx"
        path.write_bytes(content)
        return Once(onnx_runner(path, precision))

    def again(self, runner: Runner, precision: str, way: str) -> str:
        """What --verify-only makes of a file, here or elsewhere."""
        probes, artifact = Probes(self.job.images, self.expected), self.artifacts[precision]
        if way == ELSEWHERE:
            artifact = replace(artifact, verification=replace(artifact.verification, own_runtime=None))
        try:
            check = verify_again(runner, artifact, probes, self.own[precision], self.more, self.inside[precision])
        except Exception:  # as in `proof`
            return BROKEN
        return PASSES if check.passed else CAUGHT

    def tolerance(self, precision: str, way: str) -> float:
        """What a way of proving permits."""
        check = self.artifacts[precision].verification
        own = None if way == AT_EXPORT else check.own_tolerance
        return own or check.tolerance or INT8_TOLERANCE

    def proof(self, precision: str, content: bytes, folder: Path) -> str:
        """What the export's proof makes of a file: PASSES, CAUGHT, or BROKEN where it does not load or run."""
        path = folder / "file.onnx"
        path.write_bytes(content)
        try:
            check = self.job.verify(path, precision, self.plan, self.expected, self.files[precision][1])
        except Exception:  # onnx's and onnxruntime's own kinds, and assertions of what reads files of ours
            return BROKEN
        return PASSES if check.passed else CAUGHT

    def on_fresh(self, runner: Runner) -> Array:
        """What a file gives of the fresh images."""
        parts = [np.asarray(runner(self.fresh[i : i + BATCH])) for i in range(0, len(self.fresh), BATCH)]
        return np.concatenate(parts)

    def changes(self, runner: Runner, precision: str) -> float:
        """How far the outputs of a file are from those of the right one on fresh images, relative to their scale."""
        right = self.right[precision]
        return float(np.abs(self.on_fresh(runner) - right).max() / np.abs(right).max())
