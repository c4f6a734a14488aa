"""The published layout: keys, order and statistics as the published code has them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from slimtrain.base.errors import UserError
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.checkpoints.own_layout import described
from slimtrain.checkpoints.published_layout import published_content
from slimtrain.checkpoints.writing import save
from slimtrain.models.published import published_spec
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.run_helpers import AUTO, S2, US1, US2, calibrated_network, logits, mixed, network_of, raw
from tests.support.slimtrain_states import layout, layout_shapes

US1_PLAIN = NetworkSpec("mobilenet_v1", "us", (0.25, 0.5), 10, width_range=(0.25, 0.5))


def published(network: SlimmableNetwork, folder: Path) -> Path:
    save(published_content(network), folder / "published.pt")
    return folder / "published.pt"


def test_keys_and_shapes_are_those_that_were_published() -> None:
    """US-MobileNet v1 calibrated at its whole grid. Published files have it ascending, users' own files, as this one,
    begin with the ends of the range."""
    name = "us_mobilenet_v1"
    grid = layout(name)["switches"]
    spec = NetworkSpec("mobilenet_v1", "us", (0.25, 1.0), 1000, width_range=(0.25, 1.0))
    network = SlimmableNetwork(spec)
    order = [0.25, 1.0, *grid[1:-1]]
    for plan in map(spec.plan, order):
        network.set_statistics(
            plan, {path: (torch.zeros(plan.size(n.dim)), torch.ones(plan.size(n.dim))) for path, n in network.norms.items()}
        )
    stored = published_content(network)
    assert list(stored) == ["model"]
    shapes = layout_shapes(name)
    assert list(stored["model"]) == [f"module.{key}" for key in shapes]
    position = {i: grid.index(width) for i, width in enumerate(order)}  # ours -> that of the published file
    for key, value in stored["model"].items():
        bare = key.removeprefix("module.")
        head, norm, tail = bare.partition(".bn.")
        if norm:
            index, kind = tail.split(".")
            bare = f"{head}.bn.{position[int(index)]}.{kind}"
        assert tuple(value.shape) == shapes[bare], key
        assert (value.dtype == torch.int64) == key.endswith("num_batches_tracked")


@pytest.mark.parametrize("name", ["s_mobilenet_v2", "autoslim_mobilenet_v1"])
def test_networks_with_switches_are_stored_as_published(name: str) -> None:
    stored = published_content(SlimmableNetwork(published_spec(name)))["model"]
    assert {key.removeprefix("module."): tuple(value.shape) for key, value in stored.items()} == layout_shapes(name)
    assert list(stored) == [f"module.{key}" for key in layout_shapes(name)]


def test_us_statistics_come_in_the_order_range_then_further_widths(tmp_path: Path) -> None:
    spec = US1_PLAIN
    network = calibrated_network(spec, spec.plan(0.4), spec.plan(0.3))
    path = published(network, tmp_path)
    read = open_checkpoint(path)
    assert read.spec.switches == (0.25, 0.5, 0.4, 0.3) and read.spec.family == "us" and not read.described
    for width in (0.25, 0.5, 0.4, 0.3):
        assert torch.equal(logits(read.network, read.spec.plan(width)), logits(network, spec.plan(width)))
    state = raw(path)["model"]
    assert all(key.startswith("module.") for key in state)
    assert state["module.features.0.1.bn.3.num_batches_tracked"].dtype == torch.int64


def test_calibrated_statistics_take_the_place_of_those_from_training(tmp_path: Path) -> None:
    network = network_of(US1_PLAIN)
    before = published_content(network)["model"]["module.features.1.body.1.bn.0.running_mean"].clone()
    network = calibrated_network(US1_PLAIN)
    after = published_content(network)["model"]["module.features.1.body.1.bn.0.running_mean"]
    own = network.calibrated[US1_PLAIN.plan(0.25)]["features.1.body.1"][0]
    assert torch.equal(after, own) and not torch.equal(before, after)


def test_what_a_run_knows_of_its_images_travels_in_this_layout_too(tmp_path: Path) -> None:
    names = tuple(f"class {number}" for number in range(10))
    described_input = described(48, (0.25, 0.5, 0.75), (1, 2, 4), names)
    save(published_content(calibrated_network(US1_PLAIN), described_input), tmp_path / "published.pt")
    read = open_checkpoint(tmp_path / "published.pt")
    assert (read.image_size, read.mean, read.std) == (48, (0.25, 0.5, 0.75), (1, 2, 4))
    assert read.class_names == names and read.described
    (tmp_path / "app.yml").write_text("model: models.us_mobilenet_v1\nwidth_mult_range: [0.25, 0.5]\nimage_size: 64\n")
    assert open_checkpoint(tmp_path / "published.pt", config=tmp_path / "app.yml").image_size == 64  # which comes first
    for odd in ({"input": {"image_size": 48}}, {"input": "images"}, {"input": {**described_input["input"], "std": [0, 1, 1]}}):
        save(published_content(calibrated_network(US1_PLAIN), odd), tmp_path / "published.pt")
        assert not open_checkpoint(tmp_path / "published.pt").described  # of somebody else's code, it may be anything


@pytest.mark.parametrize("spec", [S2, AUTO], ids=["s", "autoslim"])
def test_switchable_norms_keep_their_own_scales(tmp_path: Path, spec: NetworkSpec) -> None:
    network = calibrated_network(spec)
    read = open_checkpoint(published(network, tmp_path))
    assert (read.spec.switches, read.spec.family) == (spec.switches, spec.family)
    own, stored = network.state_dict(), read.network.state_dict()
    assert list(own) == list(stored)
    for key, value in own.items():
        if not key.endswith(("running_mean", "running_var")):
            assert torch.equal(value, stored[key]), key
    if spec is AUTO:  # no tail is shared: all of the calibration fits in
        for plan in spec.plans:
            assert torch.equal(logits(read.network, plan), logits(network, plan))


@pytest.mark.parametrize("spec", [US2, S2], ids=["us", "s"])
def test_the_shared_tail_stays_as_training_left_it(tmp_path: Path, spec: NetworkSpec) -> None:
    network = calibrated_network(spec)
    tail = "features.18.1"
    trained = network_of(spec).state_dict()[f"{tail}.running_mean"]
    read = open_checkpoint(published(network, tmp_path)).network
    for plan in spec.plans:
        mean = read.statistics(plan)[tail][0]
        assert torch.equal(mean, trained)
        assert not torch.allclose(network.statistics(plan)[tail][0], mean, atol=1e-3)
        body = "features.17.body.7"
        assert torch.equal(read.statistics(plan)[body][0], network.statistics(plan)[body][0])
        assert not torch.allclose(logits(read, plan), logits(network, plan), atol=1e-3)


def test_what_the_layout_has_no_place_for_is_refused() -> None:
    with pytest.raises(UserError, match=r"stem stride of 1.*--layout own"):
        published_content(network_of(US1))
    with pytest.raises(UserError, match=r"no width describes \(mixed\).*--layout own"):
        published_content(calibrated_network(US1_PLAIN, mixed(US1_PLAIN)))


def test_the_ends_of_the_range_are_needed() -> None:
    """A US network that nobody trained or calibrated at its narrowest width."""
    network = SlimmableNetwork(US1_PLAIN).eval()  # statistics 0 and 1 everywhere: none
    wide = US1_PLAIN.plan(0.5)
    statistics = {p: (torch.ones(wide.size(n.dim)), torch.ones(wide.size(n.dim))) for p, n in network.norms.items()}
    network.set_statistics(wide, statistics)
    with pytest.raises(UserError, match="ends of the range"):
        published_content(network)
