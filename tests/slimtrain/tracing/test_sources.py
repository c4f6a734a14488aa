"""Users' modules by their names, and their weights."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from slimtrain.base.errors import CheckpointError, ResourceError, UserError
from slimtrain.tracing.sources import build_module, load_weights


@pytest.fixture
def user_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module `mynets_NAME.py`, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    name = f"mynets_{tmp_path.name}".replace("-", "_")
    path = tmp_path / f"{name}.py"
    path.write_text(
        textwrap.dedent("""
        from torch import nn

        def build(num_classes=5):
            return nn.Linear(4, num_classes)

        def fixed():
            return nn.Linear(4, 3)

        def number():
            return 7

        def broken():
            raise RuntimeError("no such luck")
        """)
    )
    return path


def test_a_function_of_the_working_directory_is_called_with_the_classes(user_code: Path) -> None:
    assert build_module(f"{user_code.stem}:build", 9).out_features == 9
    assert build_module(f"{user_code.stem}:build").out_features == 5
    assert build_module(f"{user_code.stem}:fixed", 9).out_features == 3


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("number", "gave a int, expected a torch.nn.Module"),
        ("broken", "RuntimeError: no such luck, at mynets"),
        ("buidl", "build"),
    ],
)
def test_what_is_no_module_is_refused(function: str, said: str, user_code: Path) -> None:
    with pytest.raises(UserError) as refusal:
        build_module(f"{user_code.stem}:{function}")
    assert said in str(refusal.value)


def test_a_module_that_cannot_be_imported_is_told_with_its_line(user_code: Path) -> None:
    user_code.with_name("half_written.py").write_text("import math\nmath.nothing\n")
    with pytest.raises(UserError, match=r"AttributeError.*half_written\.py:2"):
        build_module("half_written:build")


@pytest.mark.parametrize("source", ["resnet18", ":x", "torchvision:", "timm:"])
def test_other_forms_are_refused_with_the_right_ones(source: str) -> None:
    with pytest.raises(UserError, match="torchvision:NAME, timm:NAME, or package"):
        build_module(source)


def test_names_with_a_typo_get_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'resnet18'"):
        build_module("torchvision:resnet81")
    with pytest.raises(UserError, match="there is no module not_there"):
        build_module("not_there:build")


def test_torchvision_s_networks_are_built_for_the_data_s_classes() -> None:
    module = build_module("torchvision:squeezenet1_1", 7)
    assert module(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_a_package_that_is_missing_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("slimtrain.tracing.sources.importlib.import_module", missing)
    with pytest.raises(ResourceError, match=r"timm is not installed.*pip install"):
        build_module("timm:resnet18")


def test_weights_load_by_name_and_by_position() -> None:
    torch.manual_seed(0)
    source, target = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)) for _ in range(2))
    state = source.state_dict()
    assert load_weights(target, state, "w.pth") == "by name"
    assert torch.equal(target.state_dict()["0.weight"], state["0.weight"])
    renamed = {f"layer{index}": tensor for index, tensor in enumerate(v for k, v in state.items() if "num_batches" not in k)}
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    assert "by position: the 8 tensors" in load_weights(other, renamed, "w.pth")
    assert torch.equal(other.state_dict()["2.bias"], state["2.bias"])


def test_weights_that_do_not_fit_leave_the_module_as_it_was() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    wrong = {**before, "1.weight": torch.zeros(5, 4)}
    with pytest.raises(CheckpointError, match=r"1\.weight is \[5, 4\], expected \[2, 4\]"):
        load_weights(module, wrong, "w.pth")
    with pytest.raises(CheckpointError, match=r"missing: 1\.weight.*unknown: x.*by position either"):
        load_weights(module, {"0.weight": before["0.weight"], "0.bias": before["0.bias"], "x": torch.zeros(1)}, "w.pth")
    assert all(torch.equal(module.state_dict()[key], tensor) for key, tensor in before.items())
