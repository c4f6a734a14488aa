"""`pretrained`: weights, scales and statistics come over where networks agree, and nothing else does."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from slimtrain.base.errors import CheckpointError
from slimtrain.checkpoints.adopt import adopt
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.writing import save
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.run_helpers import (
    AUTO,
    S2,
    SPECS,
    US1,
    US2,
    calibrated_network,
    config,
    logits,
    network_of,
    noise,
    same_state,
)

PLAIN = NetworkSpec("mobilenet_v1", "us", (0.125, 0.25), 10, width_range=(0.125, 0.25))


def checkpoint(network: SlimmableNetwork) -> Checkpoint:
    return Checkpoint("theirs.pt", "0" * 64, network)


def adopted(spec: NetworkSpec, theirs: SlimmableNetwork, reset_classifier: bool = False) -> SlimmableNetwork:
    network = network_of(spec, seed=1)
    adopt(network, checkpoint(theirs), reset_classifier=reset_classifier)
    return network


def refusal(spec: NetworkSpec, theirs: NetworkSpec) -> str:
    network = network_of(spec, seed=1)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"^theirs\.pt: ") as caught:
        adopt(network, checkpoint(network_of(theirs)))
    same_state(before, network.state_dict())  # nothing was begun
    return str(caught.value)


@pytest.mark.parametrize("name", list(SPECS))
def test_of_the_same_network_everything_comes_over(name: str) -> None:
    spec = SPECS[name]
    theirs = network_of(spec)
    network = adopted(spec, theirs)
    same_state(theirs.state_dict(), network.state_dict())
    other = network_of(spec, seed=1)
    for plan in spec.plans:
        assert torch.equal(logits(network, plan), logits(theirs, plan))
        assert not torch.allclose(logits(network, plan), logits(other, plan), atol=1e-3)


@pytest.mark.parametrize("spec", [US1, S2, AUTO], ids=["us", "s", "autoslim"])
def test_calibrated_statistics_become_those_that_training_goes_on_from(spec: NetworkSpec) -> None:
    theirs = calibrated_network(spec)
    network = adopted(spec, theirs)
    assert network.calibrated == {}
    for plan in spec.plans:
        for path, pair in theirs.statistics(plan).items():
            if path != "features.18.1" or spec is not S2:  # of the shared tail there is one
                statistics = network.statistics(plan)[path]
                assert all(torch.equal(x, y) for x, y in zip(pair, statistics, strict=True)), (plan.name, path)


def test_the_source_is_left_as_it_was() -> None:
    theirs = network_of(US2)
    before = {key: value.clone() for key, value in theirs.state_dict().items()}
    network = adopted(US2, theirs)
    with torch.no_grad():
        for value in network.state_dict().values():
            value.zero_()
    same_state(before, theirs.state_dict())
    assert theirs.active == US2.widest


def test_switches_in_another_order_find_each_other() -> None:
    """Stored order is the files' business: scales and statistics go by the plan."""
    turned = dataclasses.replace(S2, switches=tuple(reversed(S2.switches)))
    theirs = network_of(turned)
    network = adopted(S2, theirs)
    for width in S2.switches:
        assert torch.equal(logits(network, S2.plan(width)), logits(theirs, turned.plan(width)))
    assert torch.equal(
        network.state_dict()["features.0.1.bn.0.weight"],  # 0.5 is the first here, the second there
        theirs.state_dict()["features.0.1.bn.1.weight"],
    )


def test_a_us_range_may_begin_elsewhere() -> None:
    """Weights come over; the new narrowest width has no statistics there and keeps what it began with."""
    theirs = network_of(dataclasses.replace(PLAIN, switches=(0.1875, 0.25), width_range=(0.1875, 0.25)))
    network = adopted(PLAIN, theirs)
    fresh = network_of(PLAIN, seed=1)
    wide, narrow = PLAIN.plan(0.25), PLAIN.plan(0.125)
    assert torch.equal(logits(network, wide), logits(theirs, theirs.spec.plan(0.25)))
    for path, pair in network.statistics(narrow).items():
        assert all(torch.equal(x, y) for x, y in zip(pair, fresh.statistics(narrow)[path], strict=True))
    assert torch.equal(network.get_parameter("features.3.body.1.weight"), theirs.get_parameter("features.3.body.1.weight"))


def test_statistics_of_0_and_1_are_none() -> None:
    """A file that was never calibrated: what the network has stays."""
    theirs = SlimmableNetwork(US1).eval()
    network = adopted(US1, theirs)
    fresh = network_of(US1, seed=1)
    for plan in US1.plans:
        pair, own = network.statistics(plan)["features.0.1"], fresh.statistics(plan)["features.0.1"]
        assert all(torch.equal(x, y) for x, y in zip(pair, own, strict=True))
    assert torch.equal(network.get_parameter("features.0.0.weight"), theirs.get_parameter("features.0.0.weight"))


def test_a_new_classifier_on_their_features() -> None:
    theirs = network_of(US1)
    spec = dataclasses.replace(US1, classes=4)
    network = adopted(spec, theirs, reset_classifier=True)
    fresh = network_of(spec, seed=1).state_dict()
    for key, value in network.state_dict().items():
        if key.startswith("classifier."):
            assert torch.equal(value, fresh[key])
        elif not key.endswith("num_batches_tracked"):
            assert torch.equal(value, theirs.state_dict()[key]), key
    same = adopted(US1, theirs, reset_classifier=True)  # also where the classes agree
    assert torch.equal(same.state_dict()["classifier.0.weight"], network_of(US1, seed=1).state_dict()["classifier.0.weight"])


def test_what_does_not_agree_is_refused_and_named() -> None:
    message = refusal(US1, US2)
    assert "holds a us_mobilenet_v2" in message and "trains a us_mobilenet_v1" in message
    assert "holds a autoslim_mobilenet_v1" in refusal(US1, AUTO)
    assert "stem stride 2, the configuration 1. Set stem_stride=2" in refusal(US1, PLAIN)
    wider = dataclasses.replace(PLAIN, switches=(0.125, 0.5), width_range=(0.125, 0.5))
    assert "has widths 0.125, 0.5, the configuration widths 0.125, 0.25" in refusal(PLAIN, wider)
    assert "set switches" in refusal(S2, dataclasses.replace(S2, switches=(0.25, 0.35, 0.5)))
    message = refusal(US1, dataclasses.replace(US1, classes=4))
    assert "has 4 classes, the data has 10" in message and "reset_classifier=true" in message


def test_autoslim_lists_must_agree() -> None:
    narrower = dataclasses.replace(AUTO, channel_lists=((8, 8, *(16,) * 12), AUTO.channel_lists[1]))
    assert "the configuration" in refusal(AUTO, narrower)


def test_a_run_starts_from_the_weights(tmp_path: Path) -> None:
    """With a learning rate of 0 all but the statistics stays what was read."""
    from slimtrain.checkpoints.checkpoint import open_checkpoint
    from slimtrain.training.run import train
    from tests.support.run_helpers import ALONE

    theirs = network_of(US1)
    save(own_content(theirs, 16, (0.5,) * 3, (0.25,) * 3), tmp_path / "theirs.pt")
    settings = config(
        tmp_path / "run", pretrained=str(tmp_path / "theirs.pt"), lr=0, epochs=1, calibration_batches=0, test_widths=[]
    )
    network = open_checkpoint(train(settings, ALONE)).network
    for key, value in network.named_parameters():
        assert torch.equal(value, theirs.get_parameter(key)), key
    plan: ChannelPlan = US1.plan(0.25)
    assert not torch.equal(network.statistics(plan)["features.0.1"][0], theirs.statistics(plan)["features.0.1"][0])
    assert torch.isfinite(network(noise(2, 16))).all()


@pytest.mark.parametrize("architecture", ["mobilenet_v1", "mobilenet_v2", "mnasnet", "resnet50", "shufflenet"])
@pytest.mark.parametrize("family", ["us", "s"])
def test_a_network_of_one_width_is_the_widest_of_any_family(architecture: str, family: str) -> None:
    """Whatever its norms are: switchable ones become shared scales, or those of every switch."""
    theirs = network_of(NetworkSpec(architecture, "s", (0.5,), 10))
    ranged = (0.25, 0.5) if family == "us" else None
    network = adopted(NetworkSpec(architecture, family, (0.25, 0.5), 10, width_range=ranged), theirs)
    plan = network.spec.widest
    assert torch.equal(logits(network, plan, 64), logits(theirs, plan, 64))
    with network.at(network.spec.plan(0.25)), theirs.at(plan):
        for path, norm in network.norms.items():
            for own, other in zip(norm.scale_and_shift(), theirs.norms[path].scale_and_shift(), strict=True):
                assert torch.equal(own, other[: len(own)]), path


def test_one_width_that_is_not_the_widest_is_refused() -> None:
    assert "holds a s_mobilenet_v1" in refusal(US1, NetworkSpec("mobilenet_v1", "s", (0.125,), 10, stem_stride=1))
    two = NetworkSpec("mobilenet_v1", "s", (0.25, 0.1875), 10, stem_stride=1)
    assert "the configuration trains a us_mobilenet_v1" in refusal(US1, two)
