"""Files of detectors: checkpoints, whose settings are plain values, COCO's annotations, manifest and reference of a bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from slimtrain.base.errors import UserError
from slimtrain.base.files import file_sha256
from tests.soak.hostile import copied, damaged_bytes, damaged_value, how_often, spelled
from tests.soak.kinds.bundles import FRESH, ManifestKind, ReferenceKind
from tests.soak.kinds.kind import Case, WrongResultError
from tests.soak.kinds.tensors import damaged_content

SIZE, CLASSES, DETECTIONS = 64, 3, 5  # of the detector among the whole files
ONNX_FILE = "s_faster_rcnn_x0_5.onnx"
TOLERANCE = 1e-4
BUNDLE, CHECKPOINT, COCO = "detector_bundle", "detector.pt", "coco"
OUTPUTS = ("boxes", "scores", "labels", "count", "settled")


class DetectorCheckpointKind:
    """A file of torch's zip form, which has checksums."""

    name = "detector checkpoint"
    right = "where only bytes were changed, detections are the whole file's; else of its classes, as many as it says"

    def open(self, originals: Path) -> None:
        import torch

        self.source = originals / CHECKPOINT
        self.bytes = self.source.read_bytes()
        self.content = torch.load(self.source, weights_only=True)
        self.images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
        self.expected = self.detections(self.source)

    def detections(self, path: Path) -> dict[str, Any]:
        """What the first plan's network from image to boxes gives, as an export opens it."""
        import torch

        from slimexport.detectors.opening import open_detector
        from slimtrain.checkpoints.checkpoint import open_checkpoint

        checkpoint = open_checkpoint(path)
        if checkpoint.sha256 != file_sha256(path):
            raise WrongResultError(f"SHA-256 {checkpoint.sha256}")
        detector = open_detector(checkpoint, SIZE)
        detector.entry, detector.metadata, detector.fixed_bytes, detector.count(checkpoint.spec.plans[0])
        network, settings = detector.checkpoint.network, detector.settings
        with torch.inference_mode(), network.at(network.spec.plans[0]):
            given: dict[str, Any] = network(self.images)
        for count, labels in zip(given["count"].tolist(), given["labels"], strict=True):
            own = labels[: int(count)]
            if not 0 <= count <= settings.box.detections or not bool(((own >= 1) & (own <= settings.classes)).all()):
                raise WrongResultError(f"{count} detections of labels {own.tolist()[:20]}")
        return given

    def damage(self, draw: Random, folder: Path) -> Case:
        import torch

        path, times = folder / self.source.name, how_often(draw)
        if draw.random() < 0.3:
            path.write_bytes(damaged_bytes(draw, self.bytes, times))
            return Case(path, f"bytes changed in {times} places", True)
        content = {**self.content, "network": copied(self.content["network"])}
        if draw.random() < 0.5:  # the settings are few of all values
            content["network"]["detector"] = damaged_value(draw, content["network"]["detector"], times)
            said = f"settings changed in {times} places"
        elif draw.random() < 0.5:
            content["network"], said = damaged_content(draw, content["network"], times)
        else:
            content, said = damaged_content(draw, content, times)
        try:
            torch.save(content, path)
        except Exception as error:  # what torch itself cannot write is no file to read
            path.write_bytes(b"")
            said = f"not written ({type(error).__name__}): empty"
        return Case(path, said)

    def judge(self, case: Case) -> None:
        import torch

        given = self.detections(case.path)
        if case.checked and not all(torch.equal(given[name], value) for name, value in self.expected.items()):
            raise WrongResultError("accepted, and detections are others than those of the whole file")

    def command(self, case: Case, folder: Path) -> list[str]:
        words = ["--ckpt", str(case.path), "--image-size", str(SIZE), "--output-dir", str(folder / "b")]
        return ["slimexport", *words, "--no-verify"]


class CocoKind:
    """A folder of images with annotations: objects with polygons, runs as numbers and as text, keypoints, crowds."""

    name = "coco"
    right = "every object that is kept has a label, a box in its image, finite numbers, a mask of its image's size, keypoints"

    def open(self, originals: Path) -> None:
        self.folder, self.config = originals / COCO, originals / "detector.yml"
        self.content = (self.folder / "train.json").read_bytes()

    def damage(self, draw: Random, folder: Path) -> Case:
        place, times = folder / COCO, how_often(draw)
        shutil.copytree(self.folder, place)
        path = place / draw.choice(("train.json", "val.json"))
        if draw.random() < 0.3:
            path.write_bytes(damaged_bytes(draw, self.content, times))
            return Case(place, f"bytes of {path.name} changed in {times} places")
        value = damaged_value(draw, json.loads(self.content), times)
        path.write_bytes(spelled(json.dumps(value)).encode("utf-8", "surrogatepass"))
        return Case(place, f"values of {path.name} changed in {times} places")

    def judge(self, case: Case) -> None:
        from slimtrain.data.detection.coco import open_coco

        refusals = []
        for masks, keypoints in ((False, False), (True, False), (True, True)):
            try:
                data = open_coco(case.path, masks, keypoints)
            except UserError as error:
                str(error).encode()  # it can be printed
                refusals.append(error)
                continue
            for samples in (data.train, data.test):
                for index in range(len(samples)):
                    self.check(samples, index, len(data.classes), masks, len(data.keypoints) if keypoints else None)
        if refusals:
            raise refusals[0]

    def check(self, samples: Any, index: int, classes: int, masks: bool, keypoints: int | None) -> None:
        """WrongResultError where an image or its objects are not as they have to be, before and behind a transform."""
        import torch

        from slimtrain.data.detection.transforms import DetectionTransform

        targets, picture = samples.targets(index), samples.image(index)
        transform = DetectionTransform((0.5,) * 3, (0.25,) * 3, (24,), 48, 0.5)
        image, changed = transform(picture, targets, torch.Generator().manual_seed(index))
        if not bool(image.isfinite().all()) or tuple(image.shape[1:]) != (changed.height, changed.width):
            raise WrongResultError(f"an image of {tuple(image.shape)} for {changed.height} x {changed.width}")
        for one in (targets, changed):
            x1, y1, x2, y2 = one.boxes.unbind(1)
            inside = (x1 >= 0) & (y1 >= 0) & (x2 > x1) & (y2 > y1) & (x2 <= one.width + 1e-3) & (y2 <= one.height + 1e-3)
            if not bool(inside.all()):
                raise WrongResultError(f"boxes {one.boxes.tolist()} of {one.width} x {one.height}")
            if not bool(((one.labels >= 1) & (one.labels <= classes)).all()):
                raise WrongResultError(f"labels {one.labels.tolist()} of {classes} classes")
            if not bool(one.area.isfinite().all() and (one.area >= 0).all()):
                raise WrongResultError(f"areas {one.area.tolist()}")
            if masks and (one.masks is None or tuple(one.masks.shape) != (len(one), one.height, one.width)):
                raise WrongResultError("masks of another size")
            if keypoints is not None:
                if one.keypoints is None or tuple(one.keypoints.shape) != (len(one), keypoints, 3):
                    raise WrongResultError("keypoints of another number")
                if not bool(one.keypoints.isfinite().all()):
                    raise WrongResultError("keypoints that are not finite")

    def command(self, case: Case, folder: Path) -> list[str]:
        words = ["train", str(self.config), "--data-dir", str(case.path), "--dry-run"]
        return ["slimtrain", *words, "--set", f"output_dir={folder / 'run'}"]


def detections_of(path: Path, images: Any) -> dict[str, Any]:
    """What onnxruntime alone makes of a file: an oracle that none of our code is in."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return dict(zip(OUTPUTS, session.run(list(OUTPUTS), {"input": images}), strict=True))


def differing(given: dict[str, Any], expected: dict[str, Any]) -> float:
    """The share of detections that differ, images one by one and rows in their order; 1 where the numbers of them do."""
    rows = wrong = 0
    for image, count in enumerate(np.asarray(expected["count"]).astype(np.int64)):
        if int(given["count"][image]) != count:
            return 1.0
        own, other = ({name: np.asarray(side[name])[image, :count] for name in OUTPUTS[:3]} for side in (given, expected))
        near = np.abs(own["boxes"] - other["boxes"]).max(1) <= 2 * TOLERANCE * SIZE
        near &= (np.abs(own["scores"] - other["scores"]) <= 2 * TOLERANCE) & (own["labels"] == other["labels"])
        rows, wrong = rows + int(count), wrong + int((~near).sum())
    return wrong / max(rows, 1)


class DetectorManifestKind(ManifestKind):
    name = "detector manifest.json"

    def open(self, originals: Path) -> None:
        self.bundle = originals / BUNDLE
        self.content = (self.bundle / self.file).read_bytes()
        self.fresh = np.random.default_rng(3).standard_normal((FRESH, 3, SIZE, SIZE)).astype(np.float32)
        self.expected = detections_of(self.bundle / ONNX_FILE, self.fresh)

    def check(self, case: Case, artifact: Any) -> None:
        import slimexport

        with slimexport.open_network(case.path, artifact.file) as network:
            outputs = network(self.fresh)
        if not isinstance(outputs, dict) or not set(OUTPUTS) <= set(outputs):
            raise WrongResultError(f"passed, and gives {sorted(outputs) if isinstance(outputs, dict) else type(outputs)}")
        if share := differing(outputs, self.expected):
            raise WrongResultError(f"passed, and {share:.0%} of its detections on other images are others")


class DetectorReferenceKind(ReferenceKind):
    name = "detector reference.npz"
    right = "where the file passes, what the archive says of its images is what the file detects on them"
    size, members = SIZE, ("images.npy", "logits_x0_5.boxes.npy", "logits_x0_5.count.npy", "../x.npy", "a" * 60_000)
    open = DetectorManifestKind.open

    def check(self, case: Case, artifact: Any) -> None:
        DetectorManifestKind.check(self, case, artifact)  # type: ignore[arg-type]
        with np.load(case.path / self.file, allow_pickle=False) as archive:
            images = np.ascontiguousarray(archive["images"])
            expected = {name: archive[f"logits_x0_5.{name}"] for name in OUTPUTS}
        share = differing(detections_of(case.path / artifact.file, images), expected)
        if share > 0.05:  # what near-equals may decide otherwise
            raise WrongResultError(f"passed, against detections of which {share:.0%} are not those of the images")
