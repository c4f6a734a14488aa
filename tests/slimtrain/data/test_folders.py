"""Class folders: the right layout against torchvision's reader, and a refusal for each of the wrong ones."""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from slimtrain.base.errors import UserError
from slimtrain.data.datasets import open_data
from slimtrain.data.loader import test_batches as make_test_batches
from slimtrain.data.loader import training_batches
from slimtrain.data.transforms import test_transform as make_test_transform
from slimtrain.data.transforms import train_transform
from slimtrain.models.normalization import IMAGENET_MEAN, IMAGENET_STD
from tests.support.data_samples import labels
from tests.support.data_sets import write_classes

NORMALIZATION = IMAGENET_MEAN, IMAGENET_STD


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    write_classes(tmp_path / "train", files=("b.jpg", "a.JPEG", "c.png"))
    write_classes(tmp_path / "val")
    return tmp_path


def test_files_and_classes_are_those_of_torchvision(photographs: Path) -> None:
    (photographs / "train/cat/notes.txt").write_text("no image")
    (photographs / "train/cat/._a.jpg").write_text("of a Mac's archive")
    for hidden in (".cache", "__MACOSX"):
        (photographs / "train" / hidden).mkdir()
    (photographs / "train/bee/ä ö.png").write_bytes((photographs / "train/bee/c.png").read_bytes())
    data = open_data("folder", str(photographs))
    for samples, part in ((data.train, "train"), (data.test, "val")):
        for hidden in (".cache", "__MACOSX"):
            if (photographs / part / hidden).exists():
                (photographs / part / hidden).rmdir()
        (photographs / part / "cat/._a.jpg").unlink(missing_ok=True)
        known = ImageFolder(str(photographs / part))
        pairs = [(samples.name(i), samples.label(i)) for i in range(len(samples))]
        assert pairs == known.samples and data.classes == tuple(known.classes)
        for i in range(len(samples)):
            assert np.array_equal(np.asarray(samples.image(i)), np.asarray(known[i][0]))


def test_a_name_that_is_no_text_is_opened_all_the_same(photographs: Path) -> None:
    try:
        os.rename(photographs / "train/ant/c.png", os.fsencode(photographs / "train/ant") + b"/\xff.png")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    data = open_data("folder", str(photographs))
    samples = pickle.loads(pickle.dumps(data.train))
    assert samples.image(2).size == (42, 30)


def test_test_stands_in_for_val_and_links_are_followed(photographs: Path) -> None:
    (photographs / "val").rename(photographs / "elsewhere")
    (photographs / "test").symlink_to(photographs / "elsewhere")
    assert len(open_data("folder", str(photographs)).test) == 6


def test_holdout_needs_no_val(photographs: Path) -> None:
    (photographs / "val").rename(photographs / "elsewhere")
    data = open_data("folder", str(photographs), holdout=4)
    assert len(data.test) == 4 and len(data.train) == 5
    with pytest.raises(UserError, match="has no val/"):
        open_data("folder", str(photographs))


def test_images_go_through_to_batches_and_a_broken_one_is_replaced(photographs: Path) -> None:
    broken = photographs / "train/ant/b.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    (photographs / "val/cat/a.jpg").write_text("no image")
    data = open_data("folder", str(photographs))
    changed, plain = train_transform("mobile", 32, *NORMALIZATION), make_test_transform(32, *NORMALIZATION, whole=False)
    batches = list(training_batches(data.train, changed, epochs=1, batch_size=3, seed=0))
    assert [name for batch in batches for name in batch.unreadable] == [str(broken)]
    assert all(batch.images.shape == (3, 3, 32, 32) for batch in batches)
    assert sorted(i for batch in batches for i in batch.labels.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    tested = list(make_test_batches(data.test, plain, batch_size=4))
    assert [batch.labels.tolist() for batch in tested] == [[0, 0, 1, 1], [2]]
    assert [batch.unreadable for batch in tested] == [(), (str(photographs / "val/cat/a.jpg"),)]


# ---- refusals


def refused(folder: Path, message: str, data: str = "folder", classes: int = 0) -> None:
    with pytest.raises(UserError, match=message):
        open_data(data, str(folder), classes=classes)


def test_a_folder_without_train(tmp_path: Path) -> None:
    refused(tmp_path, r"has no train/ \(found nothing\), expected train/CLASS/IMAGE and val/CLASS/IMAGE")
    write_classes(tmp_path / "deeper")
    refused(tmp_path, r"has no train/ \(found deeper\).*Set data_dir to the folder above train/, or to one of class folders")
    write_classes(tmp_path / "val")
    refused(tmp_path, r"has no train/ \(found deeper, val\)")
    with pytest.raises(UserError, match=r"has no train/ \(found deeper, val\)"):  # val/ is no class
        open_data("folder", str(tmp_path), holdout=2)


def test_class_folders_alone_are_taken_with_images_held_out_as_the_message_says(tmp_path: Path) -> None:
    write_classes(tmp_path, files=[f"{i}.png" for i in range(10)])
    refused(tmp_path, r"holds class folders \(ant, bee, cat\) and no train/ and val/. Hold out .*: --set holdout=0\.2;")
    data = open_data("folder", str(tmp_path), holdout=0.2, seed=3)
    assert data.classes == ("ant", "bee", "cat") and sorted(labels(data.test)) == [0, 0, 1, 1, 2, 2]
    names = [[part.name(i) for i in range(len(part))] for part in (data.train, data.test)]
    assert sorted(names[0] + names[1]) == sorted(str(path) for path in tmp_path.rglob("*.png"))
    again = open_data("folder", str(tmp_path), holdout=0.2, seed=3)
    assert [again.test.name(i) for i in range(6)] == names[1]
    assert len(open_data("folder", str(tmp_path), holdout=4).test) == 4
    write_classes(tmp_path / "train")  # which is then meant
    assert len(open_data("folder", str(tmp_path), holdout=0.5).train) == 3


def test_images_of_a_kind_that_is_not_read_are_told(photographs: Path, caplog: pytest.LogCaptureFixture) -> None:
    (photographs / "train/ant/d.cr2").touch()
    with caplog.at_level(logging.WARNING):
        assert len(open_data("folder", str(photographs)).train) == 9
    assert "train: 1 .cr2 file is an image that Pillow does not read here" in caplog.text
    for name in ("a", "b"):
        next((photographs / "val/bee").glob(f"{name}.*")).rename(photographs / f"val/bee/{name}.NEF")
    refused(photographs, r"val: 1 of 3 class folders hold no images \(.*: bee\. In all, 2 \.nef files are images that Pillow")


def test_pipes_are_left_out_and_dead_links_are_unreadable_images(photographs: Path) -> None:
    os.mkfifo(photographs / "train/ant/pipe.png")  # opening it would wait for ever
    (photographs / "train/ant/folder.png").mkdir()
    (photographs / "val/bee/link.png").symlink_to(photographs / "nowhere.png")
    data = open_data("folder", str(photographs))
    assert (len(data.train), len(data.test)) == (9, 7)
    plain = make_test_transform(32, *NORMALIZATION, whole=False)
    (tested,) = make_test_batches(data.test, plain, batch_size=8)
    assert tested.unreadable == (str(photographs / "val/bee/link.png"),)


def test_turning_by_exif_is_passed_on(photographs: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(photographs / "train/ant/b.jpg", exif=exif)
    for turned, size in ((False, (40, 30)), (True, (30, 40))):
        data = open_data("folder", str(photographs), exif_orientation=turned)
        picture = pickle.loads(pickle.dumps(data.train)).image(1)
        assert data.train.name(1).endswith("b.jpg") and picture.size == size


def test_a_file_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "data.zip").touch()
    refused(tmp_path / "data.zip", r"data.zip: is a file, expected a folder.*Unpack it")


def test_a_folder_without_val(tmp_path: Path) -> None:
    write_classes(tmp_path / "train")
    refused(tmp_path, r"has no val/ \(or test/; found train\).*--set holdout=0\.2")


def test_validation_images_without_class_folders(photographs: Path) -> None:
    for name in ("ant", "bee", "cat"):
        (photographs / "val" / name / "a.jpg").rename(photographs / "val" / f"{name}.jpg")
        (photographs / "val" / name / "b.PNG").unlink()
        (photographs / "val" / name).rmdir()
    refused(photographs, r"val: holds 3 images and no class folders, expected val/CLASS/IMAGE.*valprep.sh")


def test_an_empty_part(photographs: Path) -> None:
    (photographs / "test").mkdir()
    (photographs / "val").rename(photographs / "elsewhere")
    refused(photographs, r"test: is empty, expected test/CLASS/IMAGE")


def test_one_level_of_folders_too_many(tmp_path: Path) -> None:
    write_classes(tmp_path / "train/train")
    write_classes(tmp_path / "val")
    refused(tmp_path, r"one level of folders too many: train/train/ holds folders \(ant, bee, cat\) and no images")


def test_different_classes(photographs: Path) -> None:
    (photographs / "val/bee").rename(photographs / "val/bees")
    refused(photographs, r"train/ and val/ have different classes: val/ lacks bee and has bees beside")
    write_classes(photographs / "train", [f"n{i}" for i in range(6)])
    refused(photographs, r"val/ lacks bee, n0, n1, n2 and 3 more and has bees beside")


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_class_without_images(photographs: Path, part: str) -> None:
    (photographs / part / "dog").mkdir()
    (photographs / part / "dog/readme.txt").touch()
    refused(photographs, rf"{part}: 1 of 4 class folders hold no images \(.jpg, .png, .*\): dog")


def test_a_single_class(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write_classes(tmp_path / part, ["ant"])
    refused(tmp_path, r"train: has the one class ant, expected at least 2")


@pytest.mark.parametrize("classes", [2, 4])
def test_another_number_of_classes_than_configured(photographs: Path, classes: int) -> None:
    refused(photographs, f"classes is {classes}, but the data has 3", classes=classes)
    assert open_data("folder", str(photographs), classes=3).classes == ("ant", "bee", "cat")


@pytest.mark.parametrize("classes", [0, 3])
def test_imagenet_with_other_than_a_thousand_classes(photographs: Path, classes: int) -> None:
    refused(photographs, r"train: has 3 class folders, ImageNet has 1000.*data: folder", data="imagenet", classes=classes)


def test_a_thousand_classes_are_imagenets(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for i in range(1000):
            (tmp_path / part / f"n{i:08}").mkdir(parents=True)
            (tmp_path / part / f"n{i:08}" / "a.JPEG").touch()
    data = open_data("imagenet", str(tmp_path))
    assert len(data.classes) == len(data.train) == 1000 and data.test.label(999) == 999
    refused(tmp_path, "classes is 100, but the data has 1000", data="imagenet", classes=100)


def test_what_is_left_out_is_told(photographs: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.new("RGB", (3, 3)).save(photographs / "train/loose.png")
    write_classes(photographs / "train/cat", ["more"])
    with caplog.at_level(logging.WARNING):
        assert len(open_data("folder", str(photographs)).train) == 9
    assert "1 image lies beside the class folders, left out" in caplog.text
    assert "folders within class folders are left out: cat" in caplog.text
