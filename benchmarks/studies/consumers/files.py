"""The files that are given to read: networks at two widths in every precision, with images and what they should give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TRACED = "mobilenet_v3_small"  # of torchvision, read through torch.export
NETWORKS = {
    "us_mobilenet_v1": (0.25, 1.0),
    "us_mobilenet_v2": (0.35, 1.0),
    "s_resnet50": (0.25, 1.0),
    "s_shufflenet": (0.5, 1.0),
    "us_mnasnet": (0.35, 1.0),
    TRACED: (0.5, 1.0),
}
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
IMAGES, CALIBRATION = 2, 16
STATISTICS = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class NetworkFile:
    """An ONNX file of `network` at `width`, in the precision of that name. `images`: a .npy of float32 [2, 3, H, W];
    `expected`: a .npy of what onnxruntime computes of them with every optimization off, which is what the file says."""

    network: str
    width: float
    precision: str
    path: Path
    images: Path
    expected: Path

    @property
    def label(self) -> str:
        return f"{self.network} {self.width:g}x {self.precision}"


def write_files(folder: Path, names: Sequence[str], image_size: int) -> list[NetworkFile]:
    """Export the networks of these names into `folder`, untrained: what a runtime reads, and how fast it is, does not depend
    on the weights. None is refused for computing badly in a precision, which untrained networks may."""
    from slimexport.exporter import export
    from slimexport.request import CalibrationImages, Proof, Writing
    from slimtrain.data.noise import noise_images

    folder.mkdir(parents=True, exist_ok=True)
    drawn = noise_images(IMAGES + CALIBRATION, image_size, 5)
    images, calibration = folder / "images.npy", folder / "calibration.npy"
    np.save(images, drawn[:IMAGES])
    np.save(calibration, drawn[IMAGES:])
    files = []
    for name in names:
        source = traced_checkpoint(folder, name, image_size, drawn) if name == TRACED else f"random:{name}"
        bundle = folder / name
        manifest = export(
            source,
            widths=NETWORKS[name],
            image_size=image_size,
            precisions=PRECISIONS,
            output_dir=bundle,
            calibration=CalibrationImages(calibration),
            proof=Proof(verify=False),
            writing=Writing(overwrite=True),
        )
        for artifact in manifest.artifacts:
            path = bundle / artifact.file
            expected = path.with_suffix(".npy")
            np.save(expected, literal(path, artifact.precision, drawn[:IMAGES]))
            assert isinstance(artifact.width, float)
            files.append(NetworkFile(name, artifact.width, artifact.precision, path, images, expected))
    return files


def traced_checkpoint(folder: Path, name: str, image_size: int, images: Any) -> str:
    """A checkpoint of a torchvision network that was made slimmable, with random weights and statistics of `images`."""
    import torch
    import torchvision

    from benchmarks.studies.any_network.modules import randomize
    from slimtrain.checkpoints.own_layout import own_content
    from slimtrain.checkpoints.writing import save
    from slimtrain.slimmable.calibrate import calibrate
    from slimtrain.tracing.slimmed import make_slimmable

    torch.manual_seed(0)
    module, batch = torchvision.models.get_model(name).eval(), torch.from_numpy(images)
    randomize(module, batch)
    network = make_slimmable(module, batch[:2], name=name)
    calibrate(network, [network.plan(width) for width in NETWORKS[name]], [batch])
    path = folder / f"{name}.pt"
    save(own_content(network, image_size, STATISTICS, STATISTICS), path)
    return str(path)


def literal(path: Path, precision: str, images: Any) -> Any:
    """What a file says of images [N, 3, H, W]: its operators one by one in onnxruntime, none fused; one whose types its CPU
    lacks as its cast twin."""
    import onnx
    import onnxruntime

    from slimexport.onnx_files.typed import cast_twin
    from slimexport.target.runners import runs_on_cpu

    content = path.read_bytes() if runs_on_cpu(precision) else cast_twin(onnx.load(path)).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])
