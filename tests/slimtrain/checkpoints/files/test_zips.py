"""Every byte of a zip member that is used is compared with its CRC; members are measured before they are inflated."""

from __future__ import annotations

import io
import logging
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from slimtrain.base.errors import CheckpointError
from slimtrain.base.untrusted.zip_members import ZipError
from slimtrain.checkpoints.files import zips
from slimtrain.checkpoints.files.zips import ZipBomb, open_zip, sole
from slimtrain.checkpoints.reading import read_content

STATE = {f"features.{i}.weight": torch.arange(600.0).reshape(6, 4, 5, 5) + i for i in range(3)}


def saved(path: Path) -> bytearray:
    torch.save({"model": STATE}, path)
    return bytearray(path.read_bytes())


def places(data: bytes, name: str) -> range:
    """Where the bytes of the members of this name are."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        member = next(m for m in archive.infolist() if m.filename.endswith(name))
    name_length, extra = struct.unpack("<HH", data[member.header_offset + 26 : member.header_offset + 30])
    start = member.header_offset + 30 + name_length + extra
    return range(start, start + member.file_size)


@pytest.mark.parametrize("name", ["data/0", "data/2", "data.pkl", "byteorder"])
def test_a_flipped_bit_of_what_is_read_is_always_refused(name: str, tmp_path: Path) -> None:
    data = saved(tmp_path / "a.pt")
    bytes_of = places(bytes(data), name)
    for place in np.random.default_rng(0).choice(bytes_of, min(20, len(bytes_of)), replace=False):
        damaged = bytearray(data)
        damaged[place] ^= 1
        (tmp_path / "a.pt").write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"^a\.pt: truncated or damaged"):
            read_content(tmp_path / "a.pt")


def test_files_that_were_written_without_crcs_are_read_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"model": STATE}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    with caplog.at_level(logging.INFO):
        read = read_content(tmp_path / "a.pt")
    assert all(torch.equal(read["model"][key], tensor) for key, tensor in STATE.items())
    assert "a.pt: was written without checksums" in caplog.text


def test_members_that_would_be_much_more_than_the_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zips, "INFLATED", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.pt.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.pt", bytes(2 << 20))
    with pytest.raises(CheckpointError, match="unzip it first"):
        read_content(tmp_path / "a.pt.zip")
    with (tmp_path / "a.pt.zip").open("rb") as file, pytest.raises(ZipBomb):
        open_zip(file)


def test_zips_in_zips_in_zips_are_not_followed(tmp_path: Path) -> None:
    data = bytes(saved(tmp_path / "a.pt"))
    for depth in range(4):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("a.pt", data)
        data = buffer.getvalue()
        (tmp_path / "b.zip").write_bytes(data)
        if depth < 2:
            assert set(read_content(tmp_path / "b.zip")["model"]) == set(STATE)
        else:
            with pytest.raises(CheckpointError, match="Expected exactly one checkpoint"):
                read_content(tmp_path / "b.zip")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_two_members_have_is_none() -> None:
    with zipfile.ZipFile(io.BytesIO(), "w") as archive:
        archive.writestr("a", b"1")
        archive.writestr("a", b"2")
        for name in ("a", "b"):
            with pytest.raises(ZipError, match=f"members are called {name}"):
                sole(archive, name)
