"""YAML files: includes are followed, the last of repeated keys counts, nothing in a file can run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from slimtrain.base.errors import UserError
from slimtrain.base.yaml_file import load_yaml, parse_yaml


def read(folder: Path, text: str) -> Any:
    (folder / "a.yml").write_text(text)
    return load_yaml(folder / "a.yml")


def test_the_last_of_repeated_keys_counts(tmp_path: Path) -> None:
    assert read(tmp_path, "lr: 0.1\nname: é\nlr: 0.5\n") == {"lr": 0.5, "name": "é"}
    assert read(tmp_path, "") is None


def test_includes_are_followed_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "widths.yml").write_text("!include deeper.yml\n")
    (tmp_path / "sub" / "deeper.yml").write_text("[0.25, 0.5]\n")
    assert read(tmp_path, "widths: !include sub/widths.yml\n") == {"widths": [0.25, 0.5]}


def test_includes_in_a_circle_or_of_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is it a circle"):
        read(tmp_path, "model: !include a.yml\n")
    with pytest.raises(UserError, match=r"nowhere\.yml: no such file"):
        read(tmp_path, "model: !include nowhere.yml\n")


@pytest.mark.parametrize(
    "text",
    [
        "model: !!python/object/apply:os.system ['touch MARKER']\n",
        "model: !!python/object/new:subprocess.Popen [['touch', 'MARKER']]\n",
        "model: !!python/name:os.system\n",
        "!!python/object/apply:pathlib.Path.touch [MARKER]\n",
    ],
)
def test_tags_that_run_code_are_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"a\.yml: is not YAML"):
        read(tmp_path, text)
    assert not (tmp_path / "MARKER").exists()


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yml: no such file"):
        load_yaml(tmp_path / "nowhere.yml")
    with pytest.raises(UserError, match="cannot be read"):
        load_yaml(tmp_path)
    (tmp_path / "a.yml").write_bytes(b"model: \xff\xfe\n")
    with pytest.raises(UserError, match=r"a\.yml: cannot be read"):
        load_yaml(tmp_path / "a.yml")


@pytest.mark.parametrize("text", ["a: [1, 2\n", "\tmodel: x\n", "a: b: c\n", "key: \x00\n", "day: 2001-99-99\n"])
def test_what_is_no_yaml_is_one_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.yml: is not YAML") as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_deep_nesting_does_not_end_the_process(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.yml"):
        read(tmp_path, "a: " + "[" * 20000 + "]" * 20000 + "\n")


LAUGHS = "".join(f"k{i + 1}: &k{i + 1} [{', '.join([f'*k{i}'] * 9)}]\n" for i in range(9))
MERGES = "".join(f"k{i + 1}: &k{i + 1} {{<<: [{', '.join([f'*k{i}'] * 9)}]}}\n" for i in range(9))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("k0: &k0 [x, x]\n" + LAUGHS, "stands for more than 20,000 values"),
        ("k0: &k0 {x: 1, y: 2}\n" + MERGES, "stands for more than 20,000 values"),
        ("a: &a [*a]\n", "contains itself|no"),
        ("a: &a {<<: *a}\n", "contains itself|no"),
        ("a: [" + "1, " * 30_000 + "]\n", "more than 20,000 values"),
        ("a: " + "[" * 20 + "]" * 20, "nested deeper than 16 levels"),
        ("a: 0x" + "f" * 1000, "has more than 40 letters"),
        ("a: 1" + ":59" * 1000, "has more than 40 letters"),
        ("a: " + "9" * 5000, "has more than 40 letters"),
        ("a: !!int x\n", "invalid literal"),
        ("a: !!int ''\n", "a value of another kind"),
        ("a: !!float ''\n", "a value of another kind"),
        ("a: !!int [1]\n", "expected a scalar"),
        ("a: !!bool maybe\n", "a value of another kind"),
        ("a: !!timestamp x\n", "a value of another kind"),
        ("a: !include [b]\n", "no file's name"),
        ("? [a]\n: b\n", "unhashable"),
        ("a: 1\n---\nb: 2\n", "single document"),
    ],
)
def test_texts_that_stand_for_more_than_any_file_are_refused_at_once(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"a\.yml: is not YAML that can be read here: .*({words})") as caught:
        read(tmp_path, text)
    assert len(str(caught.value)) < 600


def test_only_files_of_a_usual_size_are_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected at most 262,144 bytes"):
        read(tmp_path, "#" * 300_000)
    os.mkfifo(tmp_path / "fifo.yml")
    for name, words in (("fifo.yml", "is a FIFO"), ("/dev/zero", "is a device"), (".", "is a folder")):
        with pytest.raises(UserError, match=words):
            read(tmp_path, f"a: !include {name}\n")
    with pytest.raises(UserError, match="is it a circle"):
        read(tmp_path, "[" + "!include a.yml, " * 10 + "]\n")


def test_an_options_value_is_read_by_the_same_rules() -> None:
    assert parse_yaml("[0.5, x, {a: 1}]") == [0.5, "x", {"a": 1}]
    for text in ("0x" + "f" * 1000, "[" * 100 + "]" * 100, "!include a.yml", "!!int ''", "a: 1\n---\nb"):
        with pytest.raises(ValueError, match=r"letters|deeper|constructor|kind|document"):
            parse_yaml(text)
