"""Calibration through the command: widths and plans without statistics get those of the images that are given.

The statistics are recomputed here from the definition: every norm of the dense network normalizes with its batch's own
mean and variance; kept are the averages, over batches, of batch mean and unbiased batch variance.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from slimexport.onnx_files.calibration import Calibration
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.data.images import Preprocessing
from slimtrain.data.noise import noise_images
from slimtrain.data.sampling import draw
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.normalization import IMAGENET_MEAN, IMAGENET_STD
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.calibrate import calibrate
from tests.support.export_helpers import State, random_state, refused, run, run_onnx, small_spec, tree, write_checkpoint
from tests.support.module_layers import DenseLayers

SIZE = 64
V1 = small_spec("us")
V2 = NetworkSpec("mobilenet_v2", "us", (0.35, 0.5), 10, width_range=(0.35, 0.5))


class BatchNorm(nn.Module):
    """A norm in training mode, written out; remembers its batches' means and unbiased variances."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = weight.double(), bias.double()
        self.means: list[Tensor] = []
        self.variances: list[Tensor] = []
        self.fixed: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.fixed is None:
            mean = x.sum((0, 2, 3)) / (x.numel() / x.shape[1])
            squares = ((x - mean[:, None, None]) ** 2).sum((0, 2, 3))
            count = x.numel() // x.shape[1]
            self.means.append(mean)
            self.variances.append(squares / (count - 1))
            var = squares / count
        else:
            mean, var = self.fixed
        scale = self.weight / torch.sqrt(var + 1e-5)
        return (x - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]

    def settle(self) -> None:
        self.fixed = sum(self.means) / len(self.means), sum(self.variances) / len(self.variances)  # type: ignore[assignment]


def calibrated_logits(
    spec: NetworkSpec, plan: ChannelPlan, state: State, images: NDArray[Any], batch: int, probes: NDArray[Any]
) -> NDArray[Any]:
    """The logits that the network of `state` has at `plan` once it is calibrated on `images`, in float64."""
    dense = spec.build(DenseLayers(plan)).double()
    norms = []
    for path, module in list(dense.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            n = module.num_features
            norm = BatchNorm(state[f"{path}.weight"][:n], state[f"{path}.bias"][:n])
            parent, _, name = path.rpartition(".")
            setattr(dense.get_submodule(parent), name, norm)
            norms.append(norm)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            for key, parameter in module.named_parameters():
                corner = tuple(slice(size) for size in parameter.shape)
                parameter.data.copy_(state[f"{path}.{key}"][corner])
    with torch.inference_mode():
        for i in range(0, len(images), batch):
            dense(torch.from_numpy(images[i : i + batch]).double())
        for norm in norms:
            norm.settle()
        result: NDArray[Any] = dense(torch.from_numpy(probes).double()).numpy()
    return result


def agrees(bundle: Path, name: str, spec: NetworkSpec, plan: ChannelPlan, images: NDArray[Any], batch: int) -> None:
    """The bundle's reference and its file both give the logits of the definition. `images` are in the order of their names, as
    they are drawn from."""
    images = images[draw([0] * len(images), len(images)).indices]
    with np.load(bundle / "reference.npz") as reference:
        probes, logits = reference["images"], reference[f"logits_{plan.name}"]
    expected = calibrated_logits(spec, plan, random_state(spec), images, batch, probes)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * scale)
    np.testing.assert_allclose(run_onnx(bundle / f"{name}_{plan.name}.onnx", probes), expected, rtol=0, atol=2e-4 * scale)


@pytest.fixture(scope="module")
def images() -> NDArray[np.float32]:
    return noise_images(10, SIZE, 99)


@pytest.fixture(scope="module")
def us(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("calibration") / "us_mbv1.pt", V1)


def base(checkpoint: Path, output: Path) -> tuple[str | Path, ...]:
    return "--ckpt", checkpoint, "--image-size", str(SIZE), "--output-dir", output


def test_without_data_the_message_names_file_known_widths_and_option(us: Path, tmp_path: Path) -> None:
    outcome = run(*base(us, tmp_path / "b"), "--widths", "0.33")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == (
        "slimexport: width 0.33: us_mbv1.pt has batch-norm statistics only for 0.25, 0.5. "
        "Calibrate with --calibration-data FOLDER, or choose from these.\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("spec", [V1, V2], ids=["mobilenet_v1", "mobilenet_v2 with its shared tail norm"])
@pytest.mark.parametrize("batch", [5, 4, 64], ids=["even batches", "a smaller last batch", "one batch"])
def test_statistics_are_the_cumulative_averages_of_the_definition(
    tmp_path: Path, images: NDArray[np.float32], spec: NetworkSpec, batch: int
) -> None:
    path = write_checkpoint(tmp_path / "us.pt", spec)
    np.save(tmp_path / "images.npy", images)
    more = ("--calibration-data", tmp_path / "images.npy", "--calibration-batch-size", str(batch))
    outcome = run(*base(path, tmp_path / "b"), "--widths", "0.4", *more)
    assert outcome.code == 0, outcome
    agrees(tmp_path / "b", spec.name, spec, spec.plan(0.4), images, batch)


def test_stored_widths_keep_their_statistics_when_another_is_calibrated(tmp_path: Path, images: NDArray[np.float32]) -> None:
    path = write_checkpoint(tmp_path / "us.pt", V2)
    np.save(tmp_path / "images.npy", images)
    assert run(*base(path, tmp_path / "plain")).code == 0
    assert (
        run(*base(path, tmp_path / "more"), "--widths", "0.35,0.4,0.5", "--calibration-data", tmp_path / "images.npy").code
        == 0
    )
    plain, more = tree(tmp_path / "plain"), tree(tmp_path / "more")
    for name in ("us_mobilenet_v2_x0_35.onnx", "us_mobilenet_v2_x0_5.onnx"):
        assert plain[name] == more[name]


def test_an_npz_with_one_array_of_any_name_does_the_same_as_the_npy(
    us: Path, tmp_path: Path, images: NDArray[np.float32]
) -> None:
    np.save(tmp_path / "images.npy", images)
    np.savez(tmp_path / "images.npz", whatever=images)
    for kind in ("npy", "npz"):
        data = ("--calibration-data", tmp_path / f"images.{kind}")
        assert run(*base(us, tmp_path / kind), "--widths", "0.33", *data).code == 0
    assert tree(tmp_path / "npy") == tree(tmp_path / "npz")


@pytest.mark.parametrize("classes", [False, True], ids=["flat", "by class"])
def test_a_folder_of_photographs_is_cropped_and_normalized(us: Path, tmp_path: Path, classes: bool) -> None:
    """Photographs whose shorter side needs no resizing (64 / 0.875 = 73), so that cropping is plain indexing."""
    draw = np.random.default_rng(4)
    folder = tmp_path / "photos"
    arrays = []
    for i in range(6):
        height, width = (73, 90) if i % 2 else (81, 73)
        coarse = Image.fromarray(draw.integers(0, 255, (6, 6, 3), np.uint8)).resize((width, height))
        path = folder / (f"class{i // 3}" if classes else "") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse.save(path)
        top, left = round((height - 64) / 2), round((width - 64) / 2)
        pixels = np.asarray(coarse, np.float64)[top : top + 64, left : left + 64] / 255
        arrays.append(((pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1))
    outcome = run(*base(us, tmp_path / "b"), "--widths", "0.33", "--calibration-data", folder)
    assert outcome.code == 0, outcome
    agrees(tmp_path / "b", V1.name, V1, V1.plan(0.33), np.stack(arrays), 64)


def test_an_unreadable_photograph_is_left_out_with_a_warning(
    us: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    draw = np.random.default_rng(4)
    for i in range(4):
        Image.fromarray(draw.integers(0, 255, (6, 6, 3), np.uint8)).resize((90, 80)).save(folder / f"{i}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    with caplog.at_level(logging.WARNING):
        outcome = run(*base(us, tmp_path / "b"), "--widths", "0.33", "--calibration-data", folder)
    assert outcome.code == 0
    assert "broken.jpg" in caplog.text and "1 of 5 images" in caplog.text


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 dark and 20 light photographs, in folders by their class."""
    folder, draw_pixels = tmp_path_factory.mktemp("classes"), np.random.default_rng(7)
    for name, count, level in (("dark", 12, 20), ("light", 20, 220)):
        (folder / name).mkdir()
        for i in range(count):
            coarse = level + draw_pixels.integers(-20, 21, (6, 6, 3))
            Image.fromarray(coarse.astype(np.uint8)).resize((80, 73)).save(folder / name / f"{i:02}.png")
    return folder


def test_statistics_are_of_both_classes_in_every_batch(
    us: Path, two_classes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two classes of opposite brightness: by name every batch holds one, and variances are those within a class."""
    more = ("--widths", "0.33", "--calibration-data", two_classes, "--calibration-batch-size", "8")
    with caplog.at_level(logging.INFO):
        assert run(*base(us, tmp_path / "b"), *more, "--calibration-images", "24").code == 0
    assert f"statistics: {two_classes}: 24 of 32 images, 12 of each of 2 folders" in caplog.messages
    how, plan, state = Preprocessing(SIZE, IMAGENET_MEAN, IMAGENET_STD), V1.plan(0.33), random_state(V1)
    by_name = np.stack([how(path) for path in sorted(two_classes.rglob("*.png"))])
    drawn = by_name[draw([0] * 12 + [1] * 20, 24).indices]
    with np.load(tmp_path / "b" / "reference.npz") as reference:
        logits = reference["logits_x0_33"]
        expected = calibrated_logits(V1, plan, state, drawn, 8, reference["images"])
        ordered = calibrated_logits(V1, plan, state, by_name[:24], 8, reference["images"])
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert np.abs(ordered - expected).max() > 0.1 * np.abs(expected).max()  # so the order matters
    network = open_checkpoint(us).network
    calibrate(network, [plan], (torch.from_numpy(batch) for batch in np.split(drawn, 3)))
    _, variance = next(iter(network.statistics(plan).values()))  # of the first convolution's outputs
    outputs = F.conv2d(torch.from_numpy(drawn), network.get_parameter("features.0.0.weight")[: len(variance)], None, 2, 1)
    exact = outputs.var((0, 2, 3))
    assert (variance / exact - 1).abs().max() < 0.2
    calibrate(network, [plan], (torch.from_numpy(batch) for batch in np.split(by_name, 4)[::3]))  # dark, then light
    assert (next(iter(network.statistics(plan).values()))[1] / exact).median() < 0.3


def test_int8_sees_both_classes_and_as_many_images_as_are_asked_for(
    us: Path, two_classes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[NDArray[Any]] = []
    original = Calibration.of

    def of(batches: Any, *rest: Any) -> Calibration:
        batches = list(batches)
        taken.extend(batches)
        return original(batches, *rest)

    monkeypatch.setattr(Calibration, "of", staticmethod(of))
    more = ("--widths", "0.5", "--precision", "int8", "--calibration-data", two_classes, "--calibration-images", "10")
    with caplog.at_level(logging.INFO):
        outcome = run(*base(us, tmp_path / "b"), *more, "--no-verify", "--json")
    means = np.concatenate(taken).mean((1, 2, 3))
    assert len(means) == 10 and (means > 0).sum() == 5
    assert f"int8: {two_classes}: 10 of 32 images, 5 of each of 2 folders" in caplog.messages
    described = outcome.manifest["artifacts"][0]["int8"]
    assert (described["images"], described["held_back"]) == (8, 2)


def test_digits_verify_and_say_how_many(us: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert run(*base(us, tmp_path / "b"), "--verify-data", "digits", "--probes", "10").code == 0
    assert "verification: digits: 10 of 1,437 images, 1 of each of 10 classes" in caplog.messages
    with np.load(tmp_path / "b" / "reference.npz") as reference:
        assert reference["images"].shape == (10, 3, SIZE, SIZE)


@pytest.mark.parametrize("turned", [False, True])
def test_the_option_turns_photographs_as_exif_says_and_the_bundle_tells(us: Path, tmp_path: Path, turned: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    ramp = np.linspace(0, 255, 73).astype(np.uint8)[:, None].repeat(73, 1)
    (tmp_path / "photos").mkdir()
    for i in range(2):
        Image.fromarray(ramp // (i + 1)).save(tmp_path / "photos" / f"{i}.png", exif=exif)
    option = ("--exif-orientation",) if turned else ()
    outcome = run(*base(us, tmp_path / "b"), "--verify-data", tmp_path / "photos", *option, "--json")
    with np.load(tmp_path / "b" / "reference.npz") as reference:
        images = reference["images"]
    assert ((images[:, :, 0] > images[:, :, -1]) == turned).all()
    assert outcome.manifest["input"].get("exif_orientation", False) == turned


@pytest.mark.parametrize("option", ["--calibration-images", "--workers"])
def test_numbers_that_cannot_be_are_refused(option: str, us: Path, tmp_path: Path) -> None:
    assert run(*base(us, tmp_path / "b"), option, "-1").code == 2


def test_a_batch_with_one_value_per_channel_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "us.pt", V1)
    np.save(tmp_path / "images.npy", noise_images(3, 32))
    more = ("--widths", "0.33", "--calibration-data", tmp_path / "images.npy", "--calibration-batch-size", "2")
    outcome = run("--ckpt", path, "--image-size", "32", "--output-dir", tmp_path / "b", *more)
    refused(outcome, 2, "calibration batch 2 has 1 image", "--calibration-batch-size")
    assert not (tmp_path / "b").exists()


def test_data_that_no_width_needs_is_said_not_to_be_used(
    us: Path, tmp_path: Path, images: NDArray[np.float32], caplog: pytest.LogCaptureFixture
) -> None:
    np.save(tmp_path / "images.npy", images)
    with caplog.at_level(logging.WARNING):
        assert run(*base(us, tmp_path / "b"), "--widths", "0.5", "--calibration-data", tmp_path / "images.npy").code == 0
    assert "not used" in caplog.text


def test_calibrating_a_mapped_array_warns_of_nothing(
    us: Path, tmp_path: Path, images: NDArray[np.float32], recwarn: pytest.WarningsRecorder
) -> None:
    np.save(tmp_path / "images.npy", images)
    assert run(*base(us, tmp_path / "b"), "--widths", "0.33", "--calibration-data", tmp_path / "images.npy").code == 0
    assert [str(warning.message) for warning in recwarn if issubclass(warning.category, UserWarning)] == []


# -------------------------------------------------------------------------------------------------------- plan files


def test_a_nonuniform_plan_is_calibrated_and_has_no_width(us: Path, tmp_path: Path, images: NDArray[np.float32]) -> None:
    channels = {**V1.widest.channels, "features.0": 12, "features.5": 100, "features.13": 300}
    lines = "".join(f"  {group}: {count}\n" for group, count in channels.items())
    (tmp_path / "odd.yml").write_text(f"network: us_mobilenet_v1\nname: mine\nchannels:\n{lines}")
    np.save(tmp_path / "images.npy", images)
    refused(run(*base(us, tmp_path / "b"), "--channels", tmp_path / "odd.yml"), 2, "plan mine", "--calibration-data")
    data = ("--calibration-data", tmp_path / "images.npy")
    outcome = run(*base(us, tmp_path / "b"), "--channels", tmp_path / "odd.yml", *data)
    assert outcome.code == 0, outcome
    agrees(tmp_path / "b", V1.name, V1, V1.plan_from_channels("mine", channels), images, 64)
    (artifact,) = json.loads((tmp_path / "b" / "manifest.json").read_text())["artifacts"]
    assert (artifact["name"], artifact["width"]) == ("us_mobilenet_v1_mine", None)
    assert artifact["channels"] == channels
    model = onnx.load(tmp_path / "b" / "us_mobilenet_v1_mine.onnx")
    assert {entry.key: entry.value for entry in model.metadata_props}["width"] == "mine"
    assert run("--bundle", tmp_path / "b", "--verify-only").code == 0


def test_a_plan_and_widths_are_exported_together(us: Path, tmp_path: Path, images: NDArray[np.float32]) -> None:
    channels = {**V1.widest.channels, "features.5": 100}
    (tmp_path / "odd.yml").write_text("".join(f"{group}: {count}\n" for group, count in channels.items()))
    np.save(tmp_path / "images.npy", images)
    more = ("--widths", "0.25,0.3", "--channels", tmp_path / "odd.yml", "--calibration-data", tmp_path / "images.npy")
    manifest = run(*base(us, tmp_path / "b"), *more, "--json").manifest
    assert [artifact["name"].removeprefix("us_mobilenet_v1_") for artifact in manifest["artifacts"]] == [
        "x0_25",
        "x0_3",
        "odd",
    ]


def test_a_budget_is_met_by_a_calibrated_width(us: Path, tmp_path: Path, images: NDArray[np.float32]) -> None:
    np.save(tmp_path / "images.npy", images)
    macs = [a["macs"] for a in run(*base(us, tmp_path / "b"), "--dry-run", "--json").manifest["artifacts"]]
    budget = sum(macs) // 2
    more = ("--macs", str(budget), "--calibration-data", tmp_path / "images.npy")
    (artifact,) = run(*base(us, tmp_path / "b"), *more, "--json").manifest["artifacts"]
    assert macs[0] < artifact["macs"] <= budget
    assert 0.25 < artifact["width"] < 0.5
