"""Whole files of every kind, small ones, to be damaged: written once, by a process of its own."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

PLAN_SIZE = 32
STEPS = 5
LIGHT = ("results.jsonl", "search traces", "images")  # kinds whose originals and readers need no torch
PICTURES = ("png", "jpg", "gif", "tif", "bmp", "webp", "ppm", "tga")


def write_originals(folder: Path, light: bool = False) -> None:
    """All of them, in a folder that is there; `light`: those that are written without torch."""
    _write_results(folder / "results.jsonl")
    _write_trace(folder / "trace")
    _write_pictures(folder)
    if not light:
        import torch

        torch.set_num_threads(1)
        _write_checkpoints(folder)
        _write_bundle(folder)
        _write_run(folder)
        _write_texts(folder)
        _write_detector(folder)
        _write_coco(folder / "coco")


def _write_checkpoints(folder: Path) -> None:
    """Weights of one slimmable network in every form that files of weights have, and a universally slimmable one of ours."""
    import torch
    from safetensors.torch import save_file

    from slimtrain.checkpoints.own_layout import own_content
    from slimtrain.checkpoints.published_layout import published_content
    from slimtrain.checkpoints.writing import save
    from slimtrain.models.spec import NetworkSpec
    from tests.support.run_helpers import US1, calibrated_network, network_of

    save(own_content(calibrated_network(US1), PLAN_SIZE, (0.5,) * 3, (0.25,) * 3), folder / "own.pt")
    spec = NetworkSpec("mobilenet_v1", "s", (0.0625, 0.125), 10)
    content = published_content(network_of(spec))
    save(content, folder / "zip.pt")
    torch.save(content, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(folder / "zipped.pt.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("net.pt"), (folder / "zip.pt").read_bytes(), zipfile.ZIP_DEFLATED)
    state = {key: value.contiguous() for key, value in _weights(content).items()}
    save_file(state, folder / "plain.safetensors")
    keys = list(state)
    halves = {"model-00001-of-00002.safetensors": keys[::2], "model-00002-of-00002.safetensors": keys[1::2]}
    (folder / "shards").mkdir()
    for name, part in halves.items():
        save_file({key: state[key] for key in part}, folder / "shards" / name)
    index = {"metadata": {}, "weight_map": {key: name for name, part in halves.items() for key in part}}
    (folder / "shards" / "model.safetensors.index.json").write_text(json.dumps(index))


def _weights(content: Any) -> dict[str, Any]:
    from slimtrain.checkpoints.weights import find_weights

    return dict(find_weights(content, "weights").state)


def _write_bundle(folder: Path) -> None:
    import slimexport

    for precision, name in (("fp32", "bundle"), ("fp16", "bundle_fp16")):
        slimexport.export(
            str(folder / "own.pt"), widths=[0.125], image_size=PLAN_SIZE, precisions=[precision], output_dir=folder / name
        )


def _write_run(folder: Path) -> None:
    """A run of one epoch, with an average of the weights: last.pt has all that it may have, times and places the same ones."""
    import torch

    from slimtrain.checkpoints.writing import save
    from slimtrain.training.run import train
    from tests.support.run_helpers import ALONE, config, config_file

    config_file(folder / "config.yml", epochs=2)
    train(config(folder / "run", epochs=1, ema=0.9), ALONE)
    path = folder / "run" / "last.pt"
    content = torch.load(path, weights_only=True)
    for row in content["training"]["rows"]:
        row.update(images_per_s=100.0, data_wait=0.01)
    content["training"]["config"]["output_dir"] = content["settings"]["output_dir"] = "run"
    save(content, path)


def _write_results(path: Path) -> None:
    from benchmarks.cells.records import Records
    from tests.support.bench_helpers import cell, result

    with Records(path) as records:
        records.run("python -m benchmarks bundle", {"cpu": "a CPU", "cores": 2}, {"repeats": 2, "duration_s": 0.5})
        for width, time_ms in ((0.25, 1.0), (0.5, 2.0), (1.0, 4.5)):
            label = f"{width:g}".replace(".", "_")
            of = cell(f"net_x{label}", width=width, label=f"{width:g}x", macs=int(1000 * width**2), params=int(100 * width**2))
            rounds = [[time_ms + 0.01 * (i + j) for i in range(8)] for j in range(2)]
            records.add(result(rounds, of))
        records.end({}, 3.0)


def _write_texts(folder: Path) -> None:
    from slimtrain.costs.cost import CostCounter
    from slimtrain.costs.latency_table import write_latency_table
    from slimtrain.models.plan_file import write_plan_file
    from tests.support.latency_tables import table_of
    from tests.support.run_helpers import US1, mixed

    write_latency_table(
        folder / "latency_table.json", table_of(US1, lambda layer, i, o: 0.001 * i + 0.002 * o, size=PLAN_SIZE)
    )
    plan = mixed(US1)
    write_plan_file(folder / "plan.yml", US1, plan, PLAN_SIZE, CostCounter(US1, PLAN_SIZE)(plan))


def _write_trace(folder: Path) -> None:
    from slimtrain.search.trace import Candidate, SearchStep, Trace

    folder.mkdir()
    trace = Trace(folder)
    trace.begin({"network": "us_mobilenet_v1", "targets": [700, 450], "seed": 0})
    for number in range(1, STEPS + 1):
        after = 64 - 4 * number
        rows = [Candidate(number, f"g{i}", after + 4, after, 1e6 - number, 10.0 + i, 1.5 + i, int(i == 0)) for i in range(3)]
        step = SearchStep(number, "g0", after + 4, after, 1e6, 1e6 - number, 10**6, 10**4, 9.5, 10.0, 1.4, 1.5, 64, 3, 0.25)
        trace.add(step, rows)


def _write_pictures(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    for ending in PICTURES:
        Image.fromarray(pixels).save(folder / f"picture.{ending}")


def _write_detector(folder: Path) -> None:
    """A small detector's checkpoint, its bundle, and the configuration of another one that trains on COCO's files."""
    import yaml

    import slimexport
    from tests.support.detector_runs import TINY, TINY_DETECTOR
    from tests.support.exported_detectors import detector_checkpoint
    from tests.support.trained_detectors import SIZE

    detector_checkpoint(folder, class_names=("ant", "bee", "cat")).rename(folder / "detector.pt")
    slimexport.export(str(folder / "detector.pt"), widths=[0.5], image_size=SIZE, output_dir=folder / "detector_bundle")
    own = {key: value for key, value in TINY_DETECTOR.items() if "scenes" not in key}
    (folder / "detector.yml").write_text(yaml.safe_dump({**TINY, "data": "coco", "batch_size": 1, "detector": own}))


def _write_coco(folder: Path) -> None:
    """Two images, one of them with objects whose masks are told in every way, the other with a crowd as well."""
    from tests.support.coco_folders import annotation, content, write_images

    runs = {"size": [10, 20], "counts": [22, 6, 172]}
    text = {"size": [10, 20], "counts": "f06\\5"}  # the same, as COCO compresses it
    points = [1, 1, 2, 5, 5, 1, 0, 0, 0]
    rows = [
        annotation(1, keypoints=points),
        annotation(2, segmentation=runs, category_id=3),
        annotation(3, image=2, bbox=[0.5, 1, 19.5, 8.25], keypoints=points),
        annotation(4, image=2, segmentation=text, iscrowd=1),
    ]
    categories = [{"id": 7, "name": "dog", "keypoints": ["left_eye", "right_eye", "tail"]}, {"id": 3, "name": "cat"}]
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        write_images(folder / split)
        (folder / f"{split}.json").write_text(json.dumps(content(rows, categories=categories)))
