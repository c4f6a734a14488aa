"""Two and four processes against one: the same step, the same test results, the same calibration."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from slimtrain.base.errors import ResourceError, UserError
from slimtrain.config.config import Config
from slimtrain.config.reading import make_config
from slimtrain.data.datasets import Data
from slimtrain.data.fake import FakeSamples
from slimtrain.data.loader import test_batches as batches_of
from slimtrain.data.loader import training_batches
from slimtrain.models.spec import NetworkSpec
from slimtrain.training.distributed import Processes, choose_device, processes
from slimtrain.training.evaluate import Scores, calibrate_on, evaluate
from slimtrain.training.inputs import RunImages
from slimtrain.training.optimizer import sgd
from slimtrain.training.run import Run
from slimtrain.training.sampling import WidthSampler
from slimtrain.training.step import Gradients, Stepper
from tests.support.slimtrain_processes import CountingAllReduce, alone, in_processes
from tests.support.slimtrain_states import State, images, network_of, random_state
from tests.support.specs import spec_of

SPECS = {
    "us": NetworkSpec("mobilenet_v1", "us", (0.25, 0.5), 10, width_range=(0.25, 0.5), stem_stride=1),
    "s": NetworkSpec("mobilenet_v2", "s", (0.2, 0.35), 10, stem_stride=1),
    "shuffle": NetworkSpec("shufflenet", "s", (0.25, 0.5), 10, stem_stride=1),  # branches within a block
}
TOTAL = 16
SIZE = 16  # pixels; the last layers see one value per image and channel
Outcome = dict[str, Any]


def share(joined: Processes, total: int) -> slice:
    """A process's images of a batch of `total`: unequal where it cannot be divided."""
    return slice(joined.rank * total // joined.world, (joined.rank + 1) * total // joined.world)


def one_step(joined: Processes, name: str, options: dict[str, Any]) -> Outcome:
    """Gradients, losses and statistics of one step, and what was summed over processes for it."""
    sampler = WidthSampler(SPECS[name], sandwich=3)
    state = random_state(spec_of(sampler))
    if options["dtype"] == torch.float32:
        state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    network = network_of(spec_of(sampler), state)
    synchronized = options["synchronized"]
    network.synchronize(synchronized and joined.world > 1)
    gradients = Gradients(network, sampler.count, joined, synchronized)
    steps = Stepper(
        network,
        sgd(network, 0.1, 0.9, True, 1e-4),
        gradients,
        smoothing=0.1,
        distill=True,
        amp="none",
        parts=options.get("parts", 1),
    )
    total = options.get("total", TOTAL)
    own = share(joined, total)
    x, labels = images(total, SIZE).to(options["dtype"])[own], (torch.arange(total) % 10)[own]
    with CountingAllReduce() as counted:
        losses = steps.compute(sampler(0), x, labels, total).clone()
    grads = {key: p.grad.clone() for key, p in network.named_parameters() if p.grad is not None}
    steps.apply(0.05)
    after = {key: value.clone() for key, value in network.state_dict().items()}
    return {"losses": losses, "gradients": grads, "after": after, "sums": counted.sizes, "flat": gradients.flat.numel()}


def distance(actual: State, expected: State) -> float:
    """The largest difference of any tensor, relative to that tensor's largest entry, or to a thousandth of the largest of
    all: weights before a norm may have gradients of rounding alone."""
    scale = max(float(value.abs().max()) for value in expected.values())
    distances = [
        float((actual[key] - value).abs().max()) / max(float(value.abs().max()), 1e-3 * scale)
        for key, value in expected.items()
    ]
    assert actual.keys() == expected.keys()
    return max(distances)


def floating(state: State) -> State:
    return {key: value for key, value in state.items() if value.is_floating_point()}


@pytest.mark.parametrize(
    ("name", "world", "total"),
    [
        ("us", 2, 16),
        ("us", 4, 11),  # shares of 2, 3, 3 and 3 images
        ("s", 2, 7),
        ("shuffle", 2, 8),
    ],
)
def test_with_norms_synchronized_a_step_is_that_of_one_process(name: str, world: int, total: int) -> None:
    options = {"dtype": torch.float64, "synchronized": True, "total": total}
    expected = one_step(alone(), name, options)
    outcomes = in_processes(world, one_step, name, options)
    distances = {
        "gradients": max(distance(m["gradients"], expected["gradients"]) for m in outcomes),
        "weights and statistics": max(distance(floating(m["after"]), floating(expected["after"])) for m in outcomes),
        "losses": max(float((m["losses"] / expected["losses"] - 1).abs().max()) for m in outcomes),
    }
    print(f"{name}, {world} processes, {total} images: {distances}")
    assert max(distances.values()) < 1e-10
    for m in outcomes[1:]:
        assert all(torch.equal(value, outcomes[0]["after"][key]) for key, value in m["after"].items())


def test_in_float32_processes_are_as_near_to_the_truth_as_one_is() -> None:
    """Rounding grows over 27 layers of random weights, with and without processes: float64 tells what is right."""
    options = {"dtype": torch.float32, "synchronized": True}
    truth = one_step(alone(), "us", {**options, "dtype": torch.float64})["gradients"]
    single, outcomes = one_step(alone(), "us", options), in_processes(2, one_step, "us", options)[0]
    errors = []
    for gradients in (single["gradients"], outcomes["gradients"]):
        difference = torch.cat([(gradients[key].double() - value).flatten() for key, value in truth.items()])
        errors.append(float(difference.norm() / torch.cat([value.flatten() for value in truth.values()]).norm()))
    print(f"float32 against float64, one process and two: {errors}")
    assert errors[1] < 4 * errors[0] < 0.2
    assert outcomes["losses"].tolist() == pytest.approx(single["losses"].tolist(), rel=1e-5)
    classifier = "classifier.0.weight"
    assert distance({"": outcomes["gradients"][classifier]}, {"": single["gradients"][classifier]}) < 1e-4


def test_without_synchronization_one_sum_per_step_carries_everything() -> None:
    options = {"dtype": torch.float64, "synchronized": False, "parts": 2}
    for name, world in (("us", 2), ("s", 4)):
        for m in in_processes(world, one_step, name, options):
            assert m["sums"] == [m["flat"]]


def one_share(joined: Processes, name: str, world: int, rank: int) -> Outcome:
    """What process `rank` of `world` would make by itself: its gradients, and its own statistics."""
    sampler = WidthSampler(SPECS[name], sandwich=3)
    network = network_of(spec_of(sampler), random_state(spec_of(sampler)))
    gradients = Gradients(network, sampler.count, joined, synchronized=False)
    steps = Stepper(network, sgd(network, 0, 0.9, True, 0), gradients, smoothing=0.1, distill=True, amp="none")
    own = share(Processes(rank, world, joined.device), TOTAL)
    losses = steps.compute(sampler(0), images(TOTAL, SIZE)[own], (torch.arange(TOTAL) % 10)[own], TOTAL).clone()
    grads = {key: p.grad.clone() for key, p in network.named_parameters() if p.grad is not None}
    statistics = {key: b.clone() for key, b in network.named_buffers()}
    return {"gradients": grads, "statistics": statistics, "losses": losses}


@pytest.mark.parametrize(("name", "world"), [("us", 2), ("s", 4)])
def test_without_synchronization_gradients_add_up_and_statistics_are_the_mean(name: str, world: int) -> None:
    outcomes = in_processes(world, one_step, name, {"dtype": torch.float64, "synchronized": False})
    shares = [one_share(alone(), name, world, rank) for rank in range(world)]
    total = {key: torch.stack([s["gradients"][key] for s in shares]).sum(0) for key in shares[0]["gradients"]}
    for m in outcomes:
        assert distance(m["gradients"], total) < 1e-12
        torch.testing.assert_close(m["losses"], torch.stack([s["losses"] for s in shares]).sum(0), rtol=1e-12, atol=0)
        for key, value in shares[0]["statistics"].items():
            own = torch.stack([s["statistics"][key] for s in shares])
            if key.endswith("num_batches_tracked"):
                assert int(m["after"][key]) == int(value) == (1 if ".bn." in key else 2)  # the tail sees both switches
                continue
            if key.endswith("running_var"):  # every process saw other images
                assert float((own[0] - own[1]).abs().max()) > 1e-6
            torch.testing.assert_close(m["after"][key], own.mean(0), rtol=1e-12, atol=1e-13)
        assert all(torch.equal(value, outcomes[0]["after"][key]) for key, value in m["after"].items())


# -------------------------------------------------------------------------------------------------------------- testing

WIDTHS = (0.25, 0.5)


def scored(joined: Processes, count: int, batch_size: int) -> list[Scores]:
    spec = SPECS["us"]
    network = network_of(spec, random_state(spec)).float()
    batches = batches_of(
        FakeSamples(count, 10, SIZE, "test"), as_float, batch_size=batch_size, rank=joined.rank, world=joined.world
    )
    return evaluate(network, [spec.plan(w) for w in WIDTHS], (batch.labeled for batch in batches), joined)


def as_float(image: Any) -> Tensor:
    tensor: Tensor = image.float() / 128 - 1
    return tensor


@pytest.mark.parametrize(("count", "world", "batch_size"), [(11, 4, 8), (11, 2, 3), (3, 4, 4)])
def test_every_image_is_tested_once_however_uneven_the_shares(count: int, world: int, batch_size: int) -> None:
    expected = scored(alone(), count, 5)
    outcomes = in_processes(world, scored, count, batch_size)
    for results in outcomes:
        assert results == outcomes[0]
        for result, single in zip(results, expected, strict=True):
            assert result.images == single.images == count
            assert (result.top1, result.top5) == (single.top1, single.top5)
            assert result.loss == pytest.approx(single.loss, rel=1e-6)
    assert expected[0].loss != pytest.approx(expected[1].loss, rel=1e-4)


# ---------------------------------------------------------------------------------------------------------- calibration


def config(**changes: Any) -> Config:
    values = {
        **{"network": "us_mobilenet_v1", "width_range": [0.25, 0.5], "stem_stride": 1, "data": "fake", "image_size": SIZE},
        **{
            "augmentation": "none",
            "workers": 0,
            "device": "cpu",
            "batch_size": 6,
            "epochs": 1,
            "sandwich": 3,
            "distill": True,
        },
        **{"calibration_batches": 3, "schedule": "linear", "lr": 0.02, "nesterov": True},
    }
    return make_config({**values, **changes}, "test")


def data(count: int, size: int = SIZE) -> Data:
    return Data(FakeSamples(count, 10, size, "train"), FakeSamples(9, 10, size, "test"), tuple(map(str, range(10))))


def calibrated(joined: Processes, dtype: torch.dtype) -> list[dict[str, tuple[Tensor, Tensor]]]:
    spec = SPECS["us"]
    network = network_of(spec, random_state(spec)).to(dtype)
    plans = [spec.plan(width) for width in (0.25, 0.5, 0.4)]
    network.register_forward_pre_hook(lambda module, inputs: (inputs[0].to(dtype),))
    calibrate_on(network, plans, RunImages(config(batch_size=7), data(31), joined).calibrating(), joined)
    assert not any(norm.synchronized for norm in network.norms.values())
    return [network.statistics(plan) for plan in plans]


@pytest.mark.parametrize(("world", "dtype", "tolerance"), [(2, torch.float64, 1e-10), (3, torch.float32, 1e-3)])
def test_calibration_does_not_depend_on_the_number_of_processes(world: int, dtype: torch.dtype, tolerance: float) -> None:
    expected = calibrated(alone(), dtype)
    worst = 0.0
    for statistics in in_processes(world, calibrated, dtype):
        for plan, single in zip(statistics, expected, strict=True):
            for key in (0, 1):
                worst = max(worst, distance({p: s[key] for p, s in plan.items()}, {p: s[key] for p, s in single.items()}))
    print(f"calibration, {world} processes, {dtype}: {worst}")
    assert worst < tolerance


# -------------------------------------------------------------------------------------------------------------- training


def trained(joined: Processes, options: dict[str, Any]) -> Outcome:
    """All steps of a run over 13 images, in float64."""
    chosen = config(drop_last=False, **options)
    run = Run(chosen, joined, data(13, 32))
    trainer, network = run.trainer, run.trainer.network
    network.double()
    network.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))
    gradients = Gradients(network, trainer.sampler.count, joined, chosen.sync_norm)  # of the weights as they are now
    trainer.optimizer = sgd(network, chosen.lr, chosen.momentum, chosen.nesterov, chosen.weight_decay)
    trainer.stepper = Stepper(
        network, trainer.optimizer, gradients, smoothing=0, distill=chosen.distill, amp="none", parts=chosen.accumulate
    )
    batches = training_batches(
        run.images.data.train,
        as_float,
        epochs=chosen.epochs,
        batch_size=chosen.batch_size,
        seed=chosen.seed,
        drop_last=False,
        rank=joined.rank,
        world=joined.world,
    )
    losses, sizes = [], []
    for batch in batches:
        sizes.append(len(batch.labels))
        losses.append(run.train_step(batch))
    return {"after": dict(network.state_dict()), "losses": torch.stack(losses), "sizes": sizes, "steps": run.state.step}


def test_a_run_over_short_batches_is_that_of_one_process() -> None:
    options = {"batch_size": 5, "sync_norm": True, "sandwich": 3}
    expected = trained(alone(), options)
    assert expected["sizes"] == [5, 5, 3]
    outcomes = in_processes(2, trained, options)
    assert [m["sizes"] for m in outcomes] == [[2, 2, 1], [3, 3, 2]]
    difference = max(distance(floating(m["after"]), floating(expected["after"])) for m in outcomes)
    losses = max(float((m["losses"] / expected["losses"] - 1).abs().max()) for m in outcomes)
    print(f"3 steps, 2 processes: weights and statistics {difference}, losses {losses}")
    assert expected["steps"] == 3 and bool((expected["losses"][-1] != expected["losses"][0]).all())
    assert max(difference, losses) < 1e-7


# ---------------------------------------------------------------------------------------------------------- environment


def joined_as(joined: Processes) -> tuple[int, int, bool, float]:
    summed = float(joined.sum(torch.tensor(float(joined.rank + 1))))
    joined.wait()
    return joined.rank, joined.world, joined.first, summed


def test_processes_know_their_place_and_sum() -> None:
    assert in_processes(3, joined_as) == [(0, 3, True, 6.0), (1, 3, False, 6.0), (2, 3, False, 6.0)]


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(key, raising=False)
    with processes("cpu") as joined, CountingAllReduce() as counted:
        assert joined == Processes(0, 1, torch.device("cpu"))
        assert joined.first
        value = torch.tensor([2.0])
        assert joined.sum(value) is value
        joined.wait()
    assert counted.sizes == [] and not torch.distributed.is_initialized()


def test_an_environment_that_torchrun_did_not_make_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UserError, match="WORLD_SIZE='two' in the environment"), processes("cpu"):
        pass


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto", 3) == choose_device("cpu", 3) == torch.device("cpu")
    with pytest.raises(ResourceError, match="device cuda"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto", 1) == choose_device("cuda", 1) == torch.device("cuda", 1)
    assert choose_device("cpu", 1) == torch.device("cpu")
    with pytest.raises(ResourceError, match="process 2 of this machine has no GPU of its own: 2 are here"):
        choose_device("auto", 2)


def failing(joined: Processes) -> None:
    if joined.rank == 1:
        raise RuntimeError("only here")


def test_a_failure_in_one_process_reaches_the_test() -> None:
    with pytest.raises(AssertionError, match=r"process 1: [^$]*only here"):
        in_processes(2, failing)
