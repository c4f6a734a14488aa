"""A search as a function of a configuration."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from slimtrain.base.errors import UserError
from slimtrain.config.reading import read_config
from slimtrain.search.run import search
from tests.support.run_helpers import tree
from tests.support.search_helpers import NAMES, SEARCH, own_checkpoint, search_file, searched


def test_plan_files_by_descending_target_as_the_command_writes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = read_config(str(search_file(tmp_path / "tiny.yml", output_dir=str(tmp_path / "run"))))
    plans = search(config)  # beside the run
    assert plans == [tmp_path / "run_search" / "plans" / f"{name}.yml" for name in NAMES]
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert command[3:] == [
        *("train", str(tmp_path / "run_search" / "config.yml"), "--plans", str(tmp_path / "run_search" / "plans"))
    ]
    (tmp_path / "other").mkdir()
    _, folder = searched(tmp_path / "other")
    assert tree(folder / "plans") == tree(tmp_path / "run_search" / "plans")
    again = search(config, resume=True)  # which has nothing left to do
    assert again == plans and "step 1" not in capsys.readouterr().out


def test_a_checkpoint_and_a_folder_may_be_named(tmp_path: Path) -> None:
    ckpt = own_checkpoint(tmp_path / "us.pt")
    config = read_config(str(search_file(tmp_path / "tiny.yml")))
    (first, second) = search(config, ckpt=ckpt, output_dir=tmp_path / "here")
    assert first.parent == second.parent == tmp_path / "here" / "plans"
    assert not (tmp_path / "here" / "supernet").exists()


def test_what_is_no_search(tmp_path: Path) -> None:
    config = read_config(str(search_file(tmp_path / "tiny.yml", **{**SEARCH, "search_targets": []})))
    with pytest.raises(UserError, match="search: no targets"):
        search(config)
