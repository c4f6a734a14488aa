"""Each published network with the configuration file that it was published with: what the file says fits what the
checkpoint holds, in whichever order the checkpoint has its widths, and however the file names them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from slimtrain.base.errors import UserError
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.config.published_config import read_published_config
from slimtrain.models.published import published_spec
from slimtrain.models.spec import NetworkSpec
from tests.support.slimtrain_states import PUBLISHED, empty_state, identified, layout, saved, shaped
from tests.support.slimtrain_states import published_state as state_of

BASIC = "image_size: 224\nnum_classes: 1000\nmodel: ''\nwidth_mult: 1.0\n"
US = {"us_mobilenet_v1": "mobilenet_v1", "us_mobilenet_v2": "mobilenet_v2"}


def config_of(name: str) -> str:
    """The keys that tell of the network, as the published file has them."""
    facts = layout(name)
    base = name.removesuffix("50")
    text = f"{BASIC}model: models.{base}\n" + (f"depth: {facts['depth']}\n" if "depth" in facts else "")
    if name.startswith("autoslim"):
        return f"{text}width_mult_list: {facts['switches']}\nchannel_num_list: {facts['channel_num_list']}\n"
    if name == "s_shufflenet":
        text += "groups: 3\nwidth_compress: 4\nwidth_mult: 2.0\n"
    text += f"width_mult_list: {facts['switches']}\n"
    return text + (f"width_mult_range: {facts['width_mult_range']}\n" if name in US else "")


def expected_widths(folder: Path, text: str) -> tuple[str | None, tuple[float, ...]]:
    (folder / "app.yml").write_text(text)
    config = read_published_config(folder / "app.yml")
    return config.network, config.switches


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_file_goes_with_its_published_configuration(name: str, tmp_path: Path) -> None:
    network, widths = expected_widths(tmp_path, config_of(name))
    assert network == name
    assert identified(shaped(name), network=network, expected_widths=widths) == published_spec(name)


def ways(name: str) -> dict[str, str]:
    """How files name the widths of a US network."""
    head, low = f"{BASIC}model: models.{name}\n", min(layout(name)["switches"])
    ends, grid, inner = f"width_mult_range: [{low}, 1.0]\n", layout(name)["switches"], layout(name)["switches"][1:-1]
    return {
        "range alone": head + ends,
        "range, and the list has one": f"{head}{ends}width_mult_list: [1.0]\n",
        "range, and all to test": f"{head}{ends}width_mult_list_test: {grid}\n",
        "range, and the others to test": f"{head}{ends}width_mult_list_test: {inner}\n",
        "range, and its ends to test": f"{head}{ends}width_mult_list_test: [{low}, 1.0]\n",
        "range, and some to test": f"{head}{ends}width_mult_list_test: [0.5, 0.7]\n",
        "list, and widths of one's own to test": f"{config_of(name)}width_mult_list_test: [0.36, 0.51415926]\n",
        "no widths": head,
    }


@pytest.mark.parametrize("way", ways("us_mobilenet_v1"))
@pytest.mark.parametrize("name", US)
def test_a_us_network_goes_with_it_in_both_orders(name: str, way: str, tmp_path: Path) -> None:
    """Ascending, as published; range minimum, maximum, then the further widths, as the published code calibrates."""
    grid = layout(name)["switches"]
    network, widths = expected_widths(tmp_path, ways(name)[way])
    for order in (grid, [grid[0], grid[-1], *grid[1:-1]]):
        spec = NetworkSpec(US[name], "us", tuple(order), 1000, width_range=(grid[0], grid[-1]))
        state = shaped(name) if order == grid else empty_state(spec)
        assert identified(state, network=network, expected_widths=widths) == spec


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("us_mobilenet_v1", "width_mult_range: [0.5, 1.0]\n"),  # the file begins at 0.25
        ("s_mobilenet_v1", "width_mult_list: [0.25, 0.5, 1.0]\n"),  # the file has 0.75 too
        ("s_mobilenet_v1", "width_mult_list: [0.35, 0.5, 0.75, 1.0]\n"),
    ],
)
def test_another_configuration_is_refused_and_leaving_it_out_leads_on(name: str, text: str, tmp_path: Path) -> None:
    network, widths = expected_widths(tmp_path, f"{BASIC}model: models.{name}\n{text}")
    with pytest.raises(UserError, match=r"has the shapes of 0\.\d+.*Correct --switches or --config"):
        identified(shaped(name), network=network, expected_widths=widths)
    assert identified(shaped(name), network=network, expected_widths=layout(name)["switches"]) == published_spec(name)


@pytest.mark.parametrize("name", ["us_mobilenet_v1", "autoslim_mobilenet_v1"])
def test_a_file_is_opened_with_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "app.yml").write_text(config_of(name))
    checkpoint = open_checkpoint(saved(tmp_path, state_of(name)), config=tmp_path / "app.yml")
    assert checkpoint.spec == published_spec(name)


def test_a_tie_is_settled_by_the_list_before_the_widths_to_test(tmp_path: Path) -> None:
    """0.35 and 0.36 have the same shapes in US-MobileNet v2."""
    widths: Sequence[float] = (0.35, 1.0, 0.36)
    spec = NetworkSpec("mobilenet_v2", "us", tuple(widths), 10, width_range=(0.35, 1.0))
    text = f"{BASIC}model: models.us_mobilenet_v2\nwidth_mult_range: [0.35, 1.0]\nwidth_mult_list: [0.35, 1.0]\n"
    _, expected = expected_widths(tmp_path, f"{text}width_mult_list_test: [0.36]\n")
    assert identified(empty_state(spec), expected_widths=expected) == spec
