"""What a refusal advises leads on: every message of slimtrain.checkpoints that says what to do is listed, with a test that
does it and then succeeds. A new message that advises something is missed in the list."""

from __future__ import annotations

import ast
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimtrain.base.errors import UserError
from slimtrain.checkpoints.adopt import adopt
from slimtrain.checkpoints.checkpoint import Checkpoint, missing_statistics, open_checkpoint, open_configured
from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.published_layout import published_content
from slimtrain.checkpoints.writing import save
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support import ROOT
from tests.support.run_helpers import AUTO, S2, US1, calibrated_network, config, mixed, network_of
from tests.support.slimtrain_states import State, random_state
from tests.support.slimtrain_states import network_of as network_holding
from tests.support.specs import spec_of

SPEC = NetworkSpec("mobilenet_v1", "us", (0.25, 0.5), 10, width_range=(0.25, 0.5))
TIED = NetworkSpec("mobilenet_v2", "us", (0.25, 1.0, 0.26), 10, width_range=(0.25, 1.0))  # 0.25 and 0.26: the same shapes
ADVICE = re.compile(
    r"\b(Calibrate|Choose|Copy|Correct|Download|Expected exactly|Give|Leave|Load|Make|Put|Save|Say|Set|Take|To train|Unzip|"
    r"Use|calibrate|copy|choose|give|name it|rename|run `|(?<!\.)save|set|take|with --layout)\b"
)
# A part of each message -> the tests that follow it: of this file, or of another one.
FOLLOWED = {
    "Give the path of a checkpoint, or random:NETWORK": "test_a_missing_file",
    "Give the path of a checkpoint.": "test_what_is_no_file",
    "Download or copy it again": "test_a_damaged_file",
    "the download went wrong": "test_a_damaged_file",
    "run `git lfs pull`": "test_a_damaged_file",
    "Load it with torch.jit.load": "test_a_torchscript_archive",
    "holding {}. Expected exactly one": "test_a_zip_of_two",
    "Unzip it first": "test_a_zip_that_cannot_be_opened",
    "Save it again without pickle_protocol": "test_another_protocol",
    "save the state dict alone": "test_a_file_that_would_run_code",
    "holds a whole pickled": "test_a_whole_module",
    "rename its keys before saving": "test_other_names_of_keys",
    "is another network, name it with --network": "test_another_network",
    "of another network: name it with --network": "test_another_network",
    "take an earlier checkpoint": "test_weights_that_are_not_finite",
    "Save it dense": "test_a_sparse_tensor",
    "Say which they are with": "test_widths_that_are_not_clear",
    "name the widths that the file holds": "test_widths_that_are_not_clear_to_a_run",
    "Give one per switch": "test_widths_that_are_not_clear",
    "Correct --switches": "test_widths_that_are_not_clear",
    "Take another file, or name the right network": "test_our_own_file_of_another_network",
    "Leave --switches out": "test_our_own_file_of_another_network",
    "Leave --weights": "test_one_set_of_weights",
    ", or choose from these": "test_a_width_without_statistics",
    "Set stem_stride=": "test_weights_to_start_from",
    "Set in_channels=": "test_weights_to_start_from",
    "Expected the same: set": "test_weights_to_start_from",
    "set reset_classifier=true": "test_weights_to_start_from",
    "the configuration trains a": "test_weights_to_start_from",
    "Save them with --layout own": "test_what_the_published_layout_has_no_place_for",
    "Use --layout own": "test_what_the_published_layout_has_no_place_for",
    "calibrate these too": "test_what_the_published_layout_has_no_place_for",
    "Take the slimtrain that wrote it": "",  # there is one version of the format
    "Give their index": "test_shards",
    "Make one file of it, and give that": "test_shards",
    "expected a checkpoint file (.pt, .pt.zip": "test_shards",
    "copy them again": "test_shards",
    "Expected a `weight_map`": "test_shards",
    "Put the files beside the index": "test_shards",
    "Copy them into": "test_shards",
    "It is missing: copy it": "test_shards",
    ": give one of these": "test_shards",
    "save the state dict before the network is prepared": "test_stored_forms",
    "Make them plain before saving": "test_stored_forms",
    "Give one of these keys": "test_weights",
    "Take the module that it was made of": "",  # one's own, or the file's: there is no other
    "expected a state dict or {'model': state dict}": "",
}


@pytest.fixture(scope="module")
def state() -> State:
    return {key: t.float() if t.is_floating_point() else t for key, t in random_state(SPEC).items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.pt"


def message(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    return str(caught.value)


def refusal(path: str | Path, **options: Any) -> str:
    return message(lambda: open_checkpoint(path, **options))


def opens(path: str | Path, spec: NetworkSpec = SPEC, **options: Any) -> bool:
    return open_checkpoint(path, **options).spec == spec


# -------------------------------------------------------------------------------------------------------------- the list


def messages() -> Iterator[tuple[str, str]]:
    """Every text of more than a few words in the folder's code that is no docstring, and where it stands."""
    for file in sorted((ROOT / "slimtrain" / "checkpoints").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        documented = [n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.FunctionDef | ast.ClassDef)]
        docstrings = {id(n.body[0].value) for n in documented if isinstance(n.body[0], ast.Expr)}
        parts = {id(part) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for part in ast.walk(n) if part is not n}
        for node in ast.walk(tree):
            if id(node) in docstrings or id(node) in parts:
                continue
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            else:
                continue
            if len(text.split()) > 4:
                yield f"{file.name}:{node.lineno}", text


def test_every_message_that_advises_something_is_followed() -> None:
    texts = dict(messages())
    assert len(texts) > 40
    missed = {w: text for w, text in texts.items() if ADVICE.search(text) and not any(part in text for part in FOLLOWED)}
    assert not missed, missed
    stale = [part for part in FOLLOWED if not any(part in text for text in texts.values())]
    assert not stale, stale
    tests = {name for name in globals() if name.startswith("test_")}
    files = {file.stem for file in Path(__file__).parent.rglob("test_*.py")}
    assert {name for name in FOLLOWED.values() if name} <= tests | files


# ----------------------------------------------------------------------------------------------------------------- files


def test_a_missing_file(path: Path) -> None:
    assert "random:NETWORK" in refusal(path)
    assert open_checkpoint("random:s_mobilenet_v1").spec.name == "s_mobilenet_v1"


def test_what_is_no_file(path: Path, state: State) -> None:
    os.mkfifo(path)
    assert "Give the path of a checkpoint" in refusal(path)
    path.unlink()
    torch.save(state, path)
    assert opens(path)


@pytest.mark.parametrize("kind", ["empty", "truncated", "web page", "pointer", "zip", "safetensors"])
def test_a_damaged_file(kind: str, state: State, path: Path) -> None:
    from safetensors.torch import save_file

    torch.save(state, path)
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "zip":
        with zipfile.ZipFile(path.with_suffix(".zip"), "w") as archive:
            archive.write(path, "a.pt")
        path = path.with_suffix(".zip")
    whole = path.read_bytes()
    broken = {"empty": b"", "web page": b"<html>", "pointer": b"version https://git-lfs.github.com/spec/v1\n"}
    path.write_bytes(broken.get(kind, whole[: len(whole) // 2]))
    words = {"web page": "the download went wrong", "pointer": "git lfs pull"}
    assert words.get(kind, "Download or copy it again") in refusal(path)
    path.write_bytes(whole)
    assert opens(path)


class Tree(nn.Module):
    """A module with the keys of a state dict, that scripts."""

    def forward(self, images: Tensor) -> Tensor:
        return images


def tree_of(state: State) -> nn.Module:
    root = Tree()
    for key, value in state.items():
        *path, entry = key.split(".")
        module: nn.Module = root
        for word in path:
            if word not in dict(module.named_children()):
                module.add_module(word, Tree())
            module = module.get_submodule(word)
        module.register_buffer(entry, value)
    return root


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_archive(state: State, path: Path) -> None:
    torch.jit.save(torch.jit.script(tree_of(state)), path)
    assert "Load it with torch.jit.load where it is trusted, and save its state_dict()" in refusal(path)
    jit: Any = torch.jit
    torch.save(jit.load(path).state_dict(), path)
    assert opens(path)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrapper", [None, "model", "ema"])
@pytest.mark.filterwarnings("ignore")
def test_a_whole_module(wrapper: str | None, legacy: bool, state: State, path: Path) -> None:
    module = tree_of(state)
    torch.save({wrapper: module, "epoch": 3} if wrapper else module, path, _use_new_zipfile_serialization=not legacy)
    reason = refusal(path)
    assert "holds a whole pickled" in reason and "save model.state_dict()" in reason
    loaded = torch.load(path, weights_only=False)
    torch.save((loaded[wrapper] if wrapper else loaded).state_dict(), path)
    assert opens(path)


def test_a_zip_of_two(state: State, path: Path) -> None:
    torch.save(state, path)
    for names in (("a.pt", "b.pt"), ("a.pt",)):
        with zipfile.ZipFile(path.with_suffix(".zip"), "w") as archive:
            for name in names:
                archive.write(path, name)
        if len(names) == 2:
            assert "Expected exactly one checkpoint in it" in refusal(path.with_suffix(".zip"))
    assert opens(path.with_suffix(".zip"))


def test_a_zip_that_cannot_be_opened(state: State, path: Path) -> None:
    torch.save(state, path)
    with zipfile.ZipFile(path.with_suffix(".zip"), "w") as archive:
        archive.write(path, "a.pt")
        archive.infolist()[0].flag_bits |= 1  # encrypted
    data = bytearray(path.with_suffix(".zip").read_bytes())
    data[6] |= 1
    path.with_suffix(".zip").write_bytes(data)
    assert "Unzip it first" in refusal(path.with_suffix(".zip"))
    assert opens(path)


@pytest.mark.filterwarnings("ignore")
def test_another_protocol(state: State, path: Path) -> None:
    torch.save(state, path, pickle_protocol=4)
    assert "Save it again without pickle_protocol" in refusal(path)
    torch.save(torch.load(path, weights_only=False), path)
    assert opens(path)


class Runs:
    def __reduce__(self) -> Any:
        return print, ("it ran",)


def test_a_file_that_would_run_code(state: State, path: Path) -> None:
    torch.save({"model": state, "hook": Runs()}, path)
    assert "save the state dict alone, with torch.save(model.state_dict(), ...)" in refusal(path)
    torch.save(tree_of(state).state_dict(), path)
    assert opens(path)


# -------------------------------------------------------------------------------------------------------------- networks


def test_other_names_of_keys(state: State, path: Path) -> None:
    torch.save({f"layer_{key.replace('.', '_')}": t for key, t in state.items()}, path)
    reason = refusal(path)
    assert (
        "keys are features.0.0.weight, classifier.0.weight and so on: if it is one of them under other names, rename" in reason
    )
    torch.save(state, path)
    assert opens(path)


def test_another_network(state: State, path: Path) -> None:
    torch.save(state, path)
    reason = [refusal(path, network=name) for name in ("s_mobilenet_v1", "us_mobilenet_v2", "autoslim_mobilenet_v1")]
    assert all(line.startswith("a.pt: ") for line in reason)
    assert opens(path, network="us_mobilenet_v1")
    spec = NetworkSpec("mobilenet_v1", "s", (0.5, 1.0), 10)
    lists = tuple(tuple(spec.channel_list(width)) for width in (0.5, 1.0))
    auto = NetworkSpec("mobilenet_v1", "autoslim", (1, 2), 10, lists)  # AutoSlim's lists may be those of uniform widths
    torch.save({key: t.float() for key, t in random_state(auto).items()}, path)
    assert opens(path, spec) and opens(path, auto, network="autoslim_mobilenet_v1")


def test_weights_that_are_not_finite(state: State, path: Path) -> None:
    torch.save({**state, "classifier.0.bias": torch.full((10,), float("nan"))}, path)
    assert "take an earlier checkpoint" in refusal(path)
    torch.save(state, path)
    assert opens(path)


def test_a_sparse_tensor(state: State, path: Path) -> None:
    key = "classifier.0.weight"
    torch.save({**state, key: state[key].to_sparse()}, path)
    assert "Save it dense, in floating point." in refusal(path)
    torch.save({k: t.to_dense() if t.is_sparse else t for k, t in {**state, key: state[key].to_sparse()}.items()}, path)
    assert opens(path)


def test_widths_that_are_not_clear(path: Path) -> None:
    torch.save({key: t.float() for key, t in random_state(TIED).items()}, path)
    reason = refusal(path)
    assert "--switches W1,W2,... (in stored order) or --config apps/NAME.yml" in reason
    assert "0.25" in reason and "0.26" in reason
    assert "Give one per switch" in refusal(path, switches=(0.25, 1.0))
    assert "Correct --switches" in refusal(path, switches=(0.25, 1.0, 0.5))
    assert opens(path, TIED, switches=(0.25, 1.0, 0.26))
    path.with_suffix(".yml").write_text(
        "model: models.us_mobilenet_v2\nwidth_mult_range: [0.25, 1.0]\nwidth_mult_list_test: [0.26]\n"
    )
    assert opens(path, TIED, config=path.with_suffix(".yml"))


def test_widths_that_are_not_clear_to_a_run(path: Path) -> None:
    torch.save({key: t.float() for key, t in random_state(TIED).items()}, path)
    settings = config(path.parent, network="us_mobilenet_v2", width_range=[0.25, 1.0], test_widths=[])
    reason = message(lambda: open_configured(path, settings))
    assert "as in --set test_widths=0.25,0.5" in reason and "--switches" not in reason
    assert open_configured(path, replace(settings, test_widths=(0.26,))).spec == TIED


def test_our_own_file_of_another_network(path: Path) -> None:
    save(own_content(network_of(SPEC), 32, (0.5,) * 3, (0.5,) * 3), path)
    assert "name the right network" in refusal(path, network="us_mobilenet_v2")
    assert "Leave --switches out" in refusal(path, switches=(0.25, 0.5))
    assert opens(path, network="us_mobilenet_v1")


def test_one_set_of_weights() -> None:
    assert "Leave --weights ema out" in refusal("random:s_mobilenet_v1", weights="ema")
    assert open_checkpoint("random:s_mobilenet_v1").untrained


# ---------------------------------------------------------------------------------------------------- what is done with them


def test_a_width_without_statistics() -> None:
    network = calibrated_network(SPEC)
    reason = str(missing_statistics(network, SPEC.plan(0.4), "a.pt"))
    assert "--calibration-data FOLDER, or choose from these" in reason
    widths = re.findall(r"\d\.\d+", reason.partition("only for ")[2])
    assert widths == ["0.25", "0.5"]
    assert all(network.has_statistics(SPEC.plan(float(width))) for width in widths)
    assert calibrated_network(SPEC, SPEC.plan(0.4)).has_statistics(SPEC.plan(0.4))
    assert "no batch-norm statistics at all" in str(missing_statistics(SlimmableNetwork(SPEC), SPEC.plan(0.4), "a.pt"))


@pytest.mark.parametrize(
    ("spec", "theirs", "advice"),
    [
        (US1, replace(US1, stem_stride=2), "stem_stride"),
        (replace(US1, in_channels=1), replace(US1, in_channels=4), "in_channels"),
        (US1, replace(US1, switches=(0.125, 0.5), width_range=(0.125, 0.5)), "width_range"),
        (S2, replace(S2, switches=(0.5, 0.75)), "switches"),
        (AUTO, replace(AUTO, channel_lists=AUTO.channel_lists[:1], switches=(1,)), "channel_lists"),
        (US1, replace(US1, classes=7), "reset_classifier"),
        (US1, S2, "take another file"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_weights_to_start_from(spec: NetworkSpec, theirs: NetworkSpec, advice: str) -> None:
    checkpoint = Checkpoint("theirs.pt", "0" * 64, network_of(theirs))
    assert advice in message(lambda: adopt(network_of(spec, seed=1), checkpoint))
    key = {"width_range": ("switches", "width_range"), "channel_lists": ("channel_lists", "switches")}.get(advice, (advice,))
    if advice == "reset_classifier":
        adopt(network_of(spec, seed=1), checkpoint, reset_classifier=True)
    elif advice == "take another file":
        adopt(network_of(spec, seed=1), Checkpoint("other.pt", "0" * 64, network_of(spec)))
    else:  # the key is set as the message says
        adopt(network_of(replace(spec, **{name: getattr(theirs, name) for name in key}), seed=1), checkpoint)


def test_what_the_published_layout_has_no_place_for(path: Path) -> None:
    for network in (calibrated_network(SPEC, mixed(SPEC)), network_of(US1)):
        assert "--layout own" in message(lambda network=network: published_content(network))  # type: ignore[misc]
        save(own_content(network, 32, (0.5,) * 3, (0.5,) * 3), path)
        assert opens(path, spec_of(network))
    network = network_holding(SPEC, random_state(SPEC))
    empty = SlimmableNetwork(SPEC).eval()
    assert "calibrate these too" in message(lambda: published_content(empty))
    for plan in SPEC.plans:
        empty.set_statistics(plan, network.statistics(plan))
    assert list(published_content(empty)) == ["model"]
