"""Where images come from and which are taken: folders, flat or by class, with unreadable ones named and counted; one array in
a file; a packaged set."""

from __future__ import annotations

import logging
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from slimtrain.base.errors import UserError
from slimtrain.data.images import Preprocessing, open_source, read_array
from slimtrain.data.sampling import draw

HOW = Preprocessing(32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
EVERY = 10**6


def pictures(folder: Path, count: int, start: int = 0) -> None:
    """`count` images of one color each, `start` + i in red."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(start, start + count):
        Image.new("RGB", (40, 40), (i, 0, 0)).save(folder / f"{i:03}.png")


def reds(batch: np.ndarray) -> list[int]:
    return [round(float(image[0, 16, 16]) * 255) for image in batch]


def image_batches(source: Path | str, batch_size: int, most: int = EVERY) -> list[np.ndarray]:
    return list(open_source(source, HOW).batches(batch_size, most))


def all_reds(source: Path | str, most: int = EVERY) -> list[int]:
    return sorted(red for batch in image_batches(source, 64, most) for red in reds(batch))


def test_a_flat_folder_gives_batches_in_a_drawn_order_the_last_one_smaller(tmp_path: Path) -> None:
    pictures(tmp_path / "a", 7)
    batches = image_batches(tmp_path / "a", 3)
    assert all(batch.shape[1:] == (3, 32, 32) and batch.dtype == np.float32 for batch in batches)
    assert [len(batch) for batch in batches] == [3, 3, 1]
    order = [red for batch in batches for red in reds(batch)]
    assert sorted(order) == list(range(7)) != order
    assert order == draw([0] * 7, 7).indices.tolist() == reds(image_batches(str(tmp_path / "a"), 64)[0])


def test_a_folder_by_class_is_read_whole_and_other_files_are_left_alone(tmp_path: Path) -> None:
    pictures(tmp_path / "val" / "n02", 2, start=5)
    pictures(tmp_path / "val" / "n01", 2, start=1)
    pictures(tmp_path / "val" / "n03" / "deeper", 1, start=9)
    (tmp_path / "val" / "labels.txt").write_text("not an image")
    (tmp_path / "val" / "folder.png").mkdir()
    assert all_reds(tmp_path / "val") == [1, 2, 5, 6, 9]


def test_some_images_are_of_all_classes_alike_and_it_is_said_how_many(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By name the first ten would all be of class a."""
    for label, count in enumerate((30, 12, 20)):
        pictures(tmp_path / "abc"[label], count, start=60 * label)
    with caplog.at_level(logging.INFO, logger="slimtrain.data.images"):
        taken = all_reds(tmp_path, 9)
    assert [sum(red // 60 == label for red in taken) for label in range(3)] == [3, 3, 3]
    assert caplog.messages == [f"calibration: {tmp_path}: 9 of 62 images, 3 of each of 3 folders"]
    assert taken == all_reds(tmp_path, 9)
    assert not np.array_equal(taken, sorted([0, 1, 2, 60, 61, 62, 120, 121, 122]))  # nor the first of each


def test_every_batch_mixes_classes_of_opposite_brightness(tmp_path: Path) -> None:
    """The variance within batches, which batch norm averages, is that of all images; by name it would be nearly nothing."""
    pictures(tmp_path / "dark", 32, start=0)
    pictures(tmp_path / "light", 32, start=200)
    batches = image_batches(tmp_path, 8)
    every = np.concatenate(batches)[:, 0].mean((1, 2))
    within = np.mean([batch[:, 0].mean((1, 2)).var(ddof=1) for batch in batches])
    assert within == pytest.approx(every.var(ddof=1), rel=0.2)
    by_name = [np.sort(every)[i : i + 8].var(ddof=1) for i in range(0, 64, 8)]
    assert np.mean(by_name) < 0.01 * within


def test_probes_are_of_different_classes_and_others_stand_in_for_unreadable_ones(tmp_path: Path) -> None:
    for label in range(5):
        pictures(tmp_path / f"class{label}", 4, start=10 * label)
    for count in (1, 2, 3, 5):
        some = reds(np.stack(open_source(tmp_path, HOW).some(count, "verification")))
        assert len({red // 10 for red in some}) == count
    (first, _) = reds(np.stack(open_source(tmp_path, HOW).some(2, "verification")))
    (tmp_path / f"class{first // 10}" / f"{first:03}.png").write_bytes(b"broken")
    again = reds(np.stack(open_source(tmp_path, HOW).some(2, "verification")))
    assert len(again) == 2 and first not in again
    assert len(open_source(tmp_path, HOW).some(100, "verification")) == 19


@pytest.mark.parametrize("litter", ["._000.png", ".ipynb_checkpoints/000.png", "__MACOSX/a/000.png", "@eaDir/000.png"])
def test_what_systems_leave_behind_is_no_image(litter: str, tmp_path: Path) -> None:
    pictures(tmp_path / "a", 2)
    (tmp_path / "a" / litter).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "a" / "001.png").rename(tmp_path / "a" / litter)
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini"):
        (tmp_path / "a" / name).write_bytes(b"1")
    assert all_reds(tmp_path) == [0]


def test_links_are_followed_once(tmp_path: Path) -> None:
    pictures(tmp_path / "elsewhere", 3)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "elsewhere")
    assert all_reds(tmp_path / "set") == [0, 1, 2]


def test_images_that_pillow_does_not_read_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pictures(tmp_path, 2)
    for name in ("a.CR2", "b.cr2", "._c.cr2", "d.txt"):
        (tmp_path / name).write_bytes(b"raw")
    assert all_reds(tmp_path) == [0, 1]
    assert "2 .cr2 files are images that Pillow does not read here: convert them to .jpg or .png" in caplog.text
    (tmp_path / "raws").mkdir()
    (tmp_path / "a.CR2").rename(tmp_path / "raws" / "a.CR2")
    with pytest.raises(UserError, match=r"holds no images.*\. 1 \.cr2 file is an image that Pillow does not read here"):
        open_source(tmp_path / "raws", HOW)


def test_digits_are_drawn_too(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="slimtrain.data.images"):
        (batch,) = open_source("digits", HOW).batches(64, 50, "int8")
    assert batch.shape == (50, 3, 32, 32)
    assert caplog.messages == ["int8: digits: 50 of 1,437 images, 5 of each of 10 classes"]


def test_suffixes_may_be_in_capitals(tmp_path: Path) -> None:
    pictures(tmp_path, 1, start=4)
    (tmp_path / "004.png").rename(tmp_path / "IMG.PNG")
    assert all_reds(tmp_path) == [4]


def test_unreadable_images_are_named_and_counted_and_the_others_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pictures(tmp_path, 4)
    whole = (tmp_path / "001.png").read_bytes()
    (tmp_path / "001.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "005.jpg").write_bytes(b"")
    (tmp_path / "006.jpg").write_text("<html>not found</html>")
    with caplog.at_level(logging.WARNING, logger="slimtrain.data.images"):
        assert all_reds(tmp_path) == [0, 2, 3]
    for name in ("001.png", "005.jpg", "006.jpg"):
        assert name in caplog.text
    assert "000.png" not in caplog.text
    assert "3 of 6 images could not be read" in caplog.text


def test_where_none_can_be_read_it_is_an_error(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no image")
    with pytest.raises(UserError, match=r"none of the 2 images, such as .*[ab]\.png, can be read"):
        image_batches(tmp_path, 2)


def test_an_image_too_large_to_trust_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(tmp_path, 1)
    Image.new("RGB", (400, 400)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 40)  # twice that is an error of Pillow's, no warning
    with caplog.at_level(logging.WARNING, logger="slimtrain.data.images"):
        assert all_reds(tmp_path) == [0]
    assert "bomb.png: has more pixels than are decoded" in caplog.text and "1 of 2 images could not be read" in caplog.text


def test_a_folder_without_images_and_other_sources_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no images \(\.jpg, \.png, .*neither directly nor in folders"):
        image_batches(tmp_path / "empty", 2)
    with pytest.raises(UserError, match="no such folder or file"):
        image_batches(tmp_path / "nowhere", 2)
    with pytest.raises(UserError, match="no such file"):
        image_batches(tmp_path / "nowhere.npy", 2)
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(UserError, match=r"expected a folder of images, or a \.npy or \.npz"):
        image_batches(tmp_path / "a.txt", 2)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_holds_something(batch_size: int, tmp_path: Path) -> None:
    pictures(tmp_path, 1)
    with pytest.raises(UserError, match=f"batch size {batch_size}: expected at least 1"):
        image_batches(tmp_path, batch_size)


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
    batches, order = image_batches(path, 2), draw([0] * 5, 5).indices
    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(batches), images[order])
    batches[0][:] = 0  # a copy: the file stays as it is
    np.testing.assert_array_equal(np.concatenate(image_batches(path, 2)), images[order])


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


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_labels_beside_the_images_balance_what_is_taken(
    kind: type[np.integer[Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of 90 images of one class and 10 of another, ten of each."""
    images = np.zeros((100, 3, 32, 32), np.float32)
    labels = np.repeat([0, 1], [90, 10]).astype(kind)
    images += labels.reshape(-1, 1, 1, 1)
    np.savez(tmp_path / "a.npz", y=labels, x=images)
    with caplog.at_level("INFO"):
        (batch,) = open_source(tmp_path / "a.npz", Preprocessing(32, (0.0,) * 3, (1.0,) * 3)).batches(50, 20)
    assert batch[:, 0, 0, 0].tolist().count(1) == 10 and len(batch) == 20
    assert "20 of 100 images" in caplog.text and "2 classes" in caplog.text


@pytest.mark.parametrize(
    "more",
    [
        {"labels": np.arange(5), "boxes": np.zeros((5, 4), np.float32)},
        {"labels": np.arange(5), "groups": np.arange(5)},
        {"again": np.zeros((5, 3, 32, 32), np.float32)},
        {"labels": np.zeros(5, np.float32)},  # no classes
    ],
)
def test_more_arrays_are_refused_by_their_names_and_the_advice_leads_on(more: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "more.npz"
    np.savez(path, images=array(), **more)
    with pytest.raises(
        UserError, match=r"more\.npz: holds the arrays images float32 \[5, 3, 32, 32\], \w+ .*Save these alone"
    ) as caught:
        read_array(path, 32)
    assert all(f"{name} {held.dtype} {list(held.shape)}" in str(caught.value) for name, held in more.items())
    np.savez(path, images=array())
    assert read_array(path, 32)[1] is None
    np.savez(path, images=array(), labels=np.arange(5))
    labels = read_array(path, 32)[1]
    assert labels is not None and labels.tolist() == list(range(5))


def test_no_arrays_or_too_few_labels_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "none.npz")
    with pytest.raises(UserError, match="holds the arrays none; expected exactly one"):
        read_array(tmp_path / "none.npz", 32)
    np.savez(tmp_path / "few.npz", images=array(), labels=np.arange(4))
    with pytest.raises(UserError, match=r"few\.npz: holds 5 images and 4 labels"):
        read_array(tmp_path / "few.npz", 32)
    np.savez(tmp_path / "alone.npz", labels=np.arange(4))
    with pytest.raises(UserError, match=r"holds the arrays labels int64 \[4\]; expected exactly one, of images"):
        read_array(tmp_path / "alone.npz", 32)


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
            image, _ = read_array(path, 32)
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


@pytest.mark.parametrize("channels", [1, 4])
def test_sources_have_the_networks_channels_and_size(channels: int, tmp_path: Path) -> None:
    how = Preprocessing((24, 40), (0.0,) * channels, (1.0,) * channels)
    pictures(tmp_path / "a", 5)
    (batch,) = open_source(tmp_path / "a", how).batches(8, EVERY)
    assert batch.shape == (5, channels, 24, 40)
    values = {round(float(image[0, 12, 20]) * 255) for image in batch}
    assert values == ({round(0.299 * red) for red in range(5)} if channels == 1 else set(range(5)))
    assert channels == 1 or (batch[:, 3] == 1).all()  # opaque
    (digits,) = open_source("digits", how).batches(3, 3)
    assert digits.shape == (3, channels, 24, 40) and (digits[:, 0] == digits[:, channels // 2]).all()
    np.save(tmp_path / "a.npy", batch)
    (again,) = open_source(tmp_path / "a.npy", how).batches(8, EVERY)
    assert {image.tobytes() for image in again} == {image.tobytes() for image in batch}
    with pytest.raises(UserError, match=rf"holds float32 \[5, {channels}, 24, 40\], expected .* \[N, {channels}, 40, 24\]"):
        read_array(tmp_path / "a.npy", (40, 24), channels)


def test_images_of_two_channels_come_as_arrays(tmp_path: Path) -> None:
    """What the refusal of pictures says works."""
    how = Preprocessing(32, (0.0, 0.0), (1.0, 1.0))
    pictures(tmp_path / "a", 2)
    for source in (tmp_path / "a", "digits"):
        with pytest.raises(UserError, match=r"images of 2 channels: .* Give normalized images as a \.npy file instead"):
            open_source(source, how)
    np.save(tmp_path / "a.npy", np.zeros((4, 2, 32, 32), np.float32))
    assert [batch.shape for batch in open_source(tmp_path / "a.npy", how).batches(3, EVERY)] == [
        (3, 2, 32, 32),
        (1, 2, 32, 32),
    ]
