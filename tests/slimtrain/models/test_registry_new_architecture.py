"""A new architecture made of known blocks is one class and one line of the registry: everything else works on it.

The one here has what is peculiar to the others: a residual block, bottlenecks with and without a shortcut, a group that
several blocks share, and a tail that only AutoSlim slims.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import onnxruntime
import pytest
import torch

from slimexport.dense import dense_network
from slimexport.exporter import export
from slimtrain.base.errors import CheckpointError, UserError
from slimtrain.checkpoints.checkpoint import Checkpoint, open_checkpoint
from slimtrain.checkpoints.identify import identify
from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.published_layout import published_content
from slimtrain.checkpoints.writing import save
from slimtrain.config.reading import make_config
from slimtrain.costs.cost import CostCounter
from slimtrain.costs.cost_model import cost_model
from slimtrain.models.architecture import Architecture, ChannelList, Layers, M, check_lengths
from slimtrain.models.channels import Dim, Wiring, make_divisible
from slimtrain.models.registry import ARCHITECTURES, network_names, sibling
from slimtrain.models.spec import NetworkSpec
from slimtrain.search.evaluator import Evaluator
from slimtrain.search.greedy import run_search
from slimtrain.search.slimming import Slimming
from tests.support.dense_costs import measured_cost
from tests.support.run_helpers import ALONE, TINY, calibrated_network, logits, network_of, noise, same_state
from tests.support.search_toys import brute_force, known_chunks
from tests.support.slimtrain_states import empty_state, gap
from tests.support.specs import spec_of

GROUPS = ("stem", "mid", "stage", "stage", "tail")
COUNTS = (32, 96, 160, 160, 64)  # no two widths in steps of 0.05 have the same


class Toy(Architecture):
    name, title = "toy", "Toy"
    stride = 4

    def channel_list(self, family: str, width: float, widest: float = 1.0) -> tuple[int, ...]:
        *slimmed, tail = COUNTS
        return (*(make_divisible(count * width) for count in slimmed), make_divisible(tail * max(widest, 1.0)))

    def wire(self, lists: Sequence[ChannelList]) -> Wiring:
        check_lengths(self.name, lists, len(GROUPS))
        return Wiring(GROUPS, ())

    def build(self, layers: Layers[M], wiring: Wiring, classes: int, stem_stride: int = 2) -> M:
        stem, mid, stage, tail = map(Dim.of, dict.fromkeys(GROUPS))
        added = [layers.depthwise(stem, 3), layers.norm(stem), layers.relu6(), layers.conv(stem, stem, 1), layers.norm(stem)]
        first = [layers.conv(stem, mid, 3, 2), layers.norm(mid), layers.relu(), layers.conv(mid, stage, 1), layers.norm(stage)]
        second = [layers.conv(stage, stage, 3), layers.norm(stage)]
        features = [
            layers.unit(3, stem, 3, stride=stem_stride, act=layers.relu6()),
            layers.block(layers.sequential(added), residual=True),
            layers.bottleneck(
                layers.sequential(first), layers.sequential([layers.conv(stem, stage, 1, 2), layers.norm(stage)])
            ),
            layers.bottleneck(layers.sequential(second), None),
            layers.unit(stage, tail, 1, act=layers.relu6()),
        ]
        return layers.network(features, tail, classes)

    def fixed_groups(self, family: str) -> frozenset[str]:
        return frozenset() if family == "autoslim" else frozenset({"tail"})


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, "toy", Toy())


US = NetworkSpec("toy", "us", (0.5, 1.0), 6, width_range=(0.5, 1.0))
S = NetworkSpec("toy", "s", (0.5, 0.75, 1.0), 6)
AUTOSLIM = NetworkSpec("toy", "autoslim", (1, 2), 6, ((8, 16, 24, 24, 48), (16, 24, 32, 32, 64)))


def test_it_has_names_a_configuration_and_a_place_in_messages() -> None:
    assert [name for name in network_names() if name.endswith("toy")] == ["s_toy", "us_toy", "autoslim_toy"]
    assert sibling("us_toy", "autoslim") == "autoslim_toy"
    config = make_config(
        {**TINY, "network": "us_toy", "output_dir": "run", "width_range": [0.5, 1.0], "test_widths": []}, "toy"
    )
    assert config.spec(6).wiring == US.wiring and config.spec(6).range == (0.5, 1.0)
    with pytest.raises(UserError, match=r"did you mean 'us_toy'"):
        make_config({**TINY, "network": "us_toyy", "output_dir": "run"}, "toy")
    with pytest.raises(CheckpointError, match="ResNet, ShuffleNet or Toy of the slimmable families"):
        identify({"a": torch.ones(3)}, "a.pt")


@pytest.mark.parametrize("spec", [US, S, AUTOSLIM], ids=lambda spec: spec.name)
def test_costs_are_those_of_the_network_that_runs(spec: NetworkSpec) -> None:
    for plan in spec.plans:
        assert CostCounter(spec, 48)(plan) == measured_cost(spec, plan, 48)


@pytest.mark.parametrize("spec", [US, S, AUTOSLIM], ids=lambda spec: spec.name)
def test_its_state_dict_is_identified(spec: NetworkSpec) -> None:
    assert identify(empty_state(spec), "weights.pt") == spec
    assert ("features.4.1.weight" in empty_state(spec)) == (spec.family != "autoslim")  # the tail's norm: one for all widths


@pytest.mark.parametrize("spec", [US, S, AUTOSLIM], ids=lambda spec: spec.name)
def test_checkpoints_dense_networks_and_verified_onnx_files(spec: NetworkSpec, tmp_path: Path) -> None:
    network = calibrated_network(spec, *([spec.mixed_plan("mixed", [0.5, 1.0, 0.75, 0.75, 1.0])] if spec == US else []))
    save(own_content(network, 32, (0.5,) * 3, (0.25,) * 3), tmp_path / "own.pt")
    checkpoint = open_checkpoint(tmp_path / "own.pt")
    assert checkpoint.spec == spec
    for plan in network.known_plans:
        expected = logits(network, plan)
        with torch.inference_mode():
            torch.testing.assert_close(dense_network(checkpoint.network, plan)(noise(3, 32, 9)), expected)
    manifest = export(checkpoint, output_dir=tmp_path / "bundle")
    assert len(manifest.artifacts) == len(network.known_plans)
    for artifact in manifest.artifacts:
        assert artifact.verification.status == "passed"
        session = onnxruntime.InferenceSession(tmp_path / "bundle" / artifact.file, providers=["CPUExecutionProvider"])
        plan = next(plan for plan in network.known_plans if plan.name == artifact.name.removeprefix(f"{spec.name}_"))
        answer = torch.from_numpy(session.run(None, {"input": noise(3, 32, 9).numpy()})[0])
        assert gap(answer, logits(network, plan)) < 1e-4


@pytest.mark.parametrize("spec", [S, AUTOSLIM], ids=lambda spec: spec.name)
def test_the_published_layout_holds_it_too(spec: NetworkSpec, tmp_path: Path) -> None:
    network = network_of(spec)
    torch.save(published_content(network), tmp_path / "published.pt")
    again = open_checkpoint(tmp_path / "published.pt")
    assert again.spec == spec
    same_state(again.network.state_dict(), network.state_dict())


def test_an_untrained_one_can_be_tried_out() -> None:
    checkpoint: Checkpoint = open_checkpoint("random:us_toy")
    assert spec_of(checkpoint).architecture == "toy" and checkpoint.network.has_statistics(spec_of(checkpoint).plan(0.5))


def test_a_search_slims_it_step_by_step_and_shares_what_candidates_have_in_common() -> None:
    network = network_of(US)
    chunks = known_chunks(network)
    slimming, cost = Slimming(US, 2), cost_model("macs", US, 32)
    evaluator = Evaluator(network, chunks, ALONE, channels_last=False)
    candidates = slimming.steps(slimming.start)
    assert [plan.name.rpartition("_")[0] for plan in candidates] == ["stem", "mid", "stage"]  # the tail is fixed
    for plan, result in zip(candidates, evaluator(slimming.start, candidates), strict=True):
        expected = brute_force(network, plan, chunks)
        assert result.error == expected.error and result.loss == pytest.approx(expected.loss, rel=1e-4)
    best = min(candidates, key=lambda plan: dataclasses.astuple(brute_force(network, plan, chunks)))  # error, then loss
    target = max(cost(plan) for plan in candidates)  # which any step meets
    (outcome,) = run_search(network, slimming, cost, [target], evaluator, image_size=32)
    assert (outcome.plan, outcome.step) == (best, 1)
