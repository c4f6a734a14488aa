"""Networks to measure layers of, by name: modules, checkpoints of them and of published networks, and what is none."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.layers.sources import find_network
from slimtrain.base.errors import UserError
from slimtrain.checkpoints.own_layout import save
from slimtrain.checkpoints.untrained import untrained_network
from slimtrain.costs.graph_layers import graph_layers
from slimtrain.costs.latency_table import read_latency_table, write_latency_table
from slimtrain.graph.policy import Policy
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.spec import NetworkSpec
from slimtrain.models.width_spec import WidthSpec
from slimtrain.tracing.slimmed import make_slimmable
from tests.support.bundle_helpers import artifact, as_json
from tests.support.latency_tables import table_of
from tests.support.traced_search import FULL, SIZE, build
from tests.support.user_networks import network

MODULE = f"{build.__module__}:build"


@cache
def module() -> tuple[WidthSpec, Any]:
    return find_network(MODULE, image_size=SIZE, classes=5)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("c") / "us_build.pt"
    save(make_slimmable(build(5), torch.zeros(2, 3, SIZE, SIZE), name="build"), path)
    return path


def test_a_module_is_traced() -> None:
    spec, size = module()
    assert isinstance(spec, GraphSpec) and spec.groups.sizes == FULL
    assert (spec.name, spec.classes, size, spec.range) == ("us_build", 5, SIZE, (0.25, 1.0))
    spec, _ = find_network(MODULE, image_size=SIZE, widths=(0.5, 0.75), in_channels=3)
    assert spec.range == (0.5, 0.75) and spec.classes == 7


def test_a_module_s_policy() -> None:
    spec, _ = find_network("tests.support.user_networks:VisionTransformer", image_size=16, heads="inner")
    assert isinstance(spec, GraphSpec) and spec.groups.policy == Policy("inner")


def test_a_table_of_the_module_fits_the_checkpoint_of_its_training(checkpoint: Path, tmp_path: Path) -> None:
    """Its channels are in another order, its widths may be others: the layers are the same."""
    spec, _ = module()
    trained, size = find_network(str(checkpoint))
    assert isinstance(trained, GraphSpec) and isinstance(spec, GraphSpec) and size == SIZE
    assert graph_layers(trained) == graph_layers(spec)
    write_latency_table(tmp_path / "t.json", table_of(spec, lambda layer, inp, out: 1e-3 * inp * out, size=SIZE))
    assert read_latency_table(tmp_path / "t.json", trained, SIZE).cost_ms(trained.plan(0.5)) > 0
    with pytest.raises(
        UserError, match=r"us_build at 16 px, 5 classes, this is us_build at 16 px, 7 classes\. .* --classes 7 "
    ):
        read_latency_table(tmp_path / "t.json", find_network(MODULE, image_size=SIZE)[0], SIZE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 32}, "--image-size 32: us_build.pt has 16"),
        ({"classes": 9}, "--classes 9: us_build.pt has 5"),
        ({"in_channels": 1}, "--in-channels 1: us_build.pt has 3"),
        ({"stem_stride": 1}, "--stem-stride 1: us_build.pt has none"),
        ({"heads": "inner"}, "--heads inner: us_build.pt has outer"),
        ({"widths": (0.5, 1.5)}, "--range 0.5:1.5: us_build was made of a module"),
    ],
)
def test_a_checkpoint_is_what_it_is(checkpoint: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_network(str(checkpoint), **options)


def test_options_that_say_what_a_checkpoint_has(checkpoint: Path) -> None:
    spec, size = find_network(str(checkpoint), image_size=16, classes=5, in_channels=3, heads="outer", widths=(0.5, 1.0))
    assert spec.range == (0.5, 1.0) and size == 16


def test_a_checkpoint_of_a_published_network(tmp_path: Path) -> None:
    save(untrained_network("us_mobilenet_v1", classes=5), tmp_path / "v1.pt")
    spec, size = find_network(str(tmp_path / "v1.pt"), image_size=64, widths=(0.3, 1.0))
    assert isinstance(spec, NetworkSpec) and (spec.name, spec.classes, size, spec.range) == (
        "us_mobilenet_v1",
        5,
        64,
        (0.3, 1.0),
    )
    with pytest.raises(UserError, match=r"image size 16: us_mobilenet_v1 halves"):
        find_network(str(tmp_path / "v1.pt"), image_size=16)


def test_a_bundle_of_a_module_names_what_to_give(tmp_path: Path) -> None:
    content = as_json(artifact("a"), network="us_build", image_size=16, classes=5)
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"us_build was made of a module.*Name the checkpoint that it was exported from"):
        find_network(str(tmp_path))


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "a stem stride": (MODULE, {"stem_stride": 1}, "--stem-stride: is of published architectures"),
    "a mistyped name": ("torchvision:resnet81", {}, "did you mean 'resnet18'"),
    "no function": ("tests.support.traced_search:bild", {}, "did you mean 'build'"),
    "no such kind": ("us_mobilenet_v1", {"heads": "inner"}, "--heads: is of a module: torchvision:NAME"),
    "nothing": ("nowhere.pt", {}, "neither a network nor a bundle's folder .* a checkpoint or a module"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_network(case: str) -> None:
    name, options, message = WRONG[case]
    with pytest.raises(UserError, match=message):
        find_network(name, image_size=SIZE, **options)


def test_a_network_of_no_images_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.pt"
    rows = torch.nn.Sequential(torch.nn.Linear(12, 16), torch.nn.ReLU(), torch.nn.Linear(16, 7))
    save(make_slimmable(rows, torch.zeros(2, 12), name="rows"), path)
    with pytest.raises(UserError, match="us_rows: takes no images"):
        find_network(str(path))


def test_ranges_are_of_universally_slimmable_networks(tmp_path: Path) -> None:
    switches = make_slimmable(network("plain"), torch.zeros(2, 3, 16, 16), (0.5, 1.0), family="s", name="plain", check=False)
    save(switches, tmp_path / "s.pt")
    assert find_network(str(tmp_path / "s.pt"))[0].range == (0.5, 1.0)
    with pytest.raises(UserError, match="--range: s_plain has no range of widths"):
        find_network(str(tmp_path / "s.pt"), widths=(0.5, 0.9))
