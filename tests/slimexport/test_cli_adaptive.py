"""`--triton --adaptive`: one model of all widths, with the policy and the deadline that were asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.export_helpers import refused, run
from tests.support.http_serving import NETWORK, write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


def test_the_options_come_to_the_model(bundle: Path, tmp_path: Path) -> None:
    arguments = ("--slo-ms", "20", "--policy", "fixed:0.5", "--widths", "0.25,0.5")
    outcome = run("--bundle", bundle, "--triton", tmp_path / "models", "--adaptive", *arguments)
    assert (outcome.code, outcome.out) == (0, f"1 model in {tmp_path / 'models'}: {NETWORK}\n")
    config = (tmp_path / "models" / NETWORK / "config.pbtxt").read_text()
    assert "fixed:0.5" in config and '"20"' in config
    files = {path.name for path in (tmp_path / "models" / NETWORK / "1").glob("*.onnx")}
    assert files == {"tiny_x0_25.onnx", "tiny_x0_5.onnx"}


def test_all_widths_are_all_and_without_a_word_they_are_those_worth_it(bundle: Path, tmp_path: Path) -> None:
    """Seven widths, all of which are better than the one before, are more than are opened unasked."""
    many = write_bundle(tmp_path / "many", widths=[0.25, 0.3, 0.35, 0.4, 0.5, 0.75, 1.0])
    for given, count in ((("--widths", "all"), 7), ((), 5)):
        models = tmp_path / f"models{count}"
        assert run("--bundle", many, "--triton", models, "--adaptive", *given).code == 0
        assert len(list((models / NETWORK / "1").glob("*.onnx"))) == count


def test_another_backend_is_the_model_s_and_verifies_nothing(bundle: Path, tmp_path: Path) -> None:
    outcome = run("--bundle", bundle, "--triton", tmp_path / "models", "--adaptive", "--backend", "tensorrt")
    refused(outcome, 2, "holds no fp32 TensorRT engine")


def test_without_it_there_is_a_model_of_every_file(bundle: Path, tmp_path: Path) -> None:
    outcome = run("--bundle", bundle, "--triton", tmp_path / "models")
    assert outcome.out.startswith(f"3 models in {tmp_path / 'models'}: ")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--policy", "best"), "policy 'best': not known"),
        (("--precision", "fp32,fp16"), "--adaptive takes one"),
        (("--widths", "0.3"), "holds no width 0.3"),
        (("--late", "serve"), "--late goes with --serve"),
    ],
)
def test_what_cannot_be_is_one_message(bundle: Path, tmp_path: Path, arguments: tuple[str, ...], part: str) -> None:
    refused(run("--bundle", bundle, "--triton", tmp_path / "models", "--adaptive", *arguments), 2, part)
    assert not (tmp_path / "models").exists()
