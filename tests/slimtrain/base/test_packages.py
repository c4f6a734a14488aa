"""The table of extras is setup.cfg's, the target's bring no torch, and a missing module leads to the extra that brings it."""

from __future__ import annotations

import configparser
import re
import sys
from pathlib import Path

import pytest

from slimtrain.base.packages import DISTRIBUTION, EXTRAS, Extra, install_command, is_installed, package_of

ONNXRUNTIME = {"onnxruntime", "onnxruntime-gpu"}  # one of them, by the machine


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(Path(__file__).parents[3] / "setup.cfg", encoding="utf-8")
    return parser


def required(setup: configparser.ConfigParser, section: str, key: str) -> set[str]:
    """Names of the packages, of the extras that it includes too."""
    return {re.split(r"[<>=;\s]", line.strip())[0] for line in setup[section][key].splitlines() if line.strip()}


@pytest.mark.parametrize("extra", EXTRAS, ids=lambda extra: extra.name)
def test_an_extra_brings_what_the_table_says(setup: configparser.ConfigParser, extra: Extra) -> None:
    packages = {package_of(module) for module in extra.modules}
    expected = packages | (ONNXRUNTIME if "onnxruntime" in packages else set())
    included = required(setup, "options.extras_require", "full") if extra.name == "digits" else set()
    assert required(setup, "options.extras_require", extra.name) == expected | included


def test_the_target_and_the_distribution_alone_bring_no_torch(setup: configparser.ConfigParser) -> None:
    assert required(setup, "options", "install_requires") == {"numpy", "click"}
    assert not {"torch", "torchvision", "onnx"} & required(setup, "options.extras_require", "target")
    assert setup["metadata"]["name"] == DISTRIBUTION


@pytest.mark.parametrize("extra", ["digits", "test", "dev"])
def test_what_the_first_commands_install_brings_everything(setup: configparser.ConfigParser, extra: str) -> None:
    assert required(setup, "options.extras_require", "full") <= required(setup, "options.extras_require", extra)


@pytest.mark.parametrize(
    ("module", "extra"),
    [("torch.nn", "full"), ("yaml", "full"), ("PIL.Image", "target"), ("onnxruntime", "target"), ("sklearn", "digits")],
)
def test_a_missing_module_leads_to_the_extra_that_brings_it(module: str, extra: str) -> None:
    assert install_command(module).startswith(f"pip install '{DISTRIBUTION}[{extra}]'")


def test_what_is_installed_is_found_without_loading_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert [is_installed(module) for module in ("json", "no_such_module", "yaml")] == [True, False, False]


def test_a_module_of_no_extra_leads_to_its_package() -> None:
    assert install_command("pynvml.smi") == "pip install pynvml"
