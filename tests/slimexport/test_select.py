"""Which plans are exported: widths, budgets and plan files, each plan once, each refusal with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from slimexport.select import select_plans, widest_within
from slimtrain.base.errors import BudgetError, UserError, WidthError
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.checkpoints.layout import load_network
from slimtrain.costs.cost import CostCounter
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.plan_file import read_plan_file
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.export_helpers import random_state, small_spec


def checkpoint(family: str) -> Checkpoint:
    spec = small_spec(family)
    return Checkpoint("small.pt", "0" * 64, load_network(spec, random_state(spec)))


@pytest.fixture(scope="module")
def us() -> Checkpoint:
    return checkpoint("us")


@pytest.fixture(scope="module")
def s() -> Checkpoint:
    return checkpoint("s")


@pytest.fixture(scope="module")
def autoslim() -> Checkpoint:
    from slimtrain.models.published import published_spec

    spec = published_spec("autoslim_mobilenet_v1", classes=10)
    with torch.device("meta"):
        return Checkpoint("auto.pt", "0" * 64, SlimmableNetwork(spec))


def select(source: Checkpoint, *, calibrating: bool = False, **asked: list[object]) -> list[ChannelPlan]:
    chosen = {"widths": None, "budgets": [], "files": [], **asked}
    return select_plans(source, count=CostCounter(source.spec, 224), calibrating=calibrating, **chosen)  # type: ignore[arg-type]


def macs(source: Checkpoint, plan: ChannelPlan) -> int:
    return CostCounter(source.spec, 224)(plan).macs


def test_without_a_wish_every_width_with_statistics_comes_narrowest_first(us: Checkpoint, autoslim: Checkpoint) -> None:
    assert [plan.width for plan in select(us)] == [0.25, 0.5]
    assert [plan.name for plan in select(autoslim)] == ["s1", "s2", "s3"]


def test_wishes_add_up_and_a_plan_that_is_asked_for_twice_comes_once(s: Checkpoint) -> None:
    plans = select(s, widths=[0.5, 0.5, 0.25], budgets=[200_000_000])
    assert [plan.name for plan in plans] == ["x0_5", "x0_25"]


def test_a_us_width_without_statistics_is_refused_with_the_known_ones_and_the_way_out(us: Checkpoint) -> None:
    with pytest.raises(WidthError) as error:
        select(us, widths=[0.33])
    assert str(error.value) == (
        "width 0.33: small.pt has batch-norm statistics only for 0.25, 0.5. "
        "Calibrate with --calibration-data FOLDER, or choose from these."
    )
    assert [plan.width for plan in select(us, widths=[0.33], calibrating=True)] == [0.33]


@pytest.mark.parametrize("width", [0.2, 0.51, 1.0, float("inf")])
def test_a_width_outside_the_range_is_refused_even_with_calibration(us: Checkpoint, width: float) -> None:
    with pytest.raises(WidthError, match=r"0\.25 to 0\.5"):
        select(us, widths=[width], calibrating=True)


@pytest.mark.parametrize("width", [0.3, 0.24999, 2])
def test_an_s_network_has_its_switches_and_nothing_between(s: Checkpoint, width: float) -> None:
    with pytest.raises(WidthError, match=r"0\.25, 0\.5"):
        select(s, widths=[width], calibrating=True)


@pytest.mark.parametrize("switch", [0, 4, 1.5, -1, 0.5])
def test_an_autoslim_network_has_its_switch_numbers_only(autoslim: Checkpoint, switch: float) -> None:
    with pytest.raises(WidthError, match="switches 1, 2, 3"):
        select(autoslim, widths=[switch])


def test_a_budget_takes_the_widest_width_with_statistics_that_fits_and_an_exact_fit_counts(us: Checkpoint) -> None:
    narrow, wide = (macs(us, plan) for plan in us.spec.plans)
    for budget, expected in ((narrow, 0.25), (wide - 1, 0.25), (wide, 0.5), (10 * wide, 0.5)):
        assert select(us, budgets=[budget])[0].width == expected


def test_with_calibration_a_budget_takes_the_widest_of_all_widths(us: Checkpoint) -> None:
    """Brute force over thousandths; the plan may carry a rounder name, but no wider plan fits."""
    costs = {i: macs(us, us.spec.plan(i / 1000)) for i in range(250, 501)}
    for budget in (costs[250], costs[333], costs[420] + 1, costs[500]):
        plan = widest_within(us.network, budget, CostCounter(us.spec, 224), calibrating=True)
        widest = max(i for i, cost in costs.items() if cost <= budget)
        assert plan == us.spec.plan(widest / 1000)
        assert macs(us, plan) <= budget


def test_a_budget_below_the_narrowest_width_exits_with_1_and_says_what_that_one_takes(us: Checkpoint) -> None:
    least = macs(us, us.spec.plans[0])
    with pytest.raises(BudgetError, match=r"x0_25, takes 40\.\d+M") as error:
        select(us, budgets=[least - 1])
    assert error.value.exit_code == 1


def test_an_autoslim_budget_takes_the_switch_with_the_most_macs_that_fits(autoslim: Checkpoint) -> None:
    costs = sorted((macs(autoslim, plan), plan.name) for plan in autoslim.spec.plans)
    for cost, name in costs:
        assert select(autoslim, budgets=[cost])[0].name == name


def test_an_autoslim_budget_goes_by_macs_whatever_the_order_of_the_switches() -> None:
    """Switch 1 of this network is its largest."""
    from slimtrain.models.published import published_spec

    lists = published_spec("autoslim_mobilenet_v1").channel_lists
    spec = NetworkSpec("mobilenet_v1", "autoslim", (1, 2, 3), 10, lists[::-1])
    with torch.device("meta"):
        source = Checkpoint("auto.pt", "0" * 64, SlimmableNetwork(spec))
    assert [select(source, budgets=[macs(source, plan)])[0].name for plan in spec.plans] == ["s1", "s2", "s3"]


# -------------------------------------------------------------------------------------------------------- plan files


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def flat(channels: dict[str, object]) -> str:
    return "".join(f"{group}: {count}\n" for group, count in channels.items())


def nested(channels: dict[str, object], head: str) -> str:
    return f"{head}\nchannels:\n" + "".join(f"  {group}: {count}\n" for group, count in channels.items())


def widest(source: Checkpoint) -> dict[str, object]:
    return dict(source.spec.widest.channels)


def test_a_plan_file_may_be_a_bare_mapping_named_by_the_file(us: Checkpoint, tmp_path: Path) -> None:
    channels = {**widest(us), "features.3": 40}
    plan = read_plan_file(write(tmp_path / "slim-3.yml", flat(channels)), us.spec)
    assert plan.name == "slim-3"
    assert dict(plan.channels) == channels
    assert plan.width is None


def test_a_plan_file_may_be_what_the_search_writes(us: Checkpoint, tmp_path: Path) -> None:
    text = nested({**widest(us), "features.3": 40}, "network: us_mobilenet_v1\nname: found_1\nmacs: 5\nparams: 7\nerror: 0.3")
    assert read_plan_file(write(tmp_path / "p.yml", text), us.spec).name == "found_1"


def test_a_plan_of_another_network_is_refused(us: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(WidthError, match="plan for us_resnet50, the checkpoint is a us_mobilenet_v1"):
        read_plan_file(write(tmp_path / "p.yml", nested(widest(us), "network: us_resnet50")), us.spec)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features.3": None}, "missing for features.3"),
        ({"features.33": 8}, r"no channel group 'features\.33'.*did you mean 'features\.3"),
        ({"features.3": 10_000}, r"features\.3 has 10000 channels, expected a whole number from 1 to"),
        ({"features.3": 0}, "features.3 has 0 channels"),
        ({"features.3": -8}, "features.3 has -8 channels"),
        ({"features.3": 8.0}, r"features\.3 has 8\.0 channels"),
        ({"features.3": "true"}, "features.3 has True channels"),
        ({"features.3": "many"}, "features.3 has 'many' channels"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_with_the_group(
    us: Checkpoint, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    channels = {group: count for group, count in {**widest(us), **change}.items() if count is not None}
    with pytest.raises(WidthError, match=message):
        read_plan_file(write(tmp_path / "p.yml", flat(channels)), us.spec)


@pytest.mark.parametrize(
    "text", ["", "- 1\n- 2\n", "just text", "channels: 5\n", "channels: [1, 2]\n", "a: [1,", "a: !!python/x 1"]
)
def test_a_file_that_is_no_mapping_is_refused(us: Checkpoint, tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"p\.yml"):
        read_plan_file(write(tmp_path / "p.yml", text), us.spec)


def test_a_missing_plan_file_and_a_folder_are_refused(us: Checkpoint, tmp_path: Path) -> None:
    for path in (tmp_path / "none.yml", tmp_path):
        with pytest.raises(UserError, match=str(path)):
            read_plan_file(path, us.spec)


@pytest.mark.parametrize("name", ["a b", "../up", "x.y", "-dash", "ü"])
def test_a_name_that_does_not_belong_into_a_file_name_is_refused(us: Checkpoint, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="goes into file names"):
        read_plan_file(write(tmp_path / "p.yml", nested(widest(us), f"name: {name!r}")), us.spec)


def test_a_switch_written_out_group_by_group_keeps_its_width_and_an_s_network_has_no_other(
    s: Checkpoint, tmp_path: Path
) -> None:
    same = dict(s.spec.plans[0].channels)
    plan = read_plan_file(write(tmp_path / "again.yml", flat({**same})), s.spec)
    assert (plan.name, plan.width) == ("again", 0.25)
    with pytest.raises(WidthError, match="Export a switch"):
        read_plan_file(write(tmp_path / "other.yml", flat({**same, "features.3": 8})), s.spec)


def test_tied_dimensions_are_one_group_so_a_plan_cannot_untie_them() -> None:
    """Residual sums tie a stage's outputs: MobileNet v2 has fewer groups than its channel list has entries."""
    from slimtrain.models.published import published_spec

    spec = published_spec("us_mobilenet_v2")
    assert len(spec.widest.channels) < len(spec.channel_list(1.0))
    channels = {**spec.widest.channels, "features.18": 1272}
    with pytest.raises(WidthError, match=r"features\.18 has 1272 channels.*never slims it: expected 1280"):
        spec.plan_from_channels("p", channels)
    with pytest.raises(WidthError, match=r"no channel group 'features\.3'"):  # features.3 adds to features.2: no group
        spec.plan_from_channels("p", {**spec.widest.channels, "features.3": 24})


def test_two_plans_of_one_name_are_refused(us: Checkpoint, tmp_path: Path) -> None:
    path = write(tmp_path / "x0_5.yml", flat({**widest(us), "features.3": 40}))
    with pytest.raises(WidthError, match=r"two plans are called x0_5"):
        select(us, widths=[0.5], files=[path], calibrating=True)


def test_a_nonuniform_plan_without_statistics_is_refused_until_it_is_calibrated(us: Checkpoint, tmp_path: Path) -> None:
    path = write(tmp_path / "odd.yml", flat({**widest(us), "features.3": 40}))
    with pytest.raises(WidthError, match=r"plan odd: small\.pt has batch-norm statistics only for 0\.25, 0\.5"):
        select(us, files=[path])
    assert [plan.name for plan in select(us, files=[path], calibrating=True)] == ["odd"]
