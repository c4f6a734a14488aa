"""Slimmable detectors: the module at their widest, the masked full network at other widths, costs by the layers' shapes."""

from __future__ import annotations

import copy
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from slimtrain.base.errors import UserError
from slimtrain.checkpoints.own_layout import read_own, save
from slimtrain.checkpoints.reading import read_content
from slimtrain.detection.backbones import resnet_stages, stages_of
from slimtrain.detection.dense import DenseDetector
from slimtrain.detection.making import ALL, BACKBONE, SLIMS, detector_policy, sized, slimmable_detector
from slimtrain.graph.policy import Policy
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.detector import FASTER, KINDS, MASK, RETINA, DetectorSettings, MaskSettings
from slimtrain.slimmable.graph_dense import stored_tensors
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.tracing.masked import masked
from slimtrain.tracing.report import groups_report
from tests.support.small_detectors import SIZE, small_detector, small_settings

EXACT = 1e-10


def relative(result: Tensor, expected: Tensor) -> float:
    return float((result - expected).abs().max() / expected.abs().max())


def with_statistics(network: SlimmableNetwork) -> SlimmableNetwork:
    """Every switch's norms with the leading statistics of the widest's."""
    widest = network.statistics(network.spec.plans[-1])
    for plan in network.spec.plans:
        for path, (mean, variance) in network.statistics(plan).items():
            mean.copy_(widest[path][0][: len(mean)])
            variance.copy_(widest[path][1][: len(variance)])
    return network


def slimmable(kind: str, slim: str) -> tuple[DenseDetector, SlimmableNetwork]:
    module = small_detector(kind)
    network = slimmable_detector(module, (0.5, 1.0), slim=slim, order="none", image_size=SIZE, check=False)
    return module.double(), with_statistics(network.double())


@pytest.mark.parametrize("slim", SLIMS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_width_is_the_masked_full_network(kind: str, slim: str) -> None:
    module, network = slimmable(kind, slim)
    spec = network.spec
    assert isinstance(spec, GraphSpec)
    given = [x.double() for x in module.example(96, 64, rois=7, mask_rois=3, images=3)]  # of another size, and more regions
    full = stored_tensors(network, network.plan(1.0))
    with torch.no_grad():
        for own, theirs in zip(network(*given).values(), module(*given).values(), strict=True):
            assert torch.allclose(own, theirs, rtol=0, atol=1e-11)
        results = network.dense(0.5)(*given)
        expected = masked(spec.sizing(network.plan(0.5)), given, full)
    assert list(results) == [name for name, _ in spec.graph.results]
    for (name, result), whole in zip(results.items(), expected, strict=True):
        narrow = name.startswith("map") and slim == ALL
        assert result.shape[1] == whole.shape[1] // (2 if narrow else 1)
        assert relative(result, whole[:, : result.shape[1]]) < EXACT, name
        assert not whole[:, result.shape[1] :].any()


def test_a_detector_is_checked_against_its_module() -> None:
    module = small_detector(FASTER)
    network = slimmable_detector(module, image_size=SIZE)
    assert network.spec.name == "s_faster_rcnn" and network.spec.plans[0].name == "x0_25"
    given = module.example(*SIZE, rois=3, images=1)
    with torch.no_grad():
        outputs, expected = network(*given), module(*given)
    for name, own in outputs.items():  # maps have their channels in the order of importance
        theirs = expected[name]
        assert relative(*((own.sum(1), theirs.sum(1)) if name.startswith("map") else (own, theirs))) < 1e-4


def test_in_training_every_weight_learns() -> None:
    network = slimmable_detector(small_detector(MASK).train(), (0.5, 1.0), image_size=SIZE, check=False)
    assert network.training
    outputs = network(*small_detector(MASK).example(*SIZE))
    sum((part**2).sum() for part in outputs.values()).backward()
    silent = [name for name, parameter in network.named_parameters() if parameter.grad is None and ".bn.0." not in name]
    assert not silent


def test_what_shrinks_together_is_said() -> None:
    for slim, groups in ((ALL, 18), (BACKBONE, 13)):
        network = slimmable(FASTER, slim)[1]
        spec = network.spec
        assert isinstance(spec, GraphSpec)
        report = groups_report(spec.name, spec.graph, spec.groups)
        assert report.startswith(f"s_faster_rcnn: {groups} channel groups, "), report
        names = [group.name for group in spec.groups.groups]
        assert ("backbone.fpn.inner_blocks.0.0" in names) == (slim == ALL)
        assert all(name.startswith("backbone.body.") for name in names) == (slim == BACKBONE)
        assert ("it is kept as it is" in report) == (slim == BACKBONE)


# Billions of MACs of the whole detector, 800x1344 pixels, 1,000 regions: by hand, from the layers' shapes.
BILLIONS = {
    ALL: {1.0: 215.9, 0.75: 122.1, 0.5: 54.8, 0.25: 14.1},
    BACKBONE: {1.0: 215.9, 0.75: 176.0, 0.5: 146.8, 0.25: 128.1},
}
MASK_BILLIONS = 53.0  # more with a mask head, at 100 detections and every width, where it is not slimmed
MILLIONS = {ALL: (41.8, 23.6, 10.6, 2.7), BACKBONE: (41.8, 31.2, 23.7, 19.0)}


@pytest.mark.parametrize("slim", SLIMS)
def test_the_published_detector_costs_what_its_layers_do(slim: str) -> None:
    module = DenseDetector(DetectorSettings(80, MASK, mask=MaskSettings()), resnet_stages())
    network = slimmable_detector(module, slim=slim, order="none", image_size=64, check=False)
    spec = network.spec
    assert isinstance(spec, GraphSpec)
    costs = {}
    for regions in (0, 100):
        whole = sized(spec, (800, 1344), rois=1000, mask_rois=regions or 1)
        costs[regions] = {width: whole.own_cost(whole.plan(width))[0] for width in BILLIONS[slim]}
    one = {width: (costs[100][width] - costs[0][width]) / 99 for width in costs[0]}  # of one region of the mask head
    for width, billions in BILLIONS[slim].items():
        assert round((costs[0][width] - one[width]) / 1e9, 1) == billions
        if slim == BACKBONE:
            assert round(100 * one[width] / 1e9) == MASK_BILLIONS
    weights = {name: tensor.numel() for name, tensor in module.named_parameters() if "roi_heads.mask" not in name}
    assert round(sum(weights.values()) / 1e6, 1) == MILLIONS[slim][0]


def test_costs_follow_regions_and_sizes_that_the_strides_divide() -> None:
    spec = slimmable(FASTER, ALL)[1].spec
    assert isinstance(spec, GraphSpec)
    macs = [sized(spec, SIZE, rois=count).own_cost(spec.widest)[0] for count in (4, 5, 6)]
    head = 32 * 49 * 48 + 48 * 48 + 48 * 5 * 4
    assert [b - a for a, b in pairwise(macs)] == [head, head] and macs[0] == spec.own_cost(spec.widest)[0]
    with pytest.raises(UserError, match="does not take such inputs"):
        sized(spec, (72, 96))


def test_a_checkpoint_holds_it(tmp_path: Path) -> None:
    module, network = slimmable(MASK, BACKBONE)
    save(network, tmp_path / "detector.pt")
    again = read_own(read_content(tmp_path / "detector.pt"), "detector.pt").double().eval()
    spec = again.spec
    assert isinstance(spec, GraphSpec) and spec.groups.policy == detector_policy(BACKBONE)
    given = [x.double() for x in module.example(*SIZE)]
    with torch.no_grad(), network.at(network.plan(0.5)), again.at(again.plan(0.5)):
        for own, theirs in zip(again(*given).values(), network(*given).values(), strict=True):
            assert torch.equal(own, theirs)


def test_any_classifier_s_stages_carry_a_detector() -> None:
    import torchvision

    torch.manual_seed(0)
    stages = stages_of(torchvision.models.mobilenet_v3_small(num_classes=5).eval())
    module = DenseDetector(small_settings(FASTER), stages, 16, 24).eval()
    network = slimmable_detector(copy.deepcopy(module), (0.5, 1.0), image_size=SIZE)  # checked
    spec = network.spec
    assert isinstance(spec, GraphSpec) and spec.own_cost(spec.plan(0.5))[0] < 0.5 * spec.own_cost(spec.widest)[0]


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(UserError, match="slim 'neck': expected one of all, backbone"):
        detector_policy("neck")
    assert detector_policy(ALL, Policy("inner")).heads == "inner"
    assert RETINA in KINDS
