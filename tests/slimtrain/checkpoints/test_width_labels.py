"""Widths get the roundest label that fits the shapes; where several stay tied, the user is told the candidates and the
options that settle it."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path

import pytest
import torch

from slimtrain.base.errors import UserError
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.checkpoints.width_labels import matching
from slimtrain.models.registry import ARCHITECTURES
from slimtrain.models.spec import NetworkSpec
from tests.support.slimtrain_states import empty_state, identified, random_state

TIED = NetworkSpec("mobilenet_v2", "us", (0.25, 1.0, 0.26), 10, width_range=(0.25, 1.0))  # 0.25 and 0.26: the same shapes
ROUNDNESS = (500, 250, 100)  # steps of 0.05, 0.025 and 0.01, in ten-thousandths


def roundest(architecture: str, family: str, width: float) -> list[float]:
    """All labels of the roundest kind under which the network has the channels it has at `width`; by trying them all."""
    arch = ARCHITECTURES[architecture]
    wanted = arch.channel_list(family, width, widest=width)
    for step in ROUNDNESS:
        widths = [k / 10000 for k in range(step, 20001, step)]
        fitting = [w for w in widths if arch.channel_list(family, w, widest=w) == wanted]
        if fitting:
            return fitting
    return []


@pytest.mark.parametrize("name", ["s_mobilenet_v1", "us_mobilenet_v1", "s_mobilenet_v2", "us_mobilenet_v2"])
def test_a_width_gets_the_roundest_label_that_fits(name: str) -> None:
    family, _, architecture = name.partition("_")
    draw = random.Random(name)
    seen = set()
    for width in [*(draw.randint(20, 120) / 100 for _ in range(15)), *(draw.randint(200, 1200) / 1000 for _ in range(10))]:
        spec = NetworkSpec(architecture, family, (width,), 10, width_range=(width, width) if family == "us" else None)
        expected = roundest(architecture, family, width)
        if len(expected) == 1:
            assert identified(empty_state(spec)).switches == (expected[0],), width
            seen.add(expected[0] == width)
        elif expected:
            with pytest.raises(UserError, match=" or ".join(map(str, expected))):
                identified(empty_state(spec))
    assert True in seen  # the sample holds both: labels that were meant, and rounder ones
    assert name == "s_mobilenet_v1" or False in seen


def test_a_label_may_be_rounder_than_what_was_trained() -> None:
    spec = NetworkSpec("mobilenet_v2", "us", (0.245, 0.999), 10, width_range=(0.245, 0.999))
    assert identified(empty_state(spec)).switches == (0.25, 1.0)


def test_tied_widths_are_asked_for_with_candidates_and_options() -> None:
    with pytest.raises(UserError) as caught:
        identified(empty_state(TIED))
    message = str(caught.value)
    assert message.startswith("weights.pt: ")
    for part in ("width 1 of 3 may be", "width 3 of 3 may be", "0.25", "0.26", "--switches", "--config", "?, 1.0, ?"):
        assert part in message, part
    assert "width 2 of 3" not in message


def test_switches_settle_a_tie() -> None:
    assert identified(empty_state(TIED), switches=(0.25, 1.0, 0.26)) == TIED
    assert identified(empty_state(TIED), switches=[0.26, 1.0, 0.25]).switches == (0.26, 1.0, 0.25)  # as the user says


def test_a_configuration_settles_a_tie_in_the_published_order(tmp_path: Path) -> None:
    # narrowest, widest, then the further ones; it may name widths that the file holds nothing for
    assert identified(empty_state(TIED), expected_widths=(0.25, 1.0, 0.26, 0.5)) == TIED
    torch.save({key: t.float() for key, t in random_state(TIED).items()}, tmp_path / "us_mbv2.pt")
    (tmp_path / "us.yml").write_text(
        "model: models.us_mobilenet_v2\nwidth_mult_range: [0.25, 1.0]\nwidth_mult_list_test: [0.26, 0.5]\n"
    )
    assert open_checkpoint(tmp_path / "us_mbv2.pt", config=tmp_path / "us.yml").spec == TIED
    assert open_checkpoint(tmp_path / "us_mbv2.pt", switches=(0.25, 1.0, 0.26)).spec == TIED
    with pytest.raises(UserError, match=r"^us_mbv2\.pt: shapes alone do not tell"):
        open_checkpoint(tmp_path / "us_mbv2.pt")


def test_switches_may_give_finer_labels_where_nothing_is_tied() -> None:
    spec = NetworkSpec("mobilenet_v2", "us", (0.245, 0.999), 10, width_range=(0.245, 0.999))
    assert identified(empty_state(spec), switches=(0.245, 0.999)) == spec


def test_the_number_of_switches_must_be_that_of_the_file() -> None:
    with pytest.raises(UserError, match=r"--switches names 2 widths, weights\.pt holds norms for 3"):
        identified(empty_state(TIED), switches=(0.25, 1.0))


@pytest.mark.parametrize("switches", [(0.25, 1.0, 0.5), (0.25, 0.25, 0.26), (0.1, 0.2, 0.3)])
def test_switches_that_do_not_fit_are_refused_with_what_the_shapes_say(switches: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match=r"switch \d of 3 has the shapes of .*none of .* fits it\. Correct --switches"):
        identified(empty_state(TIED), switches=switches)


@pytest.mark.parametrize("bad", [0.0, -0.25, float("nan"), float("inf"), 1e300])
def test_switches_that_are_no_widths_are_refused(bad: float) -> None:
    with pytest.raises(UserError, match="switch"):
        identified(empty_state(TIED), switches=(0.25, 1.0, bad))


def test_a_width_twice_in_one_file_is_a_tie() -> None:
    spec = NetworkSpec("mobilenet_v1", "us", (0.5, 1.0, 0.5), 10, width_range=(0.5, 1.0))
    with pytest.raises(UserError, match=re.compile("width 1 of 3 may be .*width 3 of 3 may be")):
        identified(empty_state(spec))


def test_one_entry_with_two_equally_round_labels_is_a_tie() -> None:
    spec = NetworkSpec("resnet50", "us", (0.18, 1.0), 10, width_range=(0.18, 1.0))
    assert roundest("resnet50", "us", 0.18) == [0.18, 0.19]
    with pytest.raises(UserError, match=r"width 1 of 2 may be 0\.18 or 0\.19\. Say which .*Known so far: \?, 1\.0"):
        identified(empty_state(spec))
    assert identified(empty_state(spec), switches=(0.18, 1.0)) == spec


def test_both_published_us_grids_need_no_help() -> None:
    for architecture, low in (("mobilenet_v1", 10), ("mobilenet_v2", 14)):
        grid = tuple(k / 40 for k in range(low, 41))
        spec = NetworkSpec(architecture, "us", grid, 1000, width_range=(grid[0], grid[-1]))
        assert identified(empty_state(spec)).switches == grid
        shuffled = list(grid)
        random.Random(2).shuffle(shuffled)
        spec = NetworkSpec(architecture, "us", tuple(shuffled), 1000, width_range=(grid[0], grid[-1]))
        assert identified(empty_state(spec)).switches == tuple(shuffled)


@pytest.mark.parametrize("seed", range(20))
def test_a_matching_gives_as_many_entries_as_possible_a_place(seed: int) -> None:
    """Against all assignments, tried one by one."""
    draw = random.Random(seed)
    fitting = [[place for place in range(4) if draw.random() < 0.4] for _ in range(4)]
    most = max(sum(place in fitting[entry] for entry, place in enumerate(order)) for order in itertools.permutations(range(4)))
    places = matching(fitting)
    taken = [place for place in places if place is not None]
    assert len(taken) == len(set(taken)) == most
    assert all(place in fitting[entry] for entry, place in enumerate(places) if place is not None)


def test_a_matching_keeps_the_order_where_several_fit() -> None:
    assert matching([[0, 2], [1], [0, 2]]) == [0, 1, 2]
    assert matching([[0, 1], [0]]) == [1, 0]  # the first moves on, so that the second has its only one
    assert matching([[0], [0], []]) == [0, None, None]
