"""A dry run: the data is looked at, the batch is judged, a few images make a step, nothing is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from slimtrain.base.errors import UserError
from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.writing import save
from slimtrain.config.config import Config
from slimtrain.config.reading import config_names, read_config
from slimtrain.training.dry_run import OPENED, dry_run
from slimtrain.training.inputs import spread_indices
from slimtrain.training.run import Run, train
from slimtrain.training.testing import opened_classifier
from tests.support.run_helpers import ALONE, config, network_of, tree


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for part, number in (("train", 6), ("val", 2)):
        for name in ("cat", "dog", "owl"):
            folder = tmp_path / "my photos" / part / name
            folder.mkdir(parents=True)
            for i in range(number):
                Image.fromarray(draw.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "my photos"


def settings(photos: Path, **changes: Any) -> Config:
    return config(photos.parent / "run", data="folder", data_dir=str(photos), augmentation="mobile", **changes)


def test_the_data_is_counted_and_opened(photos: Path) -> None:
    lines = dry_run(settings(photos), ALONE)
    assert lines[0] == "# data: 3 classes (cat, dog, owl), 18 images to train, 6 to test"
    assert lines[-1].startswith("# dry run: one step of 4 fake images on the CPU") and len(lines) == 2
    assert os.listdir(photos.parent) == [photos.name]


def test_an_image_that_cannot_be_read_is_named(photos: Path) -> None:
    bad = photos / "train" / "cat" / "0.png"
    bad.write_bytes(b"no image")
    lines = dry_run(settings(photos), ALONE)
    assert f"# warning: {bad}: cannot be read (UnidentifiedImageError)" in lines


def test_what_a_run_would_refuse_is_refused(photos: Path) -> None:
    (photos / "val" / "owl").rename(photos / "val" / "eagle")
    with pytest.raises(UserError, match="different classes"):
        dry_run(settings(photos), ALONE)
    with pytest.raises(UserError, match="no such folder"):
        dry_run(settings(photos / "nowhere"), ALONE)


# ------------------------------------------------------------------------------------------------------ checkpoints


OTHER = {"network": "us_mobilenet_v2", "width_range": (0.35, 0.5), "test_widths": ()}


def digits(tmp_path: Path, **changes: Any) -> Config:
    return config(tmp_path / "run", **{"data": "digits", **changes})


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    """Trained on fake classes "0" to "9", as the digits' are called."""
    names = [str(label) for label in range(10)]
    path = tmp_path / "ten.pt"
    save(own_content(network_of(digits(tmp_path).spec(10)), 16, (0.5,) * 3, (0.25,) * 3, class_names=names), path)
    return path


def test_what_it_starts_from_is_opened(tmp_path: Path, ten: Path) -> None:
    lines = dry_run(digits(tmp_path, pretrained=str(ten)), ALONE)
    assert "# starts from ten.pt: us_mobilenet_v1, widths 0.125, 0.25, 10 classes" in lines
    lines = dry_run(digits(tmp_path, pretrained=str(ten), test_only=True), ALONE)
    assert "# tests ten.pt: us_mobilenet_v1, widths 0.125, 0.25, 10 classes" in lines
    elsewhere = config(tmp_path / "run", data="folder", augmentation="mobile", pretrained=str(ten))  # of no data_dir yet
    assert any(line.startswith("# starts from ten.pt") for line in dry_run(elsewhere, ALONE))


def test_it_takes_its_step_with_these_weights(tmp_path: Path, ten: Path) -> None:
    first = [dry_run(digits(tmp_path, pretrained=pretrained), ALONE)[-1].rpartition("; ")[2] for pretrained in ("", str(ten))]
    assert first[0] != first[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"pretrained": "none.pt"},
        {"pretrained": "ten.pt", "pretrained_weights": "ema"},
        {"pretrained": "ten.pt", **OTHER},
        {"pretrained": "ten.pt", "width_range": (0.125, 0.375)},
        {"pretrained": "ten.pt", "data": "fake", "classes": 3},
        {"pretrained": "ten.pt", "data": "fake"},  # other names
        {"pretrained": "ten.pt", "data": "fake", "test_only": True},
        {"pretrained": "ten.pt", "test_only": True, **OTHER},
        {"resume": "none.pt"},
        {"resume": "ten.pt"},
    ],
    ids=lambda changes: " ".join(map(str, changes.values())),
)
def test_a_checkpoint_that_a_run_would_refuse_is_refused_in_its_words(
    tmp_path: Path, ten: Path, changes: dict[str, Any]
) -> None:
    named: dict[str, str] = {key: str(tmp_path / changes[key]) for key in ("pretrained", "resume") if key in changes}
    settings = digits(tmp_path, **changes | named)
    with pytest.raises(UserError) as caught:
        dry_run(settings, ALONE)
    with pytest.raises(UserError) as real:
        opened_classifier(settings, ALONE, settings.pretrained) if settings.test_only else train(settings, ALONE)
    assert str(caught.value) == str(real.value) and type(caught.value) is type(real.value)
    assert not (tmp_path / "run").exists()


def test_a_run_to_go_on_with_is_looked_at(tmp_path: Path) -> None:
    train(config(tmp_path / "run", epochs=1), ALONE)
    before = tree(tmp_path / "run")
    lines = dry_run(config(tmp_path / "run", epochs=2, resume="auto"), ALONE)
    assert f"# goes on with {tmp_path / 'run' / 'last.pt'}, after step 4" in lines
    with pytest.raises(UserError, match="belongs to a run with other settings: seed was 0 and is 1"):
        dry_run(config(tmp_path / "run", epochs=2, resume="auto", seed=1), ALONE)
    assert tree(tmp_path / "run") == before


def test_never_the_full_batch(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    real = Run.train_step

    def step(self: Run, batch: Any) -> Any:
        steps.append(tuple(batch.images.shape))
        return real(self, batch)

    monkeypatch.setattr(Run, "train_step", step)
    lines = dry_run(settings(photos, batch_size=100), ALONE)
    assert "# batch_size is 18 in place of 100, there are 18 training images. Set batch_size to choose another." in lines
    dry_run(settings(photos, batch_size=16, accumulate=4), ALONE)  # parts keep several images
    dry_run(config(photos.parent / "run", data="fake", batch_size=3), ALONE)
    assert steps == [(4, 3, 16, 16), (16, 3, 16, 16), (3, 3, 16, 16)]


@pytest.mark.parametrize("name", [name for name in config_names() if name.startswith("us_mobilenet") or name == "finetune"])
def test_packaged_configurations_without_data(name: str) -> None:
    """As they stand, at their size; the larger networks take seconds each."""
    lines = dry_run(read_config(name, device="cpu"), ALONE)
    assert lines[0].startswith("# data_dir is not set: ") and "# dry run: one step of 4 fake images" in lines[-1]


@pytest.mark.parametrize("count", [1, 5, OPENED, 100, 1000])
def test_a_few_images_from_all_over_a_set(count: int) -> None:
    """Sets lie class by class."""
    few = list(spread_indices(count, OPENED))
    assert len(few) == min(count, OPENED) and few[0] == 0 and few == sorted(set(few))
    assert few[-1] >= count * (OPENED - 1) // OPENED - OPENED and few[-1] < count
