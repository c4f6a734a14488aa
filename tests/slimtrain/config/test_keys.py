"""What a key may be, what may change when a run is resumed, and which names a run keeps for itself."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any

import pytest

from slimtrain.base.errors import UserError
from slimtrain.config import Config
from slimtrain.config.config import KEYS, MACHINE_KEYS, SEARCH_KEYS, run_settings
from slimtrain.config.keys import KeyRule, Scope, keys_of
from slimtrain.config.reading import TYPES, make_config, read_config


def numbers_of(kind: Any) -> tuple[Any, ...]:
    """The types that a key's values consist of."""
    inner = typing.get_args(kind)
    return tuple(part for one in inner for part in numbers_of(one)) if inner else (kind,)


# What a run is: a resumed one keeps to all of it, so its result does not depend on where it was interrupted.
A_RUN = """
    network switches width_range channel_lists channel_groups classes stem_stride in_channels model heads conv_groups shuffles
    order detector data holdout image_size exif_orientation augmentation mean std batch_size drop_last sandwich nonuniform
    width_step distill teacher teacher_share grow label_smoothing
    epochs schedule milestones gamma momentum nesterov weight_decay ema seed
"""
A_MACHINE = (
    "data_dir workers device threads output_dir checkpoint_every log_every tensorboard resume fit_batch scale_lr scratch_lr"
)


def test_a_run_is_what_its_network_data_rule_and_schedule_are() -> None:
    assert list(run_settings(Config("us_mobilenet_v1"))) == A_RUN.split()


def test_where_a_run_is_done_is_apart_from_what_it_does() -> None:
    assert sorted(MACHINE_KEYS) == sorted(A_MACHINE.split())
    assert not {*MACHINE_KEYS, *SEARCH_KEYS} & set(A_RUN.split())


def test_the_searchs_keys_are_named_for_it() -> None:
    named = [name for name in KEYS if name.startswith(("search_", "latency_"))]
    assert named and list(SEARCH_KEYS) == named


def test_a_field_without_rules_is_of_the_run_and_takes_anything() -> None:
    @dataclasses.dataclass
    class Plain:
        depth: int = 3

    assert keys_of(Plain) == {"depth": KeyRule(Scope.RUN)}
    keys_of(Plain)["depth"].check("depth", -(10**9), "s_shufflenet", "s")


@pytest.mark.parametrize("name", ["last.pt", "best.pt", "config.yml", "summary.csv", "train.log", "tensorboard", ".", ".."])
def test_a_finished_checkpoint_takes_no_name_of_the_runs_own(name: str) -> None:
    with pytest.raises(UserError, match=f"weights is {name!r}, (a name that a run uses otherwise|expected a file name)"):
        Config("us_mobilenet_v1", weights=name)
    assert Config("us_mobilenet_v1", weights=f"my_{Path(name).stem}.pt")


NUMBERS = [name for name in KEYS if {int, float} & set(numbers_of(TYPES[name]))]


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_limits(name: str) -> None:
    """None of them is one that a later step cannot hold: as a Python float, in a tensor's size, as seconds or bytes."""
    for value in ("1e308", "-1e308", str(10**18), str(-(10**18)), ".nan", ".inf", "1e400"):
        for text in (value, f"[{value}]", f"[[{value}]]"):
            with pytest.raises(UserError, match=name):
                read_config("digits", [f"{name}={text}"])


@pytest.mark.parametrize("name", [name for name in KEYS if str in numbers_of(TYPES[name])])
def test_every_text_has_a_length(name: str) -> None:
    with pytest.raises(UserError, match=name) as caught:
        read_config("digits", [f"{name}={'x' * 100_000}"])
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", [name for name in KEYS if "tuple" in str(TYPES[name])])
def test_every_list_has_a_length(name: str) -> None:
    with pytest.raises(UserError, match=name):
        make_config({"network": "us_mobilenet_v1", name: [[1] if name == "channel_lists" else "1"] * 12_000}, "here")
