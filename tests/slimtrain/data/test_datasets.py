"""Digits, fake images, CIFAR files and the held-out split, against the published files' form and published code's rule."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slimtrain.base.errors import ResourceError, UserError
from slimtrain.config.config import Config
from slimtrain.config.reading import make_config
from slimtrain.data.datasets import digits_split, open_data
from slimtrain.data.samples import ArraySamples, Samples, hold_out


def config(**values: Any) -> Config:
    return make_config({"network": "us_mobilenet_v1", "image_size": 32, **values}, "test")


def labels(samples: Samples) -> list[int]:
    return [samples.label(i) for i in range(len(samples))]


def pixels(samples: Samples, index: int) -> torch.Tensor:
    image = samples.image(index)
    assert isinstance(image, torch.Tensor) and image.dtype == torch.uint8
    return image


# ---- digits


def test_digits_are_split_in_equal_shares_and_none_is_lost() -> None:
    from sklearn.datasets import load_digits

    split = digits_split()
    assert split.train_images.shape == (1437, 3, 8, 8) and split.test_images.shape == (360, 3, 8, 8)
    assert split.train_images.dtype == split.test_images.dtype == np.uint8 and split.test_images.max() == 255
    values, known = load_digits(return_X_y=True)
    together = np.concatenate([split.train_images, split.test_images])
    assert (together[:, :1] == together).all()
    found = zip(together[:, 0].reshape(-1, 64), np.concatenate([split.train_labels, split.test_labels]), strict=True)
    expected = sorted((tuple(np.round(v / 16 * 255)), label) for v, label in zip(values, known, strict=True))
    assert sorted((tuple(gray), label) for gray, label in found) == expected
    shares = np.bincount(split.test_labels) / np.bincount(known)
    assert abs(shares - 0.2).max() < 0.01
    assert pickle.dumps(split) == pickle.dumps(digits_split())


def test_digits_data_is_the_split() -> None:
    data, split = open_data(config(data="digits")), digits_split()
    assert data.classes == tuple("0123456789") and labels(data.test) == split.test_labels.tolist()
    assert (pixels(data.train, 17).numpy() == split.train_images[17]).all() and data.test.name(17) == "digits test 17"


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ResourceError, match=r"pip install 'slimmable-deploy\[digits\]' \(or pip install scikit-learn\)"):
        open_data(config(data="digits"))


# ---- fake


def test_fake_images_are_the_same_every_time() -> None:
    first, second = (open_data(config(data="fake", classes=7, batch_size=5)) for _ in range(2))
    assert len(first.classes) == 7 and len(first.train) == 20 and len(first.test) == 10
    assert labels(first.train) == [i % 7 for i in range(20)]
    assert pixels(first.train, 3).shape == (3, 32, 32) and torch.equal(pixels(first.train, 3), pixels(second.train, 3))
    seen = {pixels(part, i).numpy().tobytes() for part in (first.train, first.test) for i in range(len(part))}
    assert len(seen) == 30
    assert len(open_data(config(data="fake")).classes) == 10


def test_one_class_is_refused() -> None:
    with pytest.raises(UserError, match="fake has 1 class, expected at least 2"):
        open_data(config(data="fake", classes=1))


@pytest.mark.parametrize("classes", [9, 11])
def test_another_number_of_classes_is_refused(classes: int) -> None:
    with pytest.raises(UserError, match=f"classes is {classes}, but the data has 10. Leave classes out"):
        open_data(config(data="digits", classes=classes))
    assert len(open_data(config(data="digits", classes=10)).classes) == 10


# ---- holdout


def test_the_held_out_images_are_those_of_the_published_code() -> None:
    """`random.seed(seed); random.shuffle(samples)`; the first are held out."""
    samples = ArraySamples(np.zeros((100, 3, 1, 1), np.uint8), np.arange(100), "x")
    state = random.getstate()
    train, test = hold_out(samples, 30, 1995)
    assert random.getstate() == state
    listed = list(range(100))
    random.seed(1995)
    random.shuffle(listed)
    random.setstate(state)
    assert labels(test) == listed[:30] and labels(train) == listed[30:]
    assert sorted(labels(train) + labels(test)) == list(range(100))
    assert [test.name(i) for i in range(3)] == [f"x {i}" for i in listed[:3]]
    assert labels(hold_out(samples, 30, 1995)[1]) == labels(test) != labels(hold_out(samples, 30, 0)[1])


def test_with_holdout_the_test_images_are_training_images() -> None:
    whole, data = open_data(config(data="digits")), open_data(config(data="digits", holdout=100))
    assert len(data.test) == 100 and len(data.train) == 1337
    names = [data.train.name(i) for i in range(1337)] + [data.test.name(i) for i in range(100)]
    assert sorted(names) == sorted(whole.train.name(i) for i in range(1437))


@pytest.mark.parametrize("count", [1437, 50_000])
def test_holding_everything_out_is_refused(count: int) -> None:
    with pytest.raises(UserError, match=f"holdout is {count}, but there are 1437 training images"):
        open_data(config(data="digits", holdout=count))


# ---- CIFAR


def python2_pickle(entries: dict[bytes, Any]) -> bytes:
    """Protocol 2 as Python 2 and numpy wrote the published files: `str` for bytes and an array of raw bytes."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value  # SHORT_BINSTRING

    def put(value: Any) -> bytes:
        if isinstance(value, bytes):
            return text(value)
        if isinstance(value, int):
            return b"J" + struct.pack("<i", value)
        if isinstance(value, list):
            return b"](" + b"".join(put(item) for item in value) + b"e"
        assert isinstance(value, np.ndarray) and value.dtype == np.uint8
        dtype = (
            b"cnumpy\ndtype\n(" + text(b"u1") + b"K\0K\1tR(K\3" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
        )
        shape = b"(" + b"".join(put(side) for side in value.shape) + b"t"
        raw = b"T" + struct.pack("<i", value.nbytes) + value.tobytes()  # BINSTRING
        start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n(K\0t" + text(b"b") + b"\x87R"
        return start + b"(K\1" + shape + dtype + b"\x89" + raw + b"tb"

    return b"\x80\x02}(" + b"".join(text(key) + put(value) for key, value in entries.items()) + b"u."


def python3_pickle(protocol: int) -> Any:
    return lambda entries: pickle.dumps(entries, protocol=protocol)


FORMS = {"python 2": python2_pickle, "protocol 2": python3_pickle(2), "protocol 4": python3_pickle(4)}


def batch(count: int, classes: int, key: bytes, seed: int) -> dict[bytes, Any]:
    rng = np.random.default_rng(seed)
    numbers = [int(n) for n in rng.integers(0, classes, count)]
    return {b"data": rng.integers(0, 256, (count, 3072), dtype=np.uint8), key: numbers}


def write_cifar(folder: Path, name: str, form: Any = python2_pickle) -> dict[str, dict[bytes, Any]]:
    """A small data set in the published layout, and what is in it."""
    folder.mkdir(parents=True, exist_ok=True)
    if name == "cifar10":
        files = {f"data_batch_{i}": batch(4, 10, b"labels", i) for i in range(1, 6)}
        files["test_batch"] = batch(6, 10, b"labels", 9)
        files["batches.meta"] = {b"label_names": [b"class %d" % i for i in range(10)]}
    else:
        files = {"train": batch(9, 100, b"fine_labels", 1), "test": batch(5, 100, b"fine_labels", 2)}
        files["meta"] = {b"fine_label_names": [b"class %d" % i for i in range(100)]}
    for file, entries in files.items():
        (folder / file).write_bytes(form(entries))
    return files


def check_cifar10(data_dir: Path, files: dict[str, dict[bytes, Any]]) -> None:
    data = open_data(config(data="cifar10", data_dir=str(data_dir)))
    parts = [files[f"data_batch_{i}"] for i in range(1, 6)]
    assert data.classes == tuple(f"class {i}" for i in range(10))
    assert labels(data.train) == [n for part in parts for n in part[b"labels"]]
    assert labels(data.test) == files["test_batch"][b"labels"]
    for i in range(20):
        expected = parts[i // 4][b"data"][i % 4].reshape(3, 32, 32)
        assert (pixels(data.train, i).numpy() == expected).all()
    assert (pixels(data.test, 5).numpy() == files["test_batch"][b"data"][5].reshape(3, 32, 32)).all()


@pytest.mark.parametrize("form", FORMS)
def test_cifar10_is_read_from_every_place(form: str, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    files = write_cifar(folder, "cifar10", FORMS[form])
    if form == "python 2":  # the writer of these tests writes what it means
        loaded = pickle.loads((folder / "data_batch_1").read_bytes(), encoding="bytes")
        assert (loaded[b"data"] == files["data_batch_1"][b"data"]).all()
    check_cifar10(folder, files)
    check_cifar10(tmp_path, files)
    packed = tmp_path / "packed"
    packed.mkdir()
    with tarfile.open(packed / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(folder, "cifar-10-batches-py")
    check_cifar10(packed, files)
    check_cifar10(packed / "cifar-10-python.tar.gz", files)


def test_cifar100_is_read_with_its_fine_labels(tmp_path: Path) -> None:
    files = write_cifar(tmp_path / "cifar-100-python", "cifar100")
    data = open_data(config(data="cifar100", data_dir=str(tmp_path)))
    assert len(data.classes) == 100 and labels(data.train) == files["train"][b"fine_labels"] and len(data.test) == 5
    with pytest.raises(UserError, match=r"holds no cifar10 \(found cifar-100-python\).*It holds cifar100: set data to that"):
        open_data(config(data="cifar10", data_dir=str(tmp_path)))


class Hostile:
    """Makes a folder where it is unpickled by a reader that calls what it is told."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (self.folder,)


def test_a_file_cannot_call_anything(tmp_path: Path) -> None:
    write_cifar(tmp_path, "cifar10")
    for protocol in range(6):
        made = tmp_path / f"made{protocol}"
        content = pickle.dumps({b"data": Hostile(str(made)), b"labels": [1]}, protocol=protocol)
        (tmp_path / "data_batch_2").write_bytes(content)
        with pytest.raises(UserError, match=r"data_batch_2: truncated, or no file of CIFAR.*it calls \w+\.mkdir"):
            open_data(config(data="cifar10", data_dir=str(tmp_path)))
        assert not made.exists()
        pickle.loads(content)
        assert made.exists()  # it would have


HOSTILE = {
    "eval": b"\x80\x02cbuiltins\neval\n(X\x04\0\0\01+41tR.",
    "an attribute of what is known": b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.tobytes\x93.",
    "numpy's own loader": b"\x80\x02cnumpy\nload\n.",
    "a saved identifier": b"\x80\x02Pname\n.",
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_file_that_names_anything_else_is_refused(attack: str, tmp_path: Path) -> None:
    write_cifar(tmp_path, "cifar10")
    (tmp_path / "data_batch_2").write_bytes(HOSTILE[attack])
    with pytest.raises(UserError, match=r"data_batch_2: truncated, or no file of CIFAR.*Download it again"):
        open_data(config(data="cifar10", data_dir=str(tmp_path)))


def test_every_truncation_and_any_flipped_byte_is_refused_or_read(tmp_path: Path) -> None:
    write_cifar(tmp_path, "cifar10")
    whole = python2_pickle({b"labels": [1, 2], b"data": np.zeros((2, 3072), np.uint8)})
    how = config(data="cifar10", data_dir=str(tmp_path))
    ends = [*range(220), *range(220, len(whole), 500), len(whole) - 1]
    for end in ends:
        (tmp_path / "test_batch").write_bytes(whole[:end])
        with pytest.raises(UserError, match="test_batch"):
            open_data(how)
    rng = np.random.default_rng(0)
    for at in range(220):
        damaged = bytearray(whole)
        damaged[at] ^= int(rng.integers(1, 256))
        (tmp_path / "test_batch").write_bytes(damaged)
        try:
            assert len(open_data(how).test) == 2
        except UserError as error:
            assert "test_batch" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({b"labels": [1, 2], b"data": np.zeros((1, 3072), np.uint8)}, "has 3072 bytes of images, expected 3072 for each of 2"),
        ({b"labels": [1, 10], b"data": np.zeros((2, 3072), np.uint8)}, "has labels from 1 to 10, expected 0 to 9"),
        ({b"fine_labels": [1], b"data": np.zeros((1, 3072), np.uint8)}, "has no list 'labels' .found data, fine_labels"),
        ({b"labels": [], b"data": np.zeros((0, 3072), np.uint8)}, "has no list 'labels'"),
        ({b"labels": [1]}, "has no bytes of images"),
        ([1], "holds a list, expected a dictionary"),
    ],
)
def test_a_foreign_batch_is_refused(entries: Any, message: str, tmp_path: Path) -> None:
    write_cifar(tmp_path, "cifar10")
    (tmp_path / "test_batch").write_bytes(pickle.dumps(entries, protocol=4))
    with pytest.raises(UserError, match=message):
        open_data(config(data="cifar10", data_dir=str(tmp_path)))


def test_images_of_another_type_are_refused(tmp_path: Path) -> None:
    write_cifar(tmp_path, "cifar10")
    for data in (np.zeros((1, 384), np.float64), np.asfortranarray(np.zeros((2, 1536), np.uint8))):
        (tmp_path / "test_batch").write_bytes(pickle.dumps({b"labels": [1], b"data": data}, protocol=4))
        with pytest.raises(UserError, match="has no bytes of images"):
            open_data(config(data="cifar10", data_dir=str(tmp_path)))


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    how = config(data="cifar10", data_dir=str(tmp_path))
    with pytest.raises(
        UserError, match=r"holds no cifar10 \(found nothing\), expected cifar-10-batches-py/ or cifar-10-python"
    ):
        open_data(how)
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar(folder, "cifar10")
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("batches.meta", "test_batch", "data_batch_1"):
            tar.add(folder / name, f"cifar-10-batches-py/{name}")
    (folder / "data_batch_3").unlink()
    with pytest.raises(UserError, match=r"data_batch_3: cannot be read \(No such file"):
        open_data(how)
    (folder / "batches.meta").write_bytes(python2_pickle({b"label_names": [b"a"]}))
    with pytest.raises(UserError, match=r"batches.meta: names 1 classes, expected 10"):
        open_data(how)
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"cifar-10-python.tar.gz: holds no data_batch_2 \(found batches.meta, data_batch_1"):
        open_data(how)
    for content in (archive.read_bytes()[:2000], b"<html>", b""):
        archive.write_bytes(content)
        with pytest.raises(UserError, match=r"cifar-10-python.tar.gz: truncated or no tar archive"):
            open_data(how)


def test_an_archives_links_are_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as tar:
        link = tarfile.TarInfo("cifar-10-batches-py/batches.meta")
        link.type, link.linkname = tarfile.SYMTYPE, "../secret"
        tar.addfile(link, io.BytesIO())
    with pytest.raises(UserError, match=r"holds no batches.meta \(found nothing\)"):
        open_data(config(data="cifar10", data_dir=str(tmp_path)))


@pytest.mark.parametrize("data", ["cifar10", "cifar100", "folder", "imagenet"])
def test_no_folder_is_told_with_the_option_to_set(data: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data_dir is not set, expected the folder that holds .*--set data_dir=PATH"):
        open_data(config(data=data))
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        open_data(config(data=data, data_dir=str(tmp_path / "nowhere")))
