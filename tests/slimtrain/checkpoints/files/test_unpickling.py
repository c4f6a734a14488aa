"""Plain values that checkpoints hold beside their weights do no harm: of the standard library, of numpy, enumerations and
named tuples of anybody's. None is made, and nothing of theirs is called or imported."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import enum
import fractions
import ipaddress
import pathlib
import pickle
import time
import types
import typing
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slimtrain.base.errors import CheckpointError
from slimtrain.checkpoints.files.inert import InertType
from slimtrain.checkpoints.reading import read_content
from tests.support.state_files import rewrite


class Stage(enum.Enum):
    TRAIN = "train"
    PAIR = (1, 2.0)


class Level(enum.IntEnum):
    LOW = 1


class Flags(enum.Flag):
    A = 1
    B = 2


class Point(typing.NamedTuple):
    x: int
    y: float


Pair = collections.namedtuple("Pair", "left right")


class Settings:
    """Somebody's object, as hyperparameters are kept in."""

    def __init__(self) -> None:
        self.path, self.stage = pathlib.PurePosixPath("/data"), Stage.TRAIN


class Attributes(dict[str, Any]):
    """As settings are kept by many: keys that are attributes too."""

    def __init__(self, **values: Any) -> None:
        super().__init__(values)
        self.__dict__.update(values)


class Ordered(collections.OrderedDict[str, Any]):
    pass


class Items(list[Any]):
    pass


VALUES: dict[str, Any] = {
    "paths": [Path("runs/a.pt"), pathlib.PurePosixPath("/a/b"), pathlib.PureWindowsPath("C:\\a\\b"), pathlib.PurePath()],
    "dates": [
        datetime.datetime(2026, 11, 26, 1, 2, 3, 4, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
        *(datetime.date(2026, 11, 26), datetime.time(1, 2), datetime.timedelta(days=3), datetime.timezone.utc),
    ],
    "times": [time.gmtime(0)],
    "enumerations": [*Stage, *Level, *Flags, Flags.A | Flags.B, Stage],
    "named tuples": [Point(1, 2.0), Pair("a", None)],
    "dictionaries": [
        collections.OrderedDict(a=1),
        collections.Counter("abca"),
        *(collections.defaultdict(list, {"a": [1]}), collections.defaultdict(collections.OrderedDict, {"a": {}})),
    ],
    "sequences": [collections.deque([1, 2], maxlen=3), collections.deque("ab"), range(3), slice(1, None, 2), (), b"abc"],
    "sets": [{1, 2}, frozenset({"a"}), set(), frozenset()],
    "numbers": [decimal.Decimal("0.1"), fractions.Fraction(1, 3), 1 + 2j, True, None, 10**30, float("nan")],
    "identifiers": [uuid.UUID(int=3), ipaddress.ip_address("127.0.0.1"), ipaddress.ip_network("10.0.0.0/8")],
    "namespaces": [argparse.Namespace(lr=0.1, out=Path("a")), types.SimpleNamespace(a=1), Settings()],
    "subclasses": [
        *(Attributes(), Attributes(lr=0.1, inner=Attributes(path=Path("a"), steps=Items([Stage.TRAIN]))), Ordered(a=1, b=2)),
        *(Items(), Items([1]), Items([1, Items([2, Attributes(a=Items())])])),
    ],
    "numpy": [np.float32(0.5), np.int64(3), np.bool_(True), np.dtype("float16"), np.arange(3), np.str_("a")],
    "generators": [np.random.RandomState(0), np.random.default_rng(0)],
    "torch": [torch.float16, torch.device("cpu"), torch.Size([1, 2]), torch.bfloat16],
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", VALUES)
def test_plain_values_beside_the_weights_do_no_harm(kind: str, legacy: bool, tmp_path: Path) -> None:
    for number, value in enumerate(VALUES[kind]):
        content = {"before": value, "model": {"a": torch.arange(3.0)}, "after": [value, {"again": value}]}
        torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
        read = read_content(tmp_path / "a.pt")
        assert torch.equal(read["model"]["a"], torch.arange(3.0)), (number, value)
        assert len(read["after"]) == 2


def test_they_are_inert(tmp_path: Path) -> None:
    torch.save([Path("a"), Stage.TRAIN, datetime.date(2026, 1, 1), Point(1, 2.0), Settings()], tmp_path / "a.pt")
    read = read_content(tmp_path / "a.pt")
    assert all(isinstance(type(value), InertType) for value in read)
    assert type(read[1]).__name__ == f"{__name__}.Stage"
    assert set(read[4].state) == {"path", "stage"}


def test_weights_in_a_dictionary_of_somebodys_are_found(tmp_path: Path) -> None:
    state = {"features.0.weight": torch.arange(3.0), "features.0.bias": torch.ones(1)}
    torch.save({"model": Ordered(state), "hparams": Attributes(lr=0.1)}, tmp_path / "a.pt")
    read = read_content(tmp_path / "a.pt")
    assert list(read["model"]) == list(state) and torch.equal(read["model"]["features.0.weight"], torch.arange(3.0))
    assert read["hparams"] == {"lr": 0.1}


def test_calls_that_only_look_like_values_are_refused(tmp_path: Path) -> None:
    """Names of the standard library that are no values, functions, and calls that no enumeration makes."""
    for name, arguments in (
        ("pathlib.Path.cwd", ()),
        ("subprocess.Popen", ("ls",)),
        ("http.HTTPStatus", (200,)),
        ("somebody.function", ("a",)),
        ("somebody.Class", ()),
        ("somebody.Class", ("a", "b")),
        ("somebody.Class", ({"a": 1},)),
        ("datetime.datetime.now", ()),
    ):
        module, _, last = name.rpartition(".")
        pickled = b"\x80\x02" + f"c{module}\n{last}\n".encode() + pickle.dumps(arguments, 2)[2:-1] + b"R."
        path = tmp_path / "a.pt"
        torch.save({}, path)
        rewrite(path, pickled)
        with pytest.raises(CheckpointError, match="would run code") as caught:
            read_content(path)
        assert last in str(caught.value)
