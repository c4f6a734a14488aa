"""A folder in COCO's form with a few small pictures."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

NAMES = ("one", "two", "three")


def coco_folder(folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    """Four images of two sizes, an object on each."""
    images, boxes = [], []
    (folder / "val").mkdir(parents=True)
    for number in range(1, 5):
        width, height = (96, 64) if number % 2 else (50, 80)
        picture = Image.effect_noise((width, height), 60).convert("RGB")
        picture.save(folder / "val" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        box = {"bbox": [10, 10, 30, 25], "area": 750, "iscrowd": 0}
        boxes.append({"id": number, "image_id": number, "category_id": 1 + number % 3, **box})
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    (folder / "val.json").write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    return folder
