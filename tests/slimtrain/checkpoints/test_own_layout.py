"""The layout `own`: what was saved comes back bit for bit, slimexport finds it, and damage is named."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import yaml

from slimexport.exporter import export
from slimexport.target.manifest import Manifest
from slimtrain.base.errors import CheckpointError, UserError
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.published_layout import published_content
from slimtrain.checkpoints.writing import save
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.run_helpers import (
    S2,
    SPECS,
    US1,
    US2,
    calibrated_network,
    logits,
    mixed,
    network_of,
    raw,
    same_calibrated,
    same_state,
)
from tests.support.search_helpers import own_checkpoint

MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
TAIL = "features.18.1"


def write(network: SlimmableNetwork, path: Path, size: int = 32) -> Path:
    names = [f"class {i}" for i in range(network.spec.classes)]
    save(own_content(network, size, MEAN, STD, names), path)
    return path


def sizes(value: Any) -> set[type]:
    """The types within nested lists and dictionaries."""
    if isinstance(value, dict):
        return {type(value), *map(type, value), *(kind for inside in value.values() for kind in sizes(inside))}
    if isinstance(value, list):
        return {kind for inside in value for kind in sizes(inside)} | {list}
    return {type(value)}


# --------------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("name", list(SPECS))
def test_what_was_saved_comes_back(name: str, tmp_path: Path) -> None:
    spec = SPECS[name]
    more = [spec.plan(sum(spec.range) / 2), mixed(spec)] if spec.family == "us" else []
    network = calibrated_network(spec, *more)
    opened = open_checkpoint(write(network, tmp_path / "own.pt"))
    assert opened.spec == spec and opened.described
    assert (opened.image_size, opened.mean, opened.std) == (32, MEAN, STD)
    assert opened.class_names == tuple(f"class {i}" for i in range(spec.classes))
    same_state(network.state_dict(), opened.network.state_dict())
    same_calibrated(network, opened.network)
    assert not opened.network.training
    for plan in [*spec.plans, *more]:
        assert torch.equal(logits(network, plan), logits(opened.network, plan)), plan.name


@pytest.mark.parametrize("name", list(SPECS))
def test_without_calibration_too(name: str, tmp_path: Path) -> None:
    network = network_of(SPECS[name])
    opened = open_checkpoint(write(network, tmp_path / "own.pt"))
    assert opened.spec == SPECS[name] and opened.network.calibrated == {}
    same_state(network.state_dict(), opened.network.state_dict())


def test_the_shared_tail_has_statistics_of_each_calibrated_plan(tmp_path: Path) -> None:
    network = calibrated_network(US2, US2.plan(0.4))
    opened = open_checkpoint(write(network, tmp_path / "own.pt")).network
    means = [opened.statistics(US2.plan(width))[TAIL][0] for width in (0.25, 0.4, 0.5)]
    assert not any(torch.allclose(means[i], means[i - 1], atol=1e-3) for i in range(3))
    assert torch.equal(means[1], network.calibrated[US2.plan(0.4)][TAIL][0])


def test_a_plan_without_a_width_keeps_its_name_and_channels(tmp_path: Path) -> None:
    plan = mixed(US1, "by_hand")
    opened = open_checkpoint(write(calibrated_network(US1, plan), tmp_path / "own.pt")).network
    read = opened.known_plans[-1]
    assert (read.name, read.width, dict(read.channels)) == ("by_hand", None, dict(plan.channels))
    assert opened.has_statistics(read)


def test_a_file_of_the_published_layout_becomes_one_of_ours(tmp_path: Path) -> None:
    """As `calibrate` does: the stored grid stays, what is calibrated comes beside."""
    spec = NetworkSpec("mobilenet_v1", "us", (0.25, 0.5), 10, width_range=(0.25, 0.5))
    save(published_content(calibrated_network(spec, spec.plan(0.35))), tmp_path / "published.pt")
    first = open_checkpoint(tmp_path / "published.pt").network
    opened = open_checkpoint(write(first, tmp_path / "own.pt"))
    assert opened.spec == first.spec and opened.spec.switches == (0.25, 0.5, 0.35)
    same_state(first.state_dict(), opened.network.state_dict())


@pytest.mark.parametrize("name", list(SPECS))
def test_plain_torch_reads_tensors_and_plain_values(name: str, tmp_path: Path) -> None:
    content = raw(write(calibrated_network(SPECS[name]), tmp_path / "own.pt"))
    assert sizes(content) <= {dict, list, str, int, float, type(None), torch.Tensor}
    assert (content["format"], content["version"]) == ("slimtrain", 1)
    assert content["network"]["architecture"] == SPECS[name].architecture
    assert content["input"] == {"image_size": 32, "mean": list(MEAN), "std": list(STD)}


def test_it_names_its_network_and_widths_itself(tmp_path: Path) -> None:
    path = write(network_of(US1), tmp_path / "own.pt")
    assert open_checkpoint(path, network="us_mobilenet_v1").spec == US1
    with pytest.raises(CheckpointError, match=r"own\.pt: holds a us_mobilenet_v1, not a s_mobilenet_v1"):
        open_checkpoint(path, network="s_mobilenet_v1")
    with pytest.raises(UserError, match="names its own switches"):
        open_checkpoint(path, switches=(0.25, 0.5))


# ---------------------------------------------------------------------------------------------------------- slimexport


def exported(path: Path, folder: Path, **options: Any) -> tuple[Manifest, Path]:
    manifest = export(path, output_dir=folder / "bundle", **options)
    assert [a.verification.status for a in manifest.artifacts] == ["passed"] * len(manifest.artifacts)
    return manifest, folder / "bundle"


def onnx_logits(bundle: Path, file: str, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(bundle / file), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["output"], {"input": images})[0])


def test_slimexport_finds_calibrated_widths_image_size_and_normalization(tmp_path: Path) -> None:
    network = calibrated_network(US1, US1.plan(0.1875))
    manifest, bundle = exported(write(network, tmp_path / "own.pt", size=16), tmp_path)
    assert [a.width for a in manifest.artifacts] == [0.125, 0.1875, 0.25]
    assert manifest.input.image_size == 16
    assert (manifest.input.mean, manifest.input.std) == (MEAN, STD)
    stored = np.load(bundle / "reference.npz")
    images = stored["images"]
    assert images.shape[2:] == (16, 16)
    for artifact in manifest.artifacts:
        assert artifact.width is not None
        with torch.inference_mode(), network.at(US1.plan(artifact.width)):
            expected = network(torch.from_numpy(images)).numpy()
        for answer in (onnx_logits(bundle, artifact.file, images), stored[f"logits_{US1.plan(artifact.width).name}"]):
            assert np.abs(answer - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("spec", [US2, S2], ids=["us", "s"])
def test_the_reference_uses_the_calibrated_tail(tmp_path: Path, spec: NetworkSpec) -> None:
    network = calibrated_network(spec)
    manifest, bundle = exported(write(network, tmp_path / "own.pt"), tmp_path)
    stored = np.load(bundle / "reference.npz")
    shared = network_of(spec)  # the same weights; its tail's statistics are those from training
    for plan in spec.plans:
        body = {path: pair for path, pair in network.calibrated[plan].items() if path != TAIL}
        shared.set_statistics(plan, {**body, TAIL: shared.statistics(plan)[TAIL]})
        images = torch.from_numpy(stored["images"])
        with torch.inference_mode(), network.at(plan), shared.at(plan):
            calibrated, with_shared = network(images).numpy(), shared(images).numpy()
        scale = np.abs(calibrated).max()
        reference = stored[f"logits_{plan.name}"]
        assert np.abs(reference - calibrated).max() < 1e-4 * scale
        assert np.abs(reference - with_shared).max() > 1e-2 * scale
        artifact = next(a for a in manifest.artifacts if a.width == plan.width)
        files = onnx_logits(bundle, artifact.file, stored["images"])
        assert np.abs(files - calibrated).max() < 1e-4 * scale


def test_a_calibrated_plan_without_a_width_is_exported_by_its_file(tmp_path: Path) -> None:
    plan = mixed(US1, "by_hand")
    path = write(calibrated_network(US1, plan), tmp_path / "own.pt", size=16)
    (tmp_path / "plan.yml").write_text(yaml.safe_dump({"network": US1.name, "name": "other", "channels": dict(plan.channels)}))
    manifest, _ = exported(path, tmp_path, channels=[tmp_path / "plan.yml"])
    assert [(a.width, a.channels) for a in manifest.artifacts] == [(None, dict(plan.channels))]
    (tmp_path / "plan.yml").write_text(yaml.safe_dump({**plan.channels, "features.3": 8}))
    with pytest.raises(UserError, match=r"plan plan: own\.pt has batch-norm statistics only for"):
        exported(path, tmp_path / "b", channels=[tmp_path / "plan.yml"])


# -------------------------------------------------------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(calibrated_network(US1, US1.plan(0.1875)), tmp_path_factory.mktemp("good") / "own.pt")


def refusal(content: Any, folder: Path) -> str:
    path = folder / "own.pt"
    torch.save(content, path)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    message = str(caught.value)
    assert message.startswith("own.pt") and "\n" not in message and len(message) < 800, message
    return message


Damage = Callable[[dict[str, Any]], Any]


def put(*path: str | int, value: Any) -> Damage:
    def change(content: dict[str, Any]) -> None:
        inside: Any = content
        for key in path[:-1]:
            inside = inside[key]
        inside[path[-1]] = value

    return change


def take(*path: str | int) -> Damage:
    def change(content: dict[str, Any]) -> None:
        inside: Any = content
        for key in path[:-1]:
            inside = inside[key]
        del inside[path[-1]]

    return change


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


KEY = "features.3.body.3.weight"
NORM = "features.1.body.1"


def quantized() -> torch.Tensor:
    return torch.quantize_per_tensor(torch.ones(8), 0.1, 0, torch.qint8)


SPEC_DAMAGE: dict[str, Damage] = {
    "no network": take("network"),
    "network is a list": put("network", value=[1, 2]),
    "no architecture": take("network", "architecture"),
    "unknown architecture": put("network", "architecture", value="mobilenet_v9"),
    "architecture is a number": put("network", "architecture", value=3),
    "unknown family": put("network", "family", value="xs"),
    "family that the architecture has not": put("network", "architecture", value="shufflenet"),
    "another architecture": put("network", "architecture", value="mobilenet_v2"),
    "another family": put("network", "family", value="s"),
    "unknown key": put("network", "depth", value=3),
    "key that is no text": put("network", 7, value=3),
    "no classes": put("network", "classes", value=0),
    "negative classes": put("network", "classes", value=-10),
    "classes true": put("network", "classes", value=True),
    "classes a float": put("network", "classes", value=10.0),
    "classes text": put("network", "classes", value="10"),
    "other classes": put("network", "classes", value=11),
    "classes beyond 32 bits": put("network", "classes", value=2**40),
    "classes beyond 64 bits": put("network", "classes", value=10**30),
    "no switches": put("network", "switches", value=[]),
    "switches are text": put("network", "switches", value=["a", "b"]),
    "switches are NaN": put("network", "switches", value=[math.nan, 0.25]),
    "switches are infinite": put("network", "switches", value=[0.125, math.inf]),
    "switches are huge": put("network", "switches", value=[0.125, 1e12]),
    "switches are nested without end": put("network", "switches", value=nested(300)),
    "other switches": put("network", "switches", value=[0.125, 0.5]),
    "one switch too many": put("network", "switches", value=[0.125, 0.25, 0.2]),
    "a range of one": put("network", "width_range", value=[0.25]),
    "an infinite range": put("network", "width_range", value=[0.125, math.inf]),
    "a wider range": put("network", "width_range", value=[0.125, 1.0]),
    "range is text": put("network", "width_range", value="wide"),
    "stem stride 3": put("network", "stem_stride", value=3),
    "stem stride 1.0": put("network", "stem_stride", value=1.0),
    "stem stride true": put("network", "stem_stride", value=True),
    "stem stride a tensor": put("network", "stem_stride", value=torch.tensor([1, 2])),
}
STATE_DAMAGE: dict[str, Damage] = {
    "no model": take("model"),
    "model is a list": put("model", value=[torch.ones(3)]),
    "model is empty": put("model", value={}),
    "a number among tensors": put("model", KEY, value=3.0),
    "a missing weight": take("model", KEY),
    "an extra weight": put("model", "features.99.weight", value=torch.ones(3)),
    "a key that is no text": put("model", 5, value=torch.ones(3)),
    "a wrong shape": put("model", KEY, value=torch.ones(8, 8)),
    "a transposed weight": lambda c: c["model"].update({"classifier.0.weight": c["model"]["classifier.0.weight"].T}),
    "NaN": lambda c: c["model"][KEY].view(-1)[3:4].fill_(math.nan),
    "infinite": lambda c: c["model"][KEY].view(-1)[3:4].fill_(math.inf),
    "negative variance": lambda c: c["model"][f"{NORM}.bn.0.running_var"][2:3].fill_(-0.1),
    "whole numbers": put("model", "classifier.0.bias", value=torch.ones(10, dtype=torch.int64)),
    "complex": put("model", "classifier.0.bias", value=torch.ones(10, dtype=torch.complex64)),
    "without data": put("model", "classifier.0.bias", value=torch.ones(10, device="meta")),
    "class names that are too few": put("class_names", value=["a", "b"]),
    "class names that are none": put("class_names", value=3),
}
FIRST = ("calibrated", 2)
PAIR = (*FIRST, "statistics", NORM)
CALIBRATED_DAMAGE: dict[str, Damage] = {
    "nothing": put("calibrated", value=None),
    "a number": put("calibrated", value=3),
    "text": put("calibrated", value="all"),
    "entry is a list": put(*FIRST, value=[1]),
    "no name": take(*FIRST, "name"),
    "name is a number": put(*FIRST, "name", value=3),
    "name leads elsewhere": put(*FIRST, "name", value="../../elsewhere"),
    "no channels": take(*FIRST, "channels"),
    "channels are a list": put(*FIRST, "channels", value=[8, 16]),
    "a group is missing": take(*FIRST, "channels", "features.4"),
    "an unknown group": put(*FIRST, "channels", "features.77", value=8),
    "too many channels": put(*FIRST, "channels", "features.4", value=4096),
    "no channels in a group": put(*FIRST, "channels", "features.4", value=0),
    "half a channel": put(*FIRST, "channels", "features.4", value=8.5),
    "other channels than the width's": put(*FIRST, "channels", "features.4", value=40),
    "no width": take(*FIRST, "width"),
    "a width of no such channels": put(*FIRST, "width", value=0.25),
    "a width out of range": put(*FIRST, "width", value=1.0),
    "a width that is NaN": put(*FIRST, "width", value=math.nan),
    "a width that is text": put(*FIRST, "width", value="wide"),
    "no statistics": take(*FIRST, "statistics"),
    "statistics are a list": put(*FIRST, "statistics", value=[1]),
    "a norm is missing": take(*PAIR),
    "an unknown norm": put(*FIRST, "statistics", "features.99", value=[torch.ones(8), torch.ones(8)]),
    "a mean alone": lambda c: c["calibrated"][2]["statistics"][NORM].pop(),
    "three tensors": lambda c: c["calibrated"][2]["statistics"][NORM].append(torch.ones(8)),
    "numbers": put(*PAIR, value=[0.0, 1.0]),
    "wrong shape": put(*PAIR, 1, value=torch.ones(9)),
    "a scalar": put(*PAIR, 1, value=torch.tensor(1.0)),
    "NaN mean": lambda c: c["calibrated"][2]["statistics"][NORM][0][1:2].fill_(math.nan),
    "NaN variance": lambda c: c["calibrated"][2]["statistics"][NORM][1][1:2].fill_(math.nan),
    "infinite variance": lambda c: c["calibrated"][2]["statistics"][NORM][1][1:2].fill_(math.inf),
    "negative variance": lambda c: c["calibrated"][2]["statistics"][NORM][1][1:2].fill_(-1e-6),
    "without data": put(*PAIR, 1, value=torch.ones(8, device="meta")),
    "quantized": lambda c: c["calibrated"][2]["statistics"][NORM].__setitem__(1, quantized()),  # made late: torch warns
    "sparse": put(*PAIR, 1, value=torch.ones(8).to_sparse()),
}
INPUT_DAMAGE: dict[str, Damage] = {
    "no input": take("input"),
    "input is a list": put("input", value=[16]),
    "no image size": take("input", "image_size"),
    "image size 0": put("input", "image_size", value=0),
    "image size is text": put("input", "image_size", value="large"),
    "no mean": take("input", "mean"),
    "mean of two channels": put("input", "mean", value=[0.5, 0.5]),
    "mean is a number": put("input", "mean", value=0.5),
    "std 0": put("input", "std", value=[0.5, 0.0, 0.5]),
    "std NaN": put("input", "std", value=[0.5, math.nan, 0.5]),
    "std negative": put("input", "std", value=[0.5, -1.0, 0.5]),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", list(SPEC_DAMAGE))
def test_a_spec_that_makes_no_sense_is_refused(good: Path, tmp_path: Path, kind: str) -> None:
    content = raw(good)
    SPEC_DAMAGE[kind](content)
    refusal(content, tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", list(STATE_DAMAGE))
def test_damaged_weights_are_refused(good: Path, tmp_path: Path, kind: str) -> None:
    content = raw(good)
    STATE_DAMAGE[kind](content)
    refusal(content, tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", list(CALIBRATED_DAMAGE))
def test_damaged_calibrated_statistics_are_refused(good: Path, tmp_path: Path, kind: str) -> None:
    content = raw(good)
    assert content["calibrated"][2]["name"] == "x0_1875"
    CALIBRATED_DAMAGE[kind](content)
    refusal(content, tmp_path)


@pytest.mark.parametrize("kind", list(INPUT_DAMAGE))
def test_a_file_that_does_not_say_which_images_it_takes_is_refused(good: Path, tmp_path: Path, kind: str) -> None:
    content = raw(good)
    INPUT_DAMAGE[kind](content)
    assert "which images it takes" in refusal(content, tmp_path)


def test_messages_name_what_is_wrong(good: Path, tmp_path: Path) -> None:
    def after(change: Damage) -> str:
        content = raw(good)
        change(content)
        return refusal(content, tmp_path)

    assert f"{KEY} (1 of " in after(STATE_DAMAGE["NaN"])
    assert f"plan x0_1875: NaN or infinite values in {NORM}.running_mean (1 of 8)" in after(CALIBRATED_DAMAGE["NaN mean"])
    assert f"{NORM}.running_var holds negative variances" in after(CALIBRATED_DAMAGE["negative variance"])
    assert KEY in after(STATE_DAMAGE["a missing weight"])
    assert "0 classes" in after(SPEC_DAMAGE["no classes"])
    assert "mobilenet_v9" in after(SPEC_DAMAGE["unknown architecture"])


@pytest.mark.parametrize("version", [None, 0, 2, "1", 1.5, True, torch.ones(2)])
def test_another_version_names_the_slimtrain_that_wrote_it(good: Path, tmp_path: Path, version: Any) -> None:
    message = refusal({**raw(good), "version": version, "slimtrain": "9.9"}, tmp_path)
    assert f"version {version!r}" in message and "reads 1" in message and "9.9" in message


def test_a_file_that_would_run_code_is_refused_and_does_not(good: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "it_ran"),)

    for place in ("training", "calibrated", "network", "harmless"):
        assert "run code" in refusal({**raw(good), place: Evil()}, tmp_path)
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(good: Path, tmp_path: Path, share: float) -> None:
    content = good.read_bytes()
    (tmp_path / "own.pt").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"^own\.pt: (is empty|truncated or damaged)"):
        open_checkpoint(tmp_path / "own.pt")


def test_files_from_before_settings_were_kept(tmp_path: Path) -> None:
    content = raw(own_checkpoint(tmp_path / "own.pt"))
    assert "settings" not in content
    assert open_checkpoint(tmp_path / "own.pt").settings == {}
    save({**content, "settings": ["nonuniform"]}, tmp_path / "bad.pt")
    with pytest.raises(CheckpointError, match=r"bad\.pt: its settings are no keys and values"):
        open_checkpoint(tmp_path / "bad.pt")
