"""Which files are images: the rule for names, Pillow's endings, and those that it does not read here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from slimtrain.base.errors import UserError
from slimtrain.data.image_files import endings, ignored, image_files, is_image, unread_images


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Endings are asked for once a process."""
    endings.cache_clear()
    yield
    endings.cache_clear()


@pytest.mark.parametrize(
    "name",
    ["._a.jpg", ".DS_Store", ".hidden", ".ipynb_checkpoints", "__MACOSX", "Thumbs.db", "thumbs.db", "desktop.ini", "@eaDir"],
)
def test_litter_is_ignored(name: str) -> None:
    assert ignored(name) and not is_image(name)


@pytest.mark.parametrize("name", ["cat", "n01440764", "a.jpg", "checkpoints", "_private", "thumbs"])
def test_other_names_are_not(name: str) -> None:
    assert not ignored(name)


def test_endings_are_those_of_pillows_readers() -> None:
    known = Image.registered_extensions()
    assert {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".ppm", ".pgm"} <= endings()
    assert all(known[ending] in Image.OPEN for ending in endings())
    for ending in (".eps", ".mpg", ".h5", ".pdf", ".txt", ".npy", ".pt"):
        assert ending not in endings() and not is_image(f"a{ending}")
    assert is_image("A.JPEG") and not is_image("jpg") and not is_image("a.jpg.txt")


def test_an_ending_that_this_pillow_does_not_read_is_counted_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    known = Image.registered_extensions()
    monkeypatch.setattr(Image, "registered_extensions", lambda: {k: v for k, v in known.items() if v not in ("AVIF", "HEIF")})
    assert unread_images(["a.png", "notes.txt", "b.PNG"]) == ""
    text = unread_images(["a.avif", "b.AVIF", "._c.avif", "d.heic", "e.jpg"])
    assert text == (
        "2 .avif files and 1 .heic file are images that Pillow does not read here: install pillow-heif, or convert them to "
        ".jpg or .png"
    )
    assert unread_images(["a.cr2"]).startswith("1 .cr2 file is an image that Pillow does not read here: convert them to .jpg")


def test_the_plugin_for_heic_is_taken_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    known = dict(Image.registered_extensions())
    plugin = SimpleNamespace(register_heif_opener=lambda: known.update({".heic": "PNG"}))
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    monkeypatch.setattr(Image, "registered_extensions", lambda: known)
    assert is_image("a.heic") and unread_images(["a.heic"]) == ""


def test_files_come_with_the_numbers_of_their_folders(tmp_path: Path) -> None:
    for name in ("b/2.png", "a/1.png", "a/x/3.JPG", "0.png", "a/.git/9.png", "a/fifo.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a/fifo.png").unlink()
    (tmp_path / "a/dir.png").mkdir()
    files, folders, unread = image_files(tmp_path)
    assert [str(Path(path).relative_to(tmp_path)) for path in files] == ["0.png", "a/1.png", "a/x/3.JPG", "b/2.png"]
    assert folders.tolist() == [0, 1, 2, 3] and unread == ""


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")  # opening it would wait for ever
    with pytest.raises(UserError, match="holds no images"):
        image_files(tmp_path)


def test_a_link_that_leads_nowhere_is_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "unmounted" / "a.png")
    assert image_files(tmp_path)[0] == [str(tmp_path / "a.png")]


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.png").touch()
    original = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("inner"):
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match=r"inner: cannot be read \(Permission denied\)"):
        image_files(tmp_path)
