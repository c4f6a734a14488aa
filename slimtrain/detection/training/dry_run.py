"""A detector's configuration tried in seconds: are data and checkpoint there, does the batch fit, does a step run? Nothing is
written."""

from __future__ import annotations

from slimtrain.config.config import Config
from slimtrain.data.catalog import DETECTION_SETS
from slimtrain.data.detection.coco import DetectionData
from slimtrain.data.detection.fake import FakeObjects
from slimtrain.detection.training.checkpoints import open_with_images
from slimtrain.detection.training.inputs import data_of, detector_of, test_transform_of, train_transform_of
from slimtrain.detection.training.profiling import COCO_CLASSES
from slimtrain.detection.training.run import DetectorRun, detector_start
from slimtrain.models.detector import KEYPOINT, KeypointSettings
from slimtrain.training.distributed import Processes
from slimtrain.training.dry_run import MANY, describe_last, going_on, held_by, tried_step, tried_with, unreadable
from slimtrain.training.fitting import fitted
from slimtrain.training.resume import read_run


def dry_run(config: Config, processes: Processes) -> list[str]:
    """Look at the data where a folder is named and at the checkpoint that the run starts from or goes on with, tell whether
    the batch fits, and train one step on a few random images of the configuration's size and number of classes; what came
    out, as lines. Errors as of a run."""
    config, last = going_on(config)
    unnamed = DETECTION_SETS[config.data].source == "data_dir" and not config.data_dir
    data = None if unnamed else data_of(config)
    lines = [f"data_dir is not set: {config.data} is not looked at"] if data is None else describe_data(config, data)
    if config.test_only and data is not None:
        checkpoint, _, _ = open_with_images(config, processes, config.pretrained, config.pretrained_weights or None)
        lines.append(f"tests {checkpoint.file}: {checkpoint.spec.name}, {checkpoint.spec.describe_widths()}")
    fake = fake_data(config, data)
    start = detector_start(config, data or fake, None if last is None else last[1])
    spec = start.network.spec
    whole, fits = fitted(config, spec, MANY * config.batch_size if data is None else len(data.train), processes)
    if last is not None and data is not None:
        read_run(*last, whole, spec, data)
    lines += describe_last(last)
    run = DetectorRun(tried_with(whole, processes), processes, fake, start)
    step = tried_step(run, processes)
    return [f"# {line}" for line in filter(None, (*lines, *start.line.splitlines(), *fits, step))]


def fake_data(config: Config, data: DetectionData | None) -> DetectionData:
    """Noise with objects, of the classes and keypoints of `data`, or of COCO's where there is none."""
    if data is None:
        names = tuple(map(str, range(config.known_classes or COCO_CLASSES)))
        count = KeypointSettings.count if detector_of(config).kind == KEYPOINT else 0
        points = tuple(map(str, range(count)))
    else:
        names, points = data.classes, data.keypoints
    samples = FakeObjects(config.batch_size, config.image_size, len(names), len(points))
    return DetectionData(samples, samples, names, points)


def describe_data(config: Config, data: DetectionData) -> list[str]:
    """What the data holds, and whether a few of its images can be read and transformed, as lines."""
    train, test = train_transform_of(config, data), test_transform_of(config)
    lines = [held_by(data)]
    lines += unreadable(data.train, lambda index: train(data.train.image(index), data.train.targets(index)))
    return lines + unreadable(data.test, lambda index: test(data.test.image(index), data.test.targets(index)))
