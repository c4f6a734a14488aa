"""Checkpoints in several files: read by their index or folder as one; what is missing or leads elsewhere is refused."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.distributed.checkpoint import state_dict_saver

from slimtrain.base.errors import CheckpointError
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.checkpoints.files.shards import checkpoint_sha256
from slimtrain.checkpoints.reading import read_content
from slimtrain.models.spec import NetworkSpec
from tests.support.slimtrain_states import State, random_state

SPEC = NetworkSpec("mobilenet_v1", "us", (0.25, 0.5), 10, width_range=(0.25, 0.5))


@pytest.fixture(scope="module")
def state() -> State:
    return {key: t.float() if t.is_floating_point() else t for key, t in random_state(SPEC).items()}


def write(folder: Path, state: State, suffix: str = "safetensors", shards: int = 3) -> Path:
    """A sharded checkpoint as model hubs have them; its index."""
    folder.mkdir(exist_ok=True)
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    weight_map = {}
    for number in range(shards):
        keys = list(state)[number::shards]
        name = f"{stem}-{number + 1:05}-of-{shards:05}.{suffix}"
        part = {key: state[key].clone() for key in keys}
        (save_file if suffix == "safetensors" else torch.save)(part, folder / name)
        weight_map.update(dict.fromkeys(keys, name))
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": {key: weight_map[key] for key in state}}))
    return index


def edited(index: Path, **names: str) -> Path:
    """An index in which some keys lead to other files."""
    content = json.loads(index.read_text())
    content["weight_map"].update(names)
    index.write_text(json.dumps(content))
    return index


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_content(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards_are_read_by_index_or_folder(suffix: str, state: State, tmp_path: Path) -> None:
    index = write(tmp_path / "hub", state, suffix)
    for path in (index, tmp_path / "hub"):
        read = read_content(path)
        assert list(read) == list(state)
        assert all(torch.equal(read[key], value) for key, value in state.items())
        checkpoint = open_checkpoint(path)
        assert checkpoint.spec == SPEC and checkpoint.file == path.name


def test_the_sum_is_of_all_files(state: State, tmp_path: Path) -> None:
    index = write(tmp_path / "hub", state)
    before = checkpoint_sha256(index)
    assert before == checkpoint_sha256(tmp_path / "hub") == open_checkpoint(index).sha256
    assert len(before) == 64
    shard = tmp_path / "hub" / "model-00003-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\1")
    assert checkpoint_sha256(index) != before


def test_of_two_formats_safetensors_are_taken(state: State, tmp_path: Path) -> None:
    write(tmp_path, {key: t + 1 for key, t in state.items()}, "bin")
    write(tmp_path, state)
    assert torch.equal(read_content(tmp_path)["classifier.0.bias"], state["classifier.0.bias"])


def test_a_link_to_a_shard_is_followed(state: State, tmp_path: Path) -> None:
    """As the cache of a model hub has them."""
    index = write(tmp_path / "hub", state)
    for shard in list((tmp_path / "hub").glob("*.safetensors")):
        shard.symlink_to(shard.rename(tmp_path / f"blob_{shard.name}"))
    assert list(read_content(index)) == list(state)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_shard_names_its_index_which_leads_on(suffix: str, state: State, tmp_path: Path) -> None:
    index = write(tmp_path, state, suffix)
    shard = next(tmp_path.glob(f"*-00002-of-00003.{suffix}"))
    message = refusal(shard)
    assert "is one of 3 files" in message and "missing" not in message
    named = re.search(r"Give their index, (\S+), or", message)
    assert named and Path(named[1]) == index
    assert list(read_content(named[1])) == list(state)
    index.unlink()
    assert "It is missing: copy it beside them." in refusal(shard)


def test_a_single_shard_stands_alone(state: State, tmp_path: Path) -> None:
    write(tmp_path, state, shards=1)
    assert set(read_content(tmp_path / "model-00001-of-00001.safetensors")) == set(state)


def test_missing_shards_are_named_and_copying_them_leads_on(state: State, tmp_path: Path) -> None:
    index = write(tmp_path / "hub", state)
    shard = tmp_path / "hub" / "model-00002-of-00003.safetensors"
    shard.rename(tmp_path / "elsewhere")
    assert f"{shard.name}; 1 of 3). Copy them into {tmp_path / 'hub'}" in refusal(index)
    (tmp_path / "elsewhere").rename(shard)
    assert list(read_content(index)) == list(state)


@pytest.mark.parametrize("name", ["../secret.pt", "/etc/passwd", "sub/secret.pt", "..\\secret.pt", "..", "C:\\a.pt", ""])
def test_names_that_lead_elsewhere_are_refused(name: str, state: State, tmp_path: Path) -> None:
    torch.save({"classifier.0.bias": torch.ones(10)}, tmp_path / "secret.pt")
    (tmp_path / "hub" / "sub").mkdir(parents=True)
    torch.save({"classifier.0.bias": torch.ones(10)}, tmp_path / "hub" / "sub" / "secret.pt")
    index = edited(write(tmp_path / "hub", state), **{"classifier.0.bias": name})
    assert "outside its own folder" in refusal(index)


def test_names_that_no_file_can_have_are_not_there(state: State, tmp_path: Path) -> None:
    index = edited(write(tmp_path / "shards", state), **{next(iter(state)): "model.safetensors" * 30})
    assert "not beside it" in refusal(index)


def test_an_index_of_another_download_is_refused(state: State, tmp_path: Path) -> None:
    other = edited(write(tmp_path / "b", state), extra="model-00001-of-00003.safetensors")
    assert "extra in model-00001-of-00003.safetensors, which is not there" in refusal(other)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"weight_map": {}}', '{"weight_map": [1]}', '{"weight_map": {"a": 1}}', "[" * 100_000],
)
def test_what_is_no_index_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    assert "is no index" in refusal(tmp_path)
    assert "is no index" in refusal(tmp_path / "model.safetensors.index.json")


def test_a_missing_index_is_a_missing_file(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "model.safetensors.index.json")


def test_a_damaged_shard_is_named(state: State, tmp_path: Path) -> None:
    index = write(tmp_path, state)
    (tmp_path / "model-00002-of-00003.safetensors").write_bytes(b"<html><body>404</body></html>")
    message = refusal(index)
    assert message.startswith("model-00002-of-00003.safetensors: ") and "web page" in message


def test_a_folder_names_the_checkpoints_in_it_which_lead_on(state: State, tmp_path: Path) -> None:
    assert "It holds none" in refusal(tmp_path)
    torch.save(state, tmp_path / "last.pt")
    (tmp_path / "config.yml").write_text("a: 1\n")
    named = re.search(r"It holds (\S+): give one of these", refusal(tmp_path))
    assert named and list(read_content(tmp_path / named[1])) == list(state)


def test_a_distributed_checkpoint_is_made_one_file_by_the_command_that_is_named(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content: dict[str, Any] = {"model": dict(state)}
    state_dict_saver.save(content, checkpoint_id=tmp_path / "dcp", no_dist=True)
    command = refusal(tmp_path / "dcp").partition("give that: python -m ")[2]
    module, *arguments = command.replace("FILE", str(tmp_path / "one.pt")).split()
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    runpy.run_module(module, run_name="__main__")
    assert open_checkpoint(tmp_path / "one.pt").spec == SPEC
