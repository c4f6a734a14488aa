"""Names of classes in every form that they come in, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from slimtrain.base.errors import UserError
from slimtrain.data.class_names import class_names_for, read_class_names, stored_class_names

NAMES = ("cat", "dog, the friendly one", "Käfer")


@pytest.mark.parametrize(
    "text",
    [
        "cat\ndog, the friendly one\nKäfer",
        "cat\r\ndog, the friendly one\r\nKäfer\r\n\r\n",
        "\ufeffcat\n dog, the friendly one \nKäfer\n",
        json.dumps(NAMES),
        json.dumps({"2": "Käfer", "0": "cat", "1": "dog, the friendly one"}),
        json.dumps({str(number): [f"n{number:08}", name] for number, name in enumerate(NAMES)}),
    ],
    ids=["lines", "windows", "byte order mark", "list", "object", "keras"],
)
def test_names_are_read_in_every_form(text: str, tmp_path: Path) -> None:
    (tmp_path / "names").write_bytes(text.encode())
    assert read_class_names(tmp_path / "names") == NAMES
    assert class_names_for(str(tmp_path / "names"), 3, "a.pt") == NAMES


def test_imagenet_names_come_with_torchvision() -> None:
    names = read_class_names("imagenet")
    assert (len(names), names[0], names[281], names[999]) == (1000, "tench", "tabby", "toilet tissue")


def test_a_file_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imagenet").write_text("one\ntwo\n")
    assert read_class_names("imagenet") == ("one", "two")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "holds no names"),
        (b"\n\n", "holds no names"),
        (b"cat\n\ndog\n", "class 1 is called ''"),
        (b"cat\nd\x00g\n", "class 1 is called"),
        (b"\xff\xfe\x00", "no text in UTF-8"),
        (b"[1, 2]", "not all of its entries are text"),
        (b'["a", "b"', "no JSON list"),
        (b'{"0": "a", "2": "b"}', "no JSON list"),
        (b'{"cat": 0}', "no JSON list"),
    ],
)
def test_what_holds_no_names_is_refused(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "names").write_bytes(data)
    with pytest.raises(UserError, match=words) as caught:
        read_class_names(tmp_path / "names")
    assert "names" in str(caught.value) and "Give one name per line" in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_and_another_number_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: cannot be read"):
        read_class_names(tmp_path / "nowhere")
    (tmp_path / "names").write_text("cat\ndog\n")
    with pytest.raises(UserError, match=r"holds 2 names, a\.pt has 3 classes"):
        class_names_for(tmp_path / "names", 3, "a.pt")


@pytest.mark.parametrize(
    "content",
    [
        {"class_names": list(NAMES)},
        {"model": {}, "classes": NAMES},
        {"class_to_idx": {"Käfer": 2, "cat": 0, "dog, the friendly one": 1}},
        {"idx_to_class": {2: "Käfer", 0: "cat", 1: "dog, the friendly one"}},
        {"classes": 3, "class_to_idx": dict(zip(NAMES, range(3), strict=True))},
    ],
)
def test_names_that_a_checkpoint_holds(content: dict[str, object]) -> None:
    assert stored_class_names(content, 3) == NAMES
    assert stored_class_names(content, 4) == ()  # of something else


@pytest.mark.parametrize(
    "content",
    [
        *({}, None, [1], {"classes": 3}, {"classes": [0, 1, 2]}, {"class_names": ()}),
        {"class_to_idx": {"a": 0, "b": 5, "c": 1}},
    ],
)
def test_what_is_no_names_gives_none(content: object) -> None:
    assert stored_class_names(content, 3) == ()


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"' + b"9" * 5000 + b'": "a"}',
        b"a" * 2_000_000,
        b'["\\ud800"]',
        b'["a", NaN]',
        b"a\x1b[2Jb\n",
        b"[" + b"1" * 6000 + b"]",
    ],
    ids=["nested", "number", "long", "half a letter", "NaN", "control", "digits"],
)
def test_hostile_names_are_refused_in_short(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "names").write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_class_names(tmp_path / "names")
    assert len(str(caught.value)) < 700 and str(caught.value).isprintable()


def test_what_is_no_file_or_too_large_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "names")
    with pytest.raises(UserError, match="is a FIFO"):
        read_class_names(tmp_path / "names")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(UserError, match=r"is 1024\.0 MiB, expected at most 16\.0 MiB"):
        read_class_names(tmp_path / "large")


def test_stored_names_that_cannot_be_shown_are_none() -> None:
    for name in ("a\x1b[2J", "a\nb", "", "a" * 2000, 1):
        assert stored_class_names({"classes": ["a", name]}, 2) == ()
