"""Small data sets as COCO's files have them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SQUARE = [2.0, 2.0, 8.0, 2.0, 8.0, 8.0, 2.0, 8.0]  # corners, clockwise
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]  # not in the order of their ids


def annotation(number: int, image: int = 1, **changes: Any) -> dict[str, Any]:
    """A square of 6 pixels, of a dog."""
    square = {"bbox": [2.0, 2.0, 6.0, 6.0], "area": 36.0, "iscrowd": 0, "segmentation": [SQUARE]}
    return {"id": number, "image_id": image, "category_id": 7, **copy.deepcopy(square), **changes}


def content(annotations: list[Any], images: int = 2, **changes: Any) -> dict[str, Any]:
    """A file's content; its images are of 20 by 10 pixels."""
    rows = [{"id": i, "file_name": f"{i:03}.png", "width": 20, "height": 10} for i in range(1, images + 1)]
    return {"images": rows, "annotations": annotations, "categories": CATEGORIES, **changes}


def write_images(folder: Path, images: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(1, images + 1):
        pixels = np.random.default_rng(i).integers(0, 256, (10, 20, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03}.png")


def write_coco(folder: Path, train: dict[str, Any], test: dict[str, Any] | None = None, kind: str = "instances") -> Path:
    """A folder laid out as COCO's own."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for split, value in (("train", train), ("val", test if test is not None else train)):
        (folder / "annotations" / f"{kind}_{split}2017.json").write_text(json.dumps(value))
        write_images(folder / f"{split}2017", len(value["images"]))
    return folder
