"""A user's module in the trainer: from the command line to a checkpoint, and on from it."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.config.config import Config
from slimtrain.groups.spec import GraphSpec
from slimtrain.tracing.starting import starting
from slimtrain.training.run import train
from tests.support.run_helpers import done, refused, run, same_state
from tests.support.search_helpers import refused_late
from tests.support.user_networks import conv, network

MODEL = f"{__name__}:build"
TINY = {
    **{"network": "us_any", "model": MODEL, "data": "fake", "image_size": 16, "batch_size": 8, "epochs": 2, "workers": 0},
    **{"augmentation": "none", "calibration_batches": 2, "test_widths": (0.5,), "distill": True, "lr": 0.05},
}


class Small(nn.Module):
    """A residual block, dropout, a classifier."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem, self.block = conv(3, 32, stride=2), conv(32, 32)
        self.drop, self.head = nn.Dropout(0.2), nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.block(x)
        return self.head(self.drop(x.mean((2, 3))))


def build(num_classes: int = 10) -> nn.Module:
    return Small(num_classes)


def other_build(num_classes: int = 10) -> nn.Module:
    module = Small(num_classes)
    module.block[0] = nn.Conv2d(32, 32, 1, bias=False)
    return module


def gray_build(num_classes: int = 10) -> nn.Module:
    module = Small(num_classes)
    module.stem[0] = nn.Conv2d(1, 32, 3, 2, 1, bias=False)
    return module


def fixed() -> nn.Module:
    return Small(3)


def settings(folder: Path, **changes: object) -> Config:
    return Config(**{**TINY, "output_dir": str(folder), **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished checkpoint of a run of `build`."""
    return train(settings(tmp_path_factory.mktemp("any") / "run"))


def test_a_run_gives_a_checkpoint_of_the_user_s_network(trained: Path) -> None:
    assert trained.name == "us_build.pt"
    checkpoint = open_checkpoint(trained)
    spec = checkpoint.spec
    assert isinstance(spec, GraphSpec) and spec.name == "us_build" and spec.classes == 10
    assert spec.groups.sizes == {"stem.0": 32}
    assert {plan.width for plan in checkpoint.network.known_plans} == {0.25, 0.5, 1.0}
    assert all(checkpoint.network.has_statistics(plan) for plan in checkpoint.network.known_plans)


def test_reading_it_needs_no_user_code(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slimtrain.tracing.sources.build_module", lambda *args: pytest.fail("built the module"))
    monkeypatch.setattr("torch.export.export", lambda *args, **kwargs: pytest.fail("traced it"))
    network = open_checkpoint(trained).network
    with network.at(network.plan(0.5)), torch.no_grad():
        assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 10)


def test_it_is_tested_and_calibrated_as_any_other(trained: Path, tmp_path: Path) -> None:
    keys = ("data=fake", "image_size=16", "batch_size=8", "workers=0", "augmentation=none", f"model={MODEL}")
    words = [word for key in keys for word in ("--set", key)]
    outcome = done("test", "us_any", *words, "--ckpt", trained, "--widths", "0.5,1.0")
    assert "0.5" in outcome.out and "1.0" in outcome.out
    output = tmp_path / "more.pt"
    done("calibrate", "us_any", *words, "--ckpt", trained, "--widths", "0.75", "--output", output)
    assert open_checkpoint(output).network.has_statistics(open_checkpoint(output).spec.plan(0.75))


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = open_checkpoint(train(settings(tmp_path / "whole", epochs=3))).network

    class Killed(Exception):
        pass

    folder = tmp_path / "part"
    with monkeypatch.context() as patch:
        original = inspect.unwrap(train).__globals__["Run"].train_step

        def step(self: object, batch: object) -> object:
            if self.state.step == 5:  # type: ignore[attr-defined]
                raise Killed
            return original(self, batch)

        patch.setattr("slimtrain.training.run.Run.train_step", step)
        with pytest.raises(Killed):
            train(settings(folder, epochs=3, checkpoint_every=1))
    monkeypatch.setattr("slimtrain.tracing.starting.build_module", lambda *args: pytest.fail("built the module again"))
    gone_on = open_checkpoint(train(settings(folder, epochs=3, resume="auto"))).network
    same_state(whole.state_dict(), gone_on.state_dict())


def test_switchable_networks_and_non_uniform_widths_train_too(tmp_path: Path) -> None:
    path = train(settings(tmp_path / "s", network="s_any", switches=(0.5, 1.0), test_widths=()))
    assert path.name == "s_build.pt" and open_checkpoint(path).spec.switches == (0.5, 1.0)
    train(settings(tmp_path / "n", nonuniform=True, ema=0.9, amp="bf16"))


def test_pretrained_weights_are_loaded_and_their_channels_ordered(tmp_path: Path) -> None:
    torch.manual_seed(3)
    module = build(10)
    weights = tmp_path / "w.pth"
    torch.save(module.state_dict(), weights)
    start = starting(settings(tmp_path / "run", pretrained=str(weights)), 10)
    assert start is not None and start.loaded and start.line == "w.pth: weights loaded by name"
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(start.network.eval()(x), module.eval()(x), atol=1e-5)
    first = start.network.state_dict()["head.weight"].abs().sum(0)
    assert not torch.equal(start.network.state_dict()["stem.0.weight"], module.state_dict()["stem.0.weight"])
    assert first.shape == (32,)
    line = done("train", "us_any", *words(tmp_path / "run", pretrained=weights)).out
    assert "w.pth: weights loaded by name" in line and "a tenth of" in line


def words(folder: Path, **changes: object) -> list[str]:
    """The options of a tiny run."""
    keys = {key: value for key, value in {**TINY, **changes}.items() if key not in ("network", "lr", "test_widths")}
    keys["warmup_epochs"] = 0
    return [word for key, value in keys.items() for word in ("--set", f"{key}={value}")] + ["--output-dir", str(folder)]


def test_other_classes_need_a_new_classifier(tmp_path: Path) -> None:
    weights = tmp_path / "w.pth"
    torch.save(build(4).state_dict(), weights)
    refused(
        run("train", "us_any", *words(tmp_path / "a", pretrained=weights)),
        2,
        "head.weight is [4, 32]",
        "reset_classifier=true",
    )
    outcome = done("train", "us_any", *words(tmp_path / "b", pretrained=weights, reset_classifier="true"))
    assert "weights loaded by name" in outcome.out


def test_our_own_checkpoint_of_other_classes_needs_a_new_classifier_too(trained: Path, tmp_path: Path) -> None:
    options = words(tmp_path / "run", pretrained=trained, classes=4)
    refused(run("train", "us_any", *options), 2, "has 10 classes, the data has 4", "reset_classifier=true")
    done(
        "train",
        "us_any",
        *words(tmp_path / "b", pretrained=trained, classes=4, reset_classifier="true", epochs=1),
        "--lr",
        "0",
    )
    ours, theirs = (open_checkpoint(path).network.state_dict() for path in (tmp_path / "b" / "us_build.pt", trained))
    assert ours["head.weight"].shape == (4, 32) and torch.equal(ours["stem.0.weight"], theirs["stem.0.weight"])
    other = words(tmp_path / "c", pretrained=trained, model=f"{__name__}:other_build")
    refused(run("train", "us_any", *other), 2, "holds a us_build, the configuration trains a us_other_build")


def test_a_checkpoint_of_color_images_is_a_start_for_gray_ones(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.build", gray_build)
    gray = words(tmp_path / "g", pretrained=trained, in_channels=1, epochs=1)
    done("train", "us_any", *gray, "--lr", "0")
    ours, theirs = (open_checkpoint(path).network.state_dict() for path in (tmp_path / "g" / "us_build.pt", trained))
    assert torch.equal(ours["stem.0.weight"], theirs["stem.0.weight"].sum(1, keepdim=True))


def test_a_checkpoint_of_another_module_of_the_same_name_is_refused(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.build", other_build)
    refused_late(
        run("train", "us_any", *words(tmp_path / "c", pretrained=trained)),
        2,
        "another us_build than the module is now",
        "differ",
    )


def test_a_module_of_other_outputs_is_refused(tmp_path: Path) -> None:
    changed = words(tmp_path / "run", model=f"{__name__}:fixed")
    refused(run("train", "us_any", *changed), 2, "gives 3 outputs, the data has 10 classes", "num_classes")


def test_us_any_asks_for_a_model_and_autoslim_for_another_family(tmp_path: Path) -> None:
    refused(run("train", "us_any", "--set", "data=fake", "--output-dir", tmp_path), 2, "--model torchvision:NAME")
    refused(run("train", "autoslim_mobilenet_v2", "--model", MODEL, "--output-dir", tmp_path), 2, "--plans DIR", "us_any")
    refused(run("train", "us_any", *words(tmp_path / "p", layout="published")), 2, "layout: own")
    refused(run("profile", "us_any", "--set", f"model={MODEL}"), 2, "slimtrain groups")


def test_the_groups_command_prints_the_report() -> None:
    outcome = done("groups", MODEL, "--image-size", "16x24", "--classes", "4", "--widths", "1.0,0.5")
    assert "build" in outcome.out and "stem.0" in outcome.out and "0.5" in outcome.out
    refused(run("groups", MODEL, "--image-size", "axb"), 2, "256x192")


def test_a_network_of_the_tests_is_the_one_that_was_traced() -> None:
    """The helper networks give the same weights for the same seed: what the other tests rely on."""
    same_state(network("plain").state_dict(), network("plain").state_dict())
