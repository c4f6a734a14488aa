"""A search as a function of a configuration."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path

import pytest

from slimtrain.base.errors import UserError
from slimtrain.base.folders.claim import claimed
from slimtrain.config.reading import read_config
from slimtrain.costs.training_memory import testing_memory as memory_of_tests
from slimtrain.search.run import search
from slimtrain.training import fitting
from tests.support.run_helpers import tree
from tests.support.search_helpers import NAMES, RIGHT, SEARCH, US, own_checkpoint, search_file, searched


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
    (plans[1].parent / f".{plans[1].name}.partial-1").touch()  # killed as it wrote the last plan
    again = search(config, resume=True)  # which has nothing left to search
    assert again == plans and "step 1" not in capsys.readouterr().out
    assert tree(folder / "plans") == tree(tmp_path / "run_search" / "plans")


def test_a_checkpoint_and_a_folder_may_be_named(tmp_path: Path) -> None:
    ckpt = own_checkpoint(tmp_path / "us.pt")
    config = read_config(str(search_file(tmp_path / "tiny.yml")))
    (first, second) = search(config, ckpt=ckpt, output_dir=tmp_path / "here")
    assert first.parent == second.parent == tmp_path / "here" / "plans"
    assert not (tmp_path / "here" / "supernet").exists()


def test_a_folder_that_another_search_is_at_work_in_is_left_to_it(tmp_path: Path) -> None:
    config = read_config(str(search_file(tmp_path / "tiny.yml", output_dir=str(tmp_path / "run"))))
    with claimed(tmp_path / "run_search", ""), pytest.raises(UserError, match="is writing there"):
        search(config)
    assert not (tmp_path / "run_search").exists()


def test_what_is_no_search(tmp_path: Path) -> None:
    config = read_config(str(search_file(tmp_path / "tiny.yml", **{**SEARCH, "search_targets": []})))
    with pytest.raises(UserError, match="search: no targets"):
        search(config)


def test_a_search_has_the_batch_that_fits_and_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With another amount of free memory on the second day."""
    ckpt = own_checkpoint(tmp_path / "us.pt", settings=RIGHT)
    settings = {"search_batch": 0, "batch_size": 12, "search_cache_gib": 0.0, "fit_batch": False}
    config = read_config(str(search_file(tmp_path / "tiny.yml", **{**settings, "search_targets": ["700K"]})))
    memory = memory_of_tests(US, config.image_size)
    monkeypatch.setattr(fitting, "CERTAIN", 1e9)  # a training of this batch takes more
    monkeypatch.setattr(fitting, "free_bytes", lambda processes: int(memory(8) / fitting.FILLED) + 1)
    (plan,) = search(config, ckpt=ckpt, output_dir=tmp_path / "s")
    assert "search_batch is 8 in place of 12, which fits" in capsys.readouterr().out
    assert read_config(str(tmp_path / "s" / "config.yml")).search_batch == 8
    assert json.loads((tmp_path / "s" / "search.json").read_text())["chunk"] == 8
    monkeypatch.setattr(fitting, "free_bytes", lambda processes: None)
    for asked in (config, dataclasses.replace(config, search_batch=8)):
        assert search(asked, ckpt=ckpt, output_dir=tmp_path / "s", resume=True) == [plan]
    with pytest.raises(UserError, match="belongs to another search: chunk was 8 and is 6"):
        search(dataclasses.replace(config, search_batch=6), ckpt=ckpt, output_dir=tmp_path / "s", resume=True)
