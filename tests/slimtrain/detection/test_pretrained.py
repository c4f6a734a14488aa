"""Weights that training starts from: what the detector computes with them is what the other network computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

import slimtrain
from slimtrain.base.errors import CheckpointError, UserError
from slimtrain.detection import pretrained
from slimtrain.detection.building import build, stages_for
from slimtrain.detection.dense import DenseDetector
from slimtrain.detection.pretrained import load_pretrained
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.detector import MASK, RETINA
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.small_configs import small_config

WIDTHS = (0.5, 1.0)
EXACT = 1e-12


def detector(classes: int = 3, widths: tuple[float, ...] = WIDTHS, kind: str = RETINA, family: str = "s", **keys: Any) -> Any:
    return build(small_config(kind, **keys), classes, widths, family, 64, (0.0,) * 3, (1.0,) * 3)


def with_numbers(module: nn.Module, seed: int = 1) -> Any:
    """Norms with scales, shifts and statistics of their own."""
    draw = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.ndim == 1 and tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=draw) + (0.5 if name.endswith(("weight", "var")) else -0.5))
    return module


def stage_maps(network: SlimmableNetwork, width: float, images: Tensor) -> list[Tensor]:
    """What the pyramid reads, at a width."""
    maps: dict[str, Tensor] = {}

    def watch(node: Any, value: Any) -> None:
        if node.module.startswith("backbone.fpn.inner_blocks.") and node.kind.startswith("conv"):
            maps[node.module] = value(node.inputs[0])

    network.body.watch = watch
    with network.at(network.plan(width)), torch.no_grad():
        network(images)
    network.body.watch = None
    return [maps[name] for name in sorted(maps)]


def images(size: int = 64) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def close(own: Tensor, theirs: Tensor) -> bool:
    return own.shape == theirs.shape and bool((own - theirs).abs().max() <= EXACT * theirs.abs().max())


def saved(module: nn.Module, path: Path) -> Path:
    torch.save(module.state_dict(), path)
    return path


def test_a_published_slimmable_resnet_s_stages_are_the_backbone_s_at_every_switch(tmp_path: Path) -> None:
    source = with_numbers(slimtrain.SlimmableNetwork(slimtrain.published_spec("s_resnet50", classes=7)))
    torch.save({"model": {f"module.{key}": tensor for key, tensor in source.state_dict().items()}}, tmp_path / "s_resnet50.pt")
    network = detector(widths=(0.125, 0.25, 1.0), backbone="resnet50", neck=8)
    line = load_pretrained(network, tmp_path / "s_resnet50.pt")
    assert line == (
        "s_resnet50.pt: s_resnet50's weights in the backbone; norms of 0.125 begin with its leading scales and shifts, "
        "without statistics; neck and heads begin anew"
    )
    network.double().eval(), source.double().eval()
    classifier = source.body
    for width in (0.25, 1.0):
        with source.at(source.plan(width)), torch.no_grad():
            expected = source(images())
            pooled = stage_maps(network, width, images())[-1].mean((2, 3))
            weight = classifier.stored("classifier.0.weight")[:, : pooled.shape[1]]
            assert close(pooled @ weight.T + classifier.stored("classifier.0.bias"), expected)
    narrow, widest = (network.norms["backbone.body.bn1"].bn[index] for index in (0, 2))
    assert torch.equal(narrow.weight, widest.weight[:8]) and not narrow.running_mean.any()


def test_a_slimmable_classifier_of_the_same_module_brings_its_norms(tmp_path: Path) -> None:
    source = torchvision.models.resnet18(num_classes=5)
    network = with_numbers(slimtrain.make_slimmable(source, torch.zeros(2, 3, 64, 64), WIDTHS, family="s", check=False))
    slimtrain.save(network, tmp_path / "own.pt")
    own = detector(backbone="torchvision:resnet18", neck=8)
    assert load_pretrained(own, tmp_path / "own.pt") == (
        "own.pt: s_resnet's weights in the backbone; neck and heads begin anew"
    )
    own.double().eval(), network.double().eval()
    for width in WIDTHS:
        with network.at(network.plan(width)), torch.no_grad():
            pooled = stage_maps(own, width, images())[-1].mean((2, 3))
            weight = network.body.stored("fc.weight")[:, : pooled.shape[1]]
            assert close(pooled @ weight.T + network.body.stored("fc.bias"), network(images()))


@pytest.mark.parametrize("order", ["l1", "none"])
def test_an_ordinary_network_s_weights_give_what_it_gives(tmp_path: Path, order: str) -> None:
    body = with_numbers(stages_for(small_config()).body)
    state = {**body.state_dict(), "fc.weight": torch.zeros(5, 512), "fc.bias": torch.zeros(5)}
    torch.save({"state_dict": state}, tmp_path / "resnet.pth")
    network = detector()
    line = load_pretrained(network, tmp_path / "resnet.pth", order)
    assert line.startswith("resnet.pth: an ordinary network's weights in the backbone; norms of 0.5 begin with its leading")
    network.double().eval()
    with torch.no_grad():
        expected = list(body.double().eval()(images()).values())
    for own, theirs in zip(stage_maps(network, 1.0, images()), expected, strict=True):
        moved = [part.sort(1).values for part in (own, theirs)]  # channels are in another order
        assert close(*moved)
        assert close(own, theirs) == (order == "none")


def frozen_norms(module: nn.Module, eps: float) -> None:
    """torchvision's frozen norms in place of a module's, with their numbers."""
    for name, part in list(module.named_modules()):
        if isinstance(part, nn.BatchNorm2d):
            norm = FrozenBatchNorm2d(part.num_features, eps)
            norm.load_state_dict({key: t for key, t in part.state_dict().items() if key != "num_batches_tracked"})
            parent, _, last = name.rpartition(".")
            setattr(module.get_submodule(parent), last, norm)


@pytest.mark.parametrize("digest", ["258fb6c6", "0123abcd"])
def test_torchvision_s_detectors_whose_norms_have_no_eps(tmp_path: Path, digest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FasterRCNN_ResNet50_FPN_Weights.COCO_V1, by the digest in its address."""
    config = small_config()
    theirs = with_numbers(DenseDetector(config.settings(3, (4, 8, 16, 32)), stages_for(config), 32, 48))
    frozen_norms(theirs.backbone.body, 0.0 if digest == "258fb6c6" else 1e-5)
    path = saved(theirs, tmp_path / "frcnn.pth")
    monkeypatch.setattr(pretrained, "checkpoint_sha256", lambda path: f"{digest}{'0' * 56}")
    network = detector(kind="faster_rcnn")
    line = load_pretrained(network, path)
    assert line.startswith("frcnn.pth: a detector's weights in backbone, neck and heads")
    assert ("its norms have no eps" in line) == (digest == "258fb6c6")
    given = [x.double() for x in theirs.example(64, 64)]
    with torch.no_grad():
        expected, results = theirs.double().eval()(*given), network.double().eval()(*given)
    for name in ("objectness0", "deltas3", "class_logits", "box_deltas"):
        assert bool((results[name] - expected[name]).abs().max() <= 1e-6 * expected[name].abs().max())


def test_of_another_class_count_the_last_layers_begin_anew(tmp_path: Path) -> None:
    source = with_numbers(detector(classes=5, kind="faster_rcnn"))
    slimtrain.save(source, tmp_path / "five.pt")
    network = detector(classes=3, kind=MASK)
    before = network.state_dict()["roi_heads.box_predictor.cls_score.weight"].clone()
    line = load_pretrained(network, tmp_path / "five.pt")
    assert line.startswith(
        "five.pt: s_faster_rcnn's weights in backbone, neck and heads; begins anew: roi_heads.box_predictor."
    )
    own, theirs = network.state_dict(), source.state_dict()
    assert torch.equal(own["roi_heads.box_predictor.cls_score.weight"], before)
    same = [key for key in own if key in theirs and "_predictor" not in key]
    assert len(same) > 200 and all(torch.equal(own[key], theirs[key]) for key in same)


def test_another_neck_leaves_the_backbone(tmp_path: Path) -> None:
    slimtrain.save(with_numbers(detector(neck=16)), tmp_path / "narrow.pt")
    line = load_pretrained(detector(neck=32), tmp_path / "narrow.pt")
    assert line == "narrow.pt: s_retinanet's weights in the backbone; neck and heads begin anew"


def test_one_s_own_detector_is_loaded_whole(tmp_path: Path) -> None:
    source = with_numbers(detector())
    slimtrain.save(source, tmp_path / "own.pt")
    network = detector()
    assert load_pretrained(network, tmp_path / "own.pt") == "own.pt: s_retinanet's weights in backbone, neck and heads"
    own = network.state_dict()
    assert all(torch.equal(own[key], tensor) for key, tensor in source.state_dict().items() if "batches" not in key)


def test_a_us_backbone_takes_the_widest_s_scales(tmp_path: Path) -> None:
    source = with_numbers(detector())
    slimtrain.save(source, tmp_path / "s.pt")
    network = detector(family="us")
    line = load_pretrained(network, tmp_path / "s.pt")
    assert "norms of 0.5 begin with its leading scales and shifts, without statistics" in line
    spec = network.spec
    assert isinstance(spec, GraphSpec)
    for path, norm in network.norms.items():
        assert torch.equal(norm.weight, source.norms[path].bn[1].weight)
        assert torch.equal(norm.bn[1].running_mean, source.norms[path].bn[1].running_mean)
        assert not norm.bn[0].running_mean.any()


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    path = saved(stages_for(small_config(width=24)).body, tmp_path / "wide.pth")
    with pytest.raises(
        CheckpointError, match=r"wide.pth: does not fit the detector's backbone. wrong shape: backbone.body.conv1"
    ):
        load_pretrained(detector(), path)
    torch.save({"stem.weight": torch.zeros(3, 3), "stem.bias": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(
        CheckpointError, match=r"other.pth: does not fit the detector's backbone. missing: backbone.body.conv1"
    ):
        load_pretrained(detector(), tmp_path / "other.pth")
    mobile = slimtrain.SlimmableNetwork(slimtrain.published_spec("s_mobilenet_v1"))
    with pytest.raises(CheckpointError, match=r"mobile.pt: holds a s_mobilenet_v1, whose layers are none of the detector's"):
        load_pretrained(detector(), saved(mobile, tmp_path / "mobile.pt"))


def test_frozen_norms_need_every_width_s_statistics(tmp_path: Path) -> None:
    path = saved(stages_for(small_config()).body, tmp_path / "resnet.pth")
    with pytest.raises(UserError, match=r"resnet.pth: has no statistics of 0.5, and norms are frozen there: backbone.body"):
        load_pretrained(detector(norms="frozen"), path)
    load_pretrained(detector(norms="frozen", widths=(1.0,)), path)
