"""Dense networks: ordinary torch.nn layers with storage of their own that compute what the slimmable network computes.

What they should hold is sliced here from the file's tensors, key by key, by the layout's rules alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import slimexport
from slimexport.dense import materialize
from slimtrain.base.errors import CheckpointError, WidthError
from slimtrain.checkpoints.checkpoint import Checkpoint, open_checkpoint
from slimtrain.checkpoints.layout import load_network
from slimtrain.data.noise import noise_images
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import NetworkSpec
from tests.support.export_helpers import State, opened, random_state, small_spec, write_checkpoint
from tests.support.module_layers import DenseLayers
from tests.support.specs import spec_of
from tests.support.state_files import read_state_dict

NETWORKS = (
    *("s_mobilenet_v1", "s_mobilenet_v2", "s_resnet50", "s_shufflenet", "us_mobilenet_v1", "us_mobilenet_v2"),
    *("autoslim_mobilenet_v1", "autoslim_mobilenet_v2", "autoslim_mnasnet", "autoslim_resnet50"),
)


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.from_numpy(noise_images(2, 64, 7)).to(dtype)


def built(spec: NetworkSpec, plan: ChannelPlan) -> nn.Module:
    """The architecture at a plan, of ordinary layers, without weights."""
    with torch.device("meta"):
        return spec.build(DenseLayers(plan)).eval()


def sliced(state: State, shapes: dict[str, torch.Size], index: int) -> State:
    """What the dense network of stored plan `index` should hold: the leading corner of every weight; of norms the
    plan's own tensors where the file has some, else the leading part of the shared ones."""
    result = {}
    for key, shape in shapes.items():
        path, _, name = key.rpartition(".")
        own = f"{path}.bn.{index}.{name}"
        tensor = state[own] if own in state else state[key]
        for axis, size in enumerate(shape):
            tensor = tensor.narrow(axis, 0, size)
        result[key] = tensor
    return result


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_the_files_tensors_sliced_and_of_the_slimmable_network(
    checkpoint_path: Callable[[str], Path], name: str
) -> None:
    checkpoint = opened(checkpoint_path(name))
    state = read_state_dict(checkpoint_path(name))
    plans = checkpoint.spec.plans
    for index in {0, len(plans) // 2, len(plans) - 1}:
        plan = plans[index]
        network = materialize(checkpoint, plan.width, fold=False)
        dense = built(spec_of(checkpoint), plan)
        expected_state = sliced(state, {key: tensor.shape for key, tensor in dense.state_dict().items()}, index)
        assert network.state_dict().keys() == expected_state.keys()
        for key, tensor in network.state_dict().items():
            if not key.endswith("num_batches_tracked"):
                assert torch.equal(tensor, expected_state[key]), key
        with torch.inference_mode(), checkpoint.network.at(plan):
            outputs = network(images())
            assert torch.equal(outputs, torch.func.functional_call(dense, expected_state, (images(),)))
            slimmable = checkpoint.network(images())
        assert torch.max(torch.abs(outputs - slimmable)) <= 1e-4 * torch.max(torch.abs(slimmable))


@pytest.mark.parametrize("name", ["us_mobilenet_v2", "s_shufflenet", "autoslim_mnasnet"])
def test_in_float64_the_folded_network_equals_the_slimmable_one_to_rounding(
    checkpoint_path: Callable[[str], Path], name: str
) -> None:
    checkpoint = open_checkpoint(checkpoint_path(name))
    checkpoint.network.double()
    for plan in (checkpoint.spec.plans[0], checkpoint.spec.plans[-1]):
        network = materialize(checkpoint, plan.width)
        with torch.inference_mode(), checkpoint.network.at(plan):
            outputs, expected = network(images(torch.float64)), checkpoint.network(images(torch.float64))
        assert torch.max(torch.abs(outputs - expected)) <= 1e-11 * torch.max(torch.abs(expected))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("fold", [True, False])
def test_every_module_with_weights_is_a_plain_torch_layer(
    checkpoint_path: Callable[[str], Path], name: str, fold: bool
) -> None:
    checkpoint = opened(checkpoint_path(name))
    network = materialize(checkpoint, checkpoint.spec.plans[0].width, fold=fold)
    kinds = {type(m) for m in network.modules() if [*m.parameters(recurse=False), *m.buffers(recurse=False)]}
    assert kinds == {nn.Conv2d, nn.Linear} | (set() if fold else {nn.BatchNorm2d})
    assert not network.training
    assert not any(module.training for module in network.modules())
    for module in network.modules():
        assert not type(module).__module__.startswith(("slimtrain", "slimexport"))


@pytest.mark.parametrize("name", ["s_mobilenet_v1", "us_mobilenet_v2", "autoslim_resnet50", "s_shufflenet"])
@pytest.mark.parametrize("fold", [True, False])
def test_every_tensor_has_storage_of_its_own_and_of_its_own_size(
    checkpoint_path: Callable[[str], Path], name: str, fold: bool
) -> None:
    checkpoint = opened(checkpoint_path(name))
    stored = [tensor.untyped_storage() for tensor in checkpoint.network.state_dict().values()]
    taken = {storage.data_ptr() for storage in stored}
    for plan in (checkpoint.spec.plans[0], checkpoint.spec.widest):  # at the widest a slice is the whole tensor
        if plan not in checkpoint.spec.plans:
            continue
        tensors = materialize(checkpoint, plan=plan, fold=fold).state_dict()
        for key, tensor in tensors.items():
            assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size(), key
            assert tensor.is_contiguous(), key
            assert tensor.untyped_storage().data_ptr() not in taken, key
        assert len({tensor.data_ptr() for tensor in tensors.values()}) == len(tensors)


def test_changing_the_dense_network_leaves_the_checkpoint_alone_and_the_other_way_round(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_checkpoint(tmp_path / "s.pt"))
    before = {key: tensor.clone() for key, tensor in checkpoint.network.state_dict().items()}
    first = materialize(checkpoint, 0.5)
    with torch.no_grad():
        expected = first(images())
        for parameter in materialize(checkpoint, 0.5).parameters():
            parameter.zero_()
        assert all(torch.equal(before[key], tensor) for key, tensor in checkpoint.network.state_dict().items())
        for parameter in checkpoint.network.parameters():
            parameter.zero_()
        assert torch.equal(first(images()), expected)


def test_the_active_plan_of_the_slimmable_network_is_as_before(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_checkpoint(tmp_path / "s.pt"))
    narrow, wide = checkpoint.spec.plans
    with checkpoint.network.at(narrow):
        expected = checkpoint.network(images())
        materialize(checkpoint, wide.width)
        assert torch.equal(checkpoint.network(images()), expected)


def test_a_path_an_opened_checkpoint_and_a_network_give_the_same(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "us.pt", small_spec("us"))
    checkpoint = open_checkpoint(path)
    given = (path, str(path), checkpoint, checkpoint.network)
    outputs = [materialize(source, 0.25)(images()) for source in given]
    outputs.append(materialize(path, plan=checkpoint.spec.plan(0.25))(images()))
    outputs.append(materialize(path, 0.25, network="us_mobilenet_v1", switches=[0.25, 0.5])(images()))
    assert all(torch.equal(output, outputs[0]) for output in outputs)


def test_the_library_functions_can_be_reached_again_and_again(tmp_path: Path) -> None:
    """A submodule of the same name must not take a function's place once it is imported."""
    path = write_checkpoint(tmp_path / "s.pt")
    for _ in range(2):
        assert isinstance(slimexport.materialize(path, width=0.25), nn.Module)
        assert callable(slimexport.export)


def test_random_gives_an_untrained_network_by_name() -> None:
    assert materialize("random:s_shufflenet", 0.5)(images()).shape == (2, 1000)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, None])
def test_dtype_is_that_of_every_weight(tmp_path: Path, dtype: torch.dtype | None) -> None:
    network = materialize(write_checkpoint(tmp_path / "s.pt"), 0.25, dtype=dtype)
    assert {parameter.dtype for parameter in network.parameters()} == {dtype or torch.float32}


def test_a_calibrated_plan_uses_its_own_statistics_even_where_the_layout_shares_them(tmp_path: Path) -> None:
    """MobileNet v2's tail norm is one for all widths until a width is calibrated."""
    spec = NetworkSpec("mobilenet_v2", "us", (0.35, 0.5), 10, width_range=(0.35, 0.5))
    network = load_network(spec, random_state(spec))
    plan = spec.plan(0.4)
    draw = torch.Generator().manual_seed(0)
    sizes = {path: m.num_features for path, m in built(spec, plan).named_modules() if isinstance(m, nn.BatchNorm2d)}
    statistics = {
        path: (torch.randn(n, generator=draw) * 0.1, torch.rand(n, generator=draw) + 0.5) for path, n in sizes.items()
    }
    with pytest.raises(WidthError):
        materialize(network, 0.4)
    network.set_statistics(plan, statistics)
    dense = materialize(network, 0.4, fold=False)
    for path, (mean, var) in statistics.items():
        norm = dense.get_submodule(path)
        assert torch.equal(norm.running_mean, mean) and torch.equal(norm.running_var, var)  # type: ignore[arg-type]
    tail = materialize(network, 0.5, fold=False).get_submodule("features.18.1")
    assert torch.equal(tail.running_mean, network.get_submodule("features.18.1").running_mean)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------ errors


def test_a_us_width_without_statistics_is_refused_by_name_of_the_file(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "mine.pt", small_spec("us"))
    with pytest.raises(WidthError, match=r"width 0\.3: mine\.pt has batch-norm statistics only for 0\.25, 0\.5\."):
        materialize(path, 0.3)


@pytest.mark.parametrize("width", [None, 0.3, 2.0, -1, float("nan"), "wide"])
def test_a_width_that_there_is_not_is_refused(tmp_path: Path, width: object) -> None:
    with pytest.raises(WidthError):
        materialize(write_checkpoint(tmp_path / "s.pt"), width)  # type: ignore[arg-type]


def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        materialize(tmp_path / "none.pt", 0.5)


def test_a_plan_that_is_none_of_an_s_networks_switches_is_refused(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_checkpoint(tmp_path / "s.pt"))
    channels = {**checkpoint.spec.plans[0].channels, "features.5": 8}
    with pytest.raises(WidthError, match="plan odd"):
        materialize(checkpoint, plan=ChannelPlan("odd", channels))


def test_checkpoint_is_a_type_one_may_build_oneself() -> None:
    spec = small_spec()
    checkpoint = Checkpoint("mine", None, load_network(spec, random_state(spec)))
    assert materialize(checkpoint, 0.5)(images()).shape == (2, 10)
