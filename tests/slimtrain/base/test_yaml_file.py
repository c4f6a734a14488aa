"""YAML files: includes are followed, the last of repeated keys counts, nothing in a file can run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slimtrain.base.errors import UserError
from slimtrain.base.yaml_file import load_yaml


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
