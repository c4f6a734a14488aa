"""Where images come from: folders, flat or by class, with unreadable ones named and counted; one array in a file."""

from __future__ import annotations

import logging
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slimtrain.base.errors import UserError
from slimtrain.data.images import Preprocessing, image_batches, image_files, read_array, spread_files

HOW = Preprocessing(32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def pictures(folder: Path, count: int, start: int = 0) -> None:
    """`count` images of one color each, `start` + i in red."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(start, start + count):
        Image.new("RGB", (40, 40), (i, 0, 0)).save(folder / f"{i:03}.png")


def reds(batch: np.ndarray) -> list[int]:
    return [round(float(image[0, 16, 16]) * 255) for image in batch]


def test_a_flat_folder_gives_batches_in_order_the_last_one_smaller(tmp_path: Path) -> None:
    pictures(tmp_path / "a", 7)
    batches = list(image_batches(tmp_path / "a", HOW, 3))
    assert [reds(batch) for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert all(batch.shape[1:] == (3, 32, 32) and batch.dtype == np.float32 for batch in batches)
    assert [len(batch) for batch in image_batches(str(tmp_path / "a"), HOW, 64)] == [7]


def test_a_folder_by_class_is_read_class_by_class_and_other_files_are_left_alone(tmp_path: Path) -> None:
    pictures(tmp_path / "val" / "n02", 2, start=5)
    pictures(tmp_path / "val" / "n01", 2, start=1)
    pictures(tmp_path / "val" / "n03" / "deeper", 1, start=9)
    (tmp_path / "val" / "labels.txt").write_text("not an image")
    (tmp_path / "val" / "folder.png").mkdir()
    assert [red for batch in image_batches(tmp_path / "val", HOW, 2) for red in reds(batch)] == [1, 2, 5, 6, 9]


def test_suffixes_may_be_in_capitals(tmp_path: Path) -> None:
    pictures(tmp_path, 1, start=4)
    (tmp_path / "004.png").rename(tmp_path / "IMG.PNG")
    assert [reds(batch) for batch in image_batches(tmp_path, HOW, 2)] == [[4]]


def test_unreadable_images_are_named_and_counted_and_the_others_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pictures(tmp_path, 4)
    whole = (tmp_path / "001.png").read_bytes()
    (tmp_path / "001.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "005.jpg").write_bytes(b"")
    (tmp_path / "006.jpg").write_text("<html>not found</html>")
    with caplog.at_level(logging.WARNING, logger="slimtrain.data.images"):
        batches = list(image_batches(tmp_path, HOW, 2))
    assert [reds(batch) for batch in batches] == [[0, 2], [3]]
    for name in ("001.png", "005.jpg", "006.jpg"):
        assert name in caplog.text
    assert "000.png" not in caplog.text
    assert "3 of 6 images could not be read" in caplog.text


def test_where_none_can_be_read_it_is_an_error(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no image")
    with pytest.raises(UserError, match=r"none of the 2 images, such as .*a\.png, can be read"):
        list(image_batches(tmp_path, HOW, 2))


def test_an_image_too_large_to_trust_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(tmp_path, 1)
    Image.new("RGB", (400, 400)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 40)  # twice that is an error of Pillow's, no warning
    with caplog.at_level(logging.WARNING, logger="slimtrain.data.images"):
        assert [reds(batch) for batch in image_batches(tmp_path, HOW, 2)] == [[0]]
    assert "bomb.png" in caplog.text


def test_a_folder_without_images_and_other_sources_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no images \(\.bmp, .*neither directly nor in folders"):
        list(image_batches(tmp_path / "empty", HOW, 2))
    with pytest.raises(UserError, match="no such folder or file"):
        list(image_batches(tmp_path / "nowhere", HOW, 2))
    with pytest.raises(UserError, match="no such file"):
        list(image_batches(tmp_path / "nowhere.npy", HOW, 2))
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(UserError, match=r"expected a folder of images, or a \.npy or \.npz"):
        list(image_batches(tmp_path / "a.txt", HOW, 2))


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_holds_something(batch_size: int, tmp_path: Path) -> None:
    pictures(tmp_path, 1)
    with pytest.raises(UserError, match=f"batch size {batch_size}: expected at least 1"):
        list(image_batches(tmp_path, HOW, batch_size))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9, 10, 11, 100])
def test_a_few_images_are_taken_evenly_from_all_classes(count: int, tmp_path: Path) -> None:
    for label in range(5):
        pictures(tmp_path / f"class{label}", 2, start=2 * label)
    every, taken = image_files(tmp_path), spread_files(tmp_path, count)
    assert taken == sorted(set(taken)) and set(taken) <= set(every)
    assert len(taken) == min(count, 10)
    if count > 1:
        assert (taken[0], taken[-1]) == (every[0], every[-1])
    if count == 5:
        assert len({path.parent for path in taken}) == 5


# -------------------------------------------------------------------------------------------------------------- arrays


def array(count: int = 5, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, size, size)).astype(np.float32)


@pytest.mark.parametrize("form", ["npy", "npz", "compressed", "fortran"])
def test_an_array_comes_in_batches_that_may_be_changed(form: str, tmp_path: Path) -> None:
    path, images = tmp_path / ("a.npy" if form in ("npy", "fortran") else "a.npz"), array()
    if form == "compressed":
        np.savez_compressed(path, whatever=images)
    elif form == "npz":
        np.savez(path, whatever=images)  # exactly one array, any name
    else:
        np.save(path, np.asfortranarray(images) if form == "fortran" else images)
    batches = list(image_batches(path, HOW, 2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(batches), images)
    batches[0][:] = 0  # a copy: the file stays as it is
    np.testing.assert_array_equal(np.concatenate(list(image_batches(path, HOW, 2))), images)


@pytest.mark.parametrize(
    ("images", "shape"),
    [
        (array().astype(np.float64), "float64 [5, 3, 32, 32]"),
        (array().astype(np.float16), "float16 [5, 3, 32, 32]"),
        (array().astype(">f4"), ">f4 [5, 3, 32, 32]"),
        ((array() * 10).astype(np.uint8), "uint8 [5, 3, 32, 32]"),
        (array().transpose(0, 2, 3, 1), "float32 [5, 32, 32, 3]"),
        (array()[0], "float32 [3, 32, 32]"),
        (array(size=64), "float32 [5, 3, 64, 64]"),
        (array()[:, :1], "float32 [5, 1, 32, 32]"),
        (array()[:0], "float32 [0, 3, 32, 32]"),
        (np.float32(1), "float32 []"),
    ],
)
def test_arrays_of_another_form_are_named(images: np.ndarray, shape: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", images)
    np.savez(tmp_path / "a.npz", images)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(UserError, match=re.escape(f"holds {shape}, expected normalized float32 images [N, 3, 32, 32]")):
            read_array(tmp_path / name, 32)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_also_at_the_very_end(value: float, tmp_path: Path) -> None:
    images = np.zeros((600, 3, 32, 32), np.float32)
    images[-1, -1, -1, -1] = value
    np.save(tmp_path / "a.npy", images)
    with pytest.raises(UserError, match=r"a\.npy: holds NaN or infinite values"):
        read_array(tmp_path / "a.npy", 32)


def test_two_arrays_or_none_are_refused_by_their_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", images=array(), labels=np.arange(5))
    with pytest.raises(UserError, match=r"two\.npz: holds the arrays images, labels, expected exactly one"):
        read_array(tmp_path / "two.npz", 32)
    np.savez(tmp_path / "none.npz")
    with pytest.raises(UserError, match="holds the arrays none, expected exactly one"):
        read_array(tmp_path / "none.npz", 32)


class Touch:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_pickled_objects_are_refused_and_not_loaded(suffix: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "it_ran", tmp_path / f"a.{suffix}"
    objects = np.array([Touch(marker)], dtype=object)
    if suffix == "npy":
        np.save(path, objects, allow_pickle=True)
    else:
        np.savez(path, objects)
    with pytest.raises(UserError, match=rf"a\.{suffix}: not a readable numpy file"):
        read_array(path, 32)
    assert not marker.exists()


def stored(form: str, path: Path) -> bytes:
    """An array that compresses well, in one of numpy's forms."""
    images = np.round(array())
    if form == "npy":
        np.save(path, images)
    elif form == "npz":
        np.savez(path, images)
    else:
        np.savez_compressed(path, images)
    return path.read_bytes()


@pytest.mark.parametrize("form", ["npy", "npz", "compressed"])
def test_truncated_arrays_are_refused(form: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.npy" if form == "npy" else "a.npz")
    data = stored(form, path)
    for end in (0, 1, 5, 60, 127, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:end])
        with pytest.raises(UserError, match=re.escape(path.name)):
            read_array(path, 32)


@pytest.mark.parametrize("form", ["npz", "compressed"])
def test_damaged_archives_are_refused_or_read_right(form: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    data = stored(form, path)
    for position in [*range(0, 400, 7), *range(400, len(data), len(data) // 40)]:
        damaged = bytearray(data)
        damaged[position : position + 8] = bytes(b ^ 0xFF for b in damaged[position : position + 8])
        path.write_bytes(bytes(damaged))
        try:
            image = read_array(path, 32)
        except UserError:
            continue
        np.testing.assert_array_equal(image, np.round(array()))  # what was hit says nothing about the values


def test_other_files_called_numpy_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_text("hello, this is text")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("notes.txt", "hello")
    for name in ("a.npy", "a.npz"):
        with pytest.raises(UserError, match=re.escape(name)):
            read_array(tmp_path / name, 32)
