"""What slimming all of a detector buys, beside slimming its backbone alone: multiply-accumulates and latency, per width.

    python -m benchmarks.studies.detection.slim [--rounds 10] [--threads 1] [--json slim.json] [--picture slim.png]

Faster R-CNN on ResNet-50 with a pyramid, of 80 classes and 1,000 proposals: once with its backbone slimmed alone, as published
(arXiv 1812.08928, sec. 4.3), once with pyramid and heads slimmed too. Multiply-accumulates are for the published images of
800x1344 pixels; latency is of files for smaller ones (`--image-size`), as `slimexport` writes them, in onnxruntime on the CPU,
or on a GPU with `--backend onnxruntime-cuda`, in whose memory inputs and outputs stay. All files run in turns, each in every
round, and the median counts; what their parts take is measured after that, file by file, as in
`benchmarks.studies.detection.parts`. Weights are random: layers take as long as with others, but what NMS has to do depends on
them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine.environment import environment, study_command
from benchmarks.studies.detection.parts import WHOLE, Way, add_backend, in_turns, run_of, runs_of, split
from benchmarks.studies.script import image_size, needs, parse, script_parser, whole_number, write_result
from slimexport.target.backends import CPU
from slimtrain.base.command import script_messages
from slimtrain.base.image_size import ImageSize, format_size
from slimtrain.base.text import table as text_table

PROGRAM = "detection_slim"
SLIMS = ("backbone", "all")
WIDTHS = (0.25, 0.5, 0.75, 1.0)
PUBLISHED: ImageSize = (800, 1344)
CLASSES, PROPOSALS = 80, 1000
SMALL: Mapping[str, Any] = {"backbone": "resnet", "depths": (1, 1, 1, 1), "width": 8, "neck": 16, "hidden": 32}


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--image-size", type=image_size, default="320x544", help="of the files whose latency is measured")
    parser.add_argument("--nms", default="onnx", help="what ends the files: onnx, or fixed, which engines need")
    parser.add_argument("--rounds", type=whole_number, default=10)
    parser.add_argument("--threads", type=whole_number, default=1)
    add_backend(parser)
    parser.add_argument("--small", action="store_true", help="a detector of few channels, to try this out")
    parser.add_argument("--picture", type=Path, help="draw it here, as PNG")
    arguments = parse(parser)
    needs(PROGRAM, "torch", "torchvision", "onnx", "onnxruntime", *(["matplotlib"] if arguments.picture else []))
    with script_messages(PROGRAM):
        before, size = environment(), arguments.image_size
        way = Way(arguments.backend, arguments.threads, arguments.rounds)
        from benchmarks.onnx_models.tiny import product_model

        run_of(product_model("float32"), (1, 1), way)  # a GPU that is not there is told before anything is exported
        with tempfile.TemporaryDirectory() as folder:
            files = exported(Path(folder), size, arguments.nms, SMALL if arguments.small else {})
            rows = measured(files, size, way)
        print(table(rows, format_size(size)))
        settings = {"image_size": format_size(size), "macs_for": format_size(PUBLISHED), "nms": arguments.nms}
        command = study_command("benchmarks.studies.detection.slim")
        result = {"command": command, "environment": before, "backend": way.backend, **settings, "rows": rows}
        write_result(arguments.json, result)
        if arguments.picture:
            from benchmarks.report.plots.style import save
            from benchmarks.studies.detection.slim_picture import slim_figure

            device = _device(before, way)
            figure = slim_figure(rows, format_size(PUBLISHED), format_size(size), device, way.backend)
            save(figure, arguments.picture)


def _device(where: Mapping[str, Any], way: Way) -> str:
    if way.backend != CPU:
        return str((where.get("gpu") or {}).get("name") or "a GPU")
    return f"{where.get('cpu') or 'a CPU'}, {way.threads} thread{'s' * (way.threads != 1)}"


def exported(folder: Path, image_size: ImageSize, nms: str, changes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each detector at each width: what is slimmed, the width, what it costs at the published size, its file. At 1.0 both are
    the same network, which is there once. `changes`: of the detector's configuration."""
    from slimexport.detectors.form import Detecting
    from slimexport.exporter import export
    from slimexport.request import Proof
    from slimtrain.checkpoints.own_layout import save
    from slimtrain.config.detector import DetectorConfig
    from slimtrain.costs.cost import CostCounter
    from slimtrain.detection.building import build
    from slimtrain.detection.fixed.shipped import dense_spec, detector_spec

    rows = []
    for slim in SLIMS:
        config = DetectorConfig("faster_rcnn", slim=slim, proposals=PROPOSALS, **changes)
        mean, std = (0.5,) * 3, (0.25,) * 3
        network = build(config, CLASSES, WIDTHS, "s", image_size, mean, std).eval()
        path = folder / f"{slim}.pt"
        save(network, path, image_size=image_size, mean=mean, std=std)
        spec, settings = detector_spec(network)
        count = CostCounter(dense_spec(spec, settings, PUBLISHED), PUBLISHED)
        costs = {width: count(network.plan(width)) for width in WIDTHS}
        del network
        widths = [width for width in WIDTHS if width < 1 or slim == SLIMS[0]]
        bundle = folder / slim
        written = export(path, widths=widths, output_dir=bundle, proof=Proof(verify=False), detecting=Detecting(nms))
        for width, artifact in zip(widths, written.artifacts, strict=True):
            cost = costs[width]
            here = {"macs": cost.macs, "params": cost.params, "macs_of_file": artifact.macs, "file": bundle / artifact.file}
            rows.append({"slim": slim, "width": width, **here})
    return rows


def measured(files: Sequence[Mapping[str, Any]], image_size: ImageSize, way: Way) -> list[dict[str, Any]]:
    """The rows with milliseconds of the whole, from turns of all files, and of each part, from turns of one file's pieces."""
    from slimtrain.base.image_size import sides

    shape = (1, 3, *sides(image_size))
    whole = in_turns([run_of(row["file"].read_bytes(), shape, way) for row in files], way.rounds)
    rows = []
    for row, ms in zip(files, whole, strict=True):
        parts, runs = runs_of(row["file"], shape, way)
        own = split(parts, in_turns(runs, way.rounds))
        known = {key: value for key, value in row.items() if key != "file"}
        rows.append({**known, "ms": ms, "parts": {part: value for part, value in own.items() if part != WHOLE}})
    return rows


def full(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The row of the whole detector, which both ways of slimming share."""
    return next(row for row in rows if row["width"] == 1.0)


def table(rows: Sequence[Mapping[str, Any]], image_size: str) -> str:
    """A line for each way of slimming and width: what it costs, how much less than the whole, and its parts."""
    whole = full(rows)
    parts = list(whole["parts"])
    header = ["slimmed", "width", "GMACs", "promised", "params", "ms", "speed-up", *parts]
    lines = [
        [
            "nothing" if row is whole else row["slim"],
            f"{row['width']:g}",
            f"{row['macs'] / 1e9:.1f}",
            f"{whole['macs'] / row['macs']:.2f}x",
            f"{row['params'] / 1e6:.1f}M",
            f"{row['ms']:.1f}",
            f"{whole['ms'] / row['ms']:.2f}x",
            *(f"{row['parts'].get(part, 0.0):.1f}" for part in parts),
        ]
        for row in rows
    ]
    return f"GMACs at {format_size(PUBLISHED)}; milliseconds at {image_size}, of parts too\n{text_table(header, lines)}"


if __name__ == "__main__":
    main()
