"""CIFAR's files, in the published files' form; what is damaged, foreign or hostile is refused."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slimtrain.base.errors import UserError
from slimtrain.data.datasets import open_data
from slimtrain.data.samples import Samples
from tests.support.data_sets import python2_pickle, write_cifar


def labels(samples: Samples) -> list[int]:
    return [samples.label(i) for i in range(len(samples))]


def pixels(samples: Samples, index: int) -> torch.Tensor:
    image = samples.image(index)
    assert isinstance(image, torch.Tensor) and image.dtype == torch.uint8
    return image


def python3_pickle(protocol: int) -> Any:
    return lambda entries: pickle.dumps(entries, protocol=protocol)


FORMS = {"python 2": python2_pickle, "protocol 2": python3_pickle(2), "protocol 4": python3_pickle(4)}


def check_cifar10(data_dir: Path, files: dict[str, dict[bytes, Any]]) -> None:
    data = open_data("cifar10", str(data_dir))
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
    data = open_data("cifar100", str(tmp_path))
    assert len(data.classes) == 100 and labels(data.train) == files["train"][b"fine_labels"] and len(data.test) == 5
    with pytest.raises(UserError, match=r"holds no cifar10 \(found cifar-100-python\).*It holds cifar100: set data to that"):
        open_data("cifar10", str(tmp_path))


class Hostile:
    """Makes a folder where it is unpickled by a reader that calls what it is told."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (self.folder,)


def test_a_file_cannot_call_anything(tmp_path: Path) -> None:
    write_cifar(tmp_path, "cifar10")
    for protocol in range(6):
        python_folder = tmp_path / f"made{protocol}"
        content = pickle.dumps({b"data": Hostile(str(python_folder)), b"labels": [1]}, protocol=protocol)
        (tmp_path / "data_batch_2").write_bytes(content)
        with pytest.raises(UserError, match=r"data_batch_2: truncated, or no file of CIFAR.*it calls \w+\.mkdir"):
            open_data("cifar10", str(tmp_path))
        assert not python_folder.exists()
        pickle.loads(content)
        assert python_folder.exists()  # it would have


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
        open_data("cifar10", str(tmp_path))


def test_every_truncation_and_any_flipped_byte_is_refused_or_read(tmp_path: Path) -> None:
    write_cifar(tmp_path, "cifar10")
    whole = python2_pickle({b"labels": [1, 2], b"data": np.zeros((2, 3072), np.uint8)})
    ends = [*range(220), *range(220, len(whole), 500), len(whole) - 1]
    for end in ends:
        (tmp_path / "test_batch").write_bytes(whole[:end])
        with pytest.raises(UserError, match="test_batch"):
            open_data("cifar10", str(tmp_path))
    rng = np.random.default_rng(0)
    for at in range(220):
        damaged = bytearray(whole)
        damaged[at] ^= int(rng.integers(1, 256))
        (tmp_path / "test_batch").write_bytes(damaged)
        try:
            assert len(open_data("cifar10", str(tmp_path)).test) == 2
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
        open_data("cifar10", str(tmp_path))


def test_images_of_another_type_are_refused(tmp_path: Path) -> None:
    write_cifar(tmp_path, "cifar10")
    for data in (np.zeros((1, 384), np.float64), np.asfortranarray(np.zeros((2, 1536), np.uint8))):
        (tmp_path / "test_batch").write_bytes(pickle.dumps({b"labels": [1], b"data": data}, protocol=4))
        with pytest.raises(UserError, match="has no bytes of images"):
            open_data("cifar10", str(tmp_path))


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"holds no cifar10 \(found nothing\), expected cifar-10-batches-py/ or cifar-10-python"
    ):
        open_data("cifar10", str(tmp_path))
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar(folder, "cifar10")
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("batches.meta", "test_batch", "data_batch_1"):
            tar.add(folder / name, f"cifar-10-batches-py/{name}")
    (folder / "data_batch_3").unlink()
    with pytest.raises(UserError, match=r"data_batch_3: cannot be read \(No such file"):
        open_data("cifar10", str(tmp_path))
    (folder / "batches.meta").write_bytes(python2_pickle({b"label_names": [b"a"]}))
    with pytest.raises(UserError, match=r"batches.meta: names 1 classes, expected 10"):
        open_data("cifar10", str(tmp_path))
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"cifar-10-python.tar.gz: holds no data_batch_2 \(found batches.meta, data_batch_1"):
        open_data("cifar10", str(tmp_path))
    for content in (archive.read_bytes()[:2000], b"<html>", b""):
        archive.write_bytes(content)
        with pytest.raises(UserError, match=r"cifar-10-python.tar.gz: truncated or no tar archive"):
            open_data("cifar10", str(tmp_path))


def test_an_archives_links_are_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as tar:
        link = tarfile.TarInfo("cifar-10-batches-py/batches.meta")
        link.type, link.linkname = tarfile.SYMTYPE, "../secret"
        tar.addfile(link, io.BytesIO())
    with pytest.raises(UserError, match=r"holds no batches.meta \(found nothing\)"):
        open_data("cifar10", str(tmp_path))
