"""Files called CIFAR's that claim, repeat or inflate to more than CIFAR has are refused early."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
from pathlib import Path

import pytest

from slimtrain.base.errors import UserError
from slimtrain.data import cifar
from slimtrain.data.datasets import open_data
from tests.support.data_sets import write_cifar

DOUBLED = b"(I1\nI1\nt" + b"".join(b"q%c0h%ch%c\x86" % (at, at, at) for at in range(60))  # a tuple of itself twice, and so on
HOSTILE = {
    "a key that is hashed for ever": b"\x80\x02}" + DOUBLED + b"K\1s.",
    "such keys at once": b"\x80\x02}(" + DOUBLED + b"K\1u.",
    "a dictionary of such": b"(" + DOUBLED + b"K\1d.",
    "a number that memory is taken for": b"\x80\x02}r\xff\xff\xff\x7f.",
    "lengths beyond its end": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "a frame beyond its end": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.",
    "numbers of many digits": b"I" + b"9" * 100_000 + b"\n.",
    "steps without end": b"\x80\x02" + b"N0" * 20_000 + b"}.",
    "a set": b"\x80\x04\x8f(K\1\x90.",
    "an object": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_pickle_is_refused(attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "MOST_STEPS", 10_000)
    write_cifar(tmp_path, "cifar10")
    (tmp_path / "data_batch_2").write_bytes(HOSTILE[attack])
    with pytest.raises(UserError, match=r"data_batch_2: (truncated, or )?no file of CIFAR") as caught:
        open_data("cifar10", str(tmp_path))
    assert len(str(caught.value)) < 1000


def test_names_that_are_no_texts_are_none(tmp_path: Path) -> None:
    write_cifar(tmp_path, "cifar10")
    nested: list[object] = [1]
    for _ in range(60):
        nested = [nested, nested]
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({b"label_names": [nested] * 3}, 2))
    with pytest.raises(UserError, match="names 3 classes, expected 10"):
        open_data("cifar10", str(tmp_path))


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    write_cifar(tmp_path, "cifar10")
    (tmp_path / "data_batch_2").unlink()
    os.mkfifo(tmp_path / "data_batch_2")
    with pytest.raises(UserError, match=r"data_batch_2: cannot be read \(is a FIFO, expected a file\)"):
        open_data("cifar10", str(tmp_path))


def packed(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    path.write_bytes(gzip.compress(content.getvalue()))
    return path


def test_an_archive_is_inflated_only_as_far_as_one_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "MOST_INFLATED", 1 << 20)
    path = packed(tmp_path / "cifar-10-python.tar.gz", (tarfile.TarInfo("a"), bytes(2 << 20)), (tarfile.TarInfo("b"), b""))
    with pytest.raises(UserError, match="it inflates to more than 1 MiB"):
        open_data("cifar10", str(path))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_of_gigabytes_is_not_read(kind: bytes, tmp_path: Path) -> None:
    member = tarfile.TarInfo("a")
    member.type, member.size = kind, 1 << 33
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))
    with pytest.raises(UserError, match="a part of it is larger than such an archive has"):
        open_data("cifar10", str(path))


def test_links_and_absolute_paths_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    link = tarfile.TarInfo("cifar-10-batches-py/batches.meta")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
    written = tarfile.TarInfo(str(tmp_path / "test_batch"))
    path = packed(tmp_path / "cifar-10-python.tar.gz", (link, b""), (written, b"x"))
    with pytest.raises(UserError, match=r"holds no batches\.meta \(found test_batch\)"):
        open_data("cifar10", str(path))
    assert not (tmp_path / "test_batch").exists()


def test_more_members_than_an_archive_has_are_not_gone_through(tmp_path: Path) -> None:
    path = packed(tmp_path / "cifar-10-python.tar.gz", *((tarfile.TarInfo(f"f{i}"), b"") for i in range(101)))
    with pytest.raises(UserError, match="it holds more than 100 files"):
        open_data("cifar10", str(path))
