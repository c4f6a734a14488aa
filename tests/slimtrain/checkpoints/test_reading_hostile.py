"""Loading never runs code from a file: what would call a function is refused before it is called, nothing is imported."""

from __future__ import annotations

import builtins
import functools
import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from slimtrain.base.errors import CheckpointError
from tests.support.state_files import read_state_dict

LEGACY = {"_use_new_zipfile_serialization": False}
Payload = Callable[[Path], Any]


class Calling:
    """Pickled as a call: what loads it with `pickle` makes that call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class CallingWithState(Calling):
    """As `Calling`, then filled from a state, by a function named in the file."""

    def __reduce__(self) -> Any:
        return (*self.call, {"a": 1})


PAYLOADS: dict[str, Payload] = {
    "os.system": lambda marker: Calling(os.system, f"touch {marker}"),
    "exec": lambda marker: Calling(exec, f"open({str(marker)!r}, 'w')"),
    "eval": lambda marker: Calling(eval, f"open({str(marker)!r}, 'w')"),
    "open": lambda marker: Calling(open, str(marker), "w"),
    "subprocess.Popen": lambda marker: Calling(subprocess.Popen, ("touch", str(marker))),
    "getattr": lambda marker: Calling(getattr, str, "upper"),
    "import": lambda marker: Calling(builtins.__import__, "this"),
    "partial": lambda marker: Calling(functools.partial(os.system, f"touch {marker}")),
    "torch.hub": lambda marker: Calling(torch.hub.load, "owner/repo", "model"),
    "torch.load": lambda marker: Calling(torch.load, str(marker)),
    "pickle.loads": lambda marker: Calling(pickle.loads, pickle.dumps(Calling(os.mkdir, str(marker)))),
    "class": lambda marker: CallingWithState(zipfile.ZipFile, str(marker), "w"),
    "map": lambda marker: Calling(list, Calling(map, os.mkdir, [str(marker)])),
}


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "it_ran"


def assert_refused(path: Path, marker: Path, *words: str) -> None:
    before = set(sys.modules)
    with pytest.raises(CheckpointError) as caught:
        read_state_dict(path)
    message = str(caught.value)
    assert path.name in message and "refused" in message and "run code" in message
    assert all(word in message for word in words), message
    assert "weights_only" not in message  # torch's advice, to switch its safety off, is not handed on
    assert not marker.exists()
    assert not {name for name in set(sys.modules) - before if not name.startswith(("torch", "encodings."))}
    assert "this" not in sys.modules


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", list(PAYLOADS))
def test_a_call_refuses_the_file_and_is_not_made(name: str, legacy: bool, tmp_path: Path, marker: Path) -> None:
    path = tmp_path / "evil.pt"
    content = {"model": {"features.0.0.weight": torch.ones(8, 3, 3, 3)}, "meters": ({"loss": PAYLOADS[name](marker)}, {})}
    torch.save(content, path, **(LEGACY if legacy else {}))
    assert_refused(path, marker)
    with zipfile.ZipFile(tmp_path / "evil.pt.zip", "w") as archive:
        archive.write(path, "evil.pt")
    assert_refused(tmp_path / "evil.pt.zip", marker)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("place", ["alone", "key", "in the state dict", "argument of a safe call"])
def test_wherever_in_the_file_it_hides(place: str, legacy: bool, tmp_path: Path, marker: Path) -> None:
    call, weight = Calling(os.mkdir, str(marker)), torch.ones(3)
    content: dict[str, Any] = {
        "alone": call,
        "key": {"model": {call: weight, "a": weight}},
        "in the state dict": {"a": weight, "b": call},
        "argument of a safe call": {"a": weight, "b": OrderedDict({"c": OrderedDict([("d", call)])})},
    }
    torch.save(content[place], tmp_path / "evil.pt", **(LEGACY if legacy else {}))
    assert_refused(tmp_path / "evil.pt", marker)


def test_the_refusal_names_what_would_be_called(tmp_path: Path, marker: Path) -> None:
    torch.save({"a": torch.ones(1), "b": Calling(subprocess.Popen, ("touch", str(marker)))}, tmp_path / "evil.pt")
    assert_refused(tmp_path / "evil.pt", marker, "Popen")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_class_named_in_a_file_is_never_imported(
    legacy: bool, tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module is there and could be imported: doing so would leave the marker."""
    (tmp_path / "planted_module.py").write_text(f"open({str(marker)!r}, 'w')\nclass Meter:\n    pass\ndef make():\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = ModuleType("planted_module")
    exec("class Meter:\n    def __setstate__(self, state): raise SystemExit\ndef make(): raise SystemExit\n", module.__dict__)
    sys.modules["planted_module"] = module
    meter = module.Meter()
    meter.values = [1.0]
    plain = {"model": {"a": torch.ones(1)}, "meters": {"loss": meter, "kind": module.Meter, "by": defaultdict(module.make)}}
    torch.save(plain, tmp_path / "plain.pt", **(LEGACY if legacy else {}))
    torch.save({**plain, "made": Calling(module.make)}, tmp_path / "evil.pt", **(LEGACY if legacy else {}))
    torch.save({**plain, "made": Calling(module.Meter)}, tmp_path / "made.pt", **(LEGACY if legacy else {}))
    del sys.modules["planted_module"]
    assert list(read_state_dict(tmp_path / "plain.pt")) == ["a"]  # classes, instances and factories stay inert
    assert_refused(tmp_path / "evil.pt", marker, "planted_module.make")
    assert_refused(tmp_path / "made.pt", marker, "planted_module.Meter")
    assert "planted_module" not in sys.modules
    assert not marker.exists()


def by_hand(pickled: bytes, folder: Path, legacy: bool) -> Path:
    """A torch.save file whose object's pickle is `pickled`, byte for byte."""
    path = folder / "evil.pt"
    if legacy:
        buffer = io.BytesIO()
        torch.save({}, buffer, **LEGACY)
        whole, empty = buffer.getvalue(), pickle.dumps({}, 2)
        assert whole.count(empty) == 1
        path.write_bytes(whole.replace(empty, pickled))
        return path
    torch.save({}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else data)
    return path


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02(S'touch MARKER'\nios\nsystem\n.",  # INST
        b"\x80\x02(cos\nsystem\nS'touch MARKER'\no.",  # OBJ
        b"\x80\x02c__builtin__\neval\nX\x11\x00\x00\x00open('MARKER','w')\x85R.",  # the Python 2 name
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch MARKER\x85R.",  # STACK_GLOBAL
        b"\x80\x02cos\nsystem\nX\x0c\x00\x00\x00touch MARKER\x85\x81.",  # NEWOBJ of a function
        b"\x80\x02ctorch.serialization\nos.system\nX\x0c\x00\x00\x00touch MARKER\x85R.",  # a dotted name
        b"\x80\x02ccopyreg\n_reconstructor\ncos\nsystem\nc__builtin__\nobject\nN\x87R.",
    ],
    ids=["INST", "OBJ", "GLOBAL", "STACK_GLOBAL", "NEWOBJ", "dotted", "copyreg"],
)
def test_opcodes_written_by_hand_run_nothing(
    pickled: bytes, legacy: bool, tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = by_hand(pickled, tmp_path, legacy)
    with pytest.raises(CheckpointError, match=r"^evil\.pt: "):
        read_state_dict(path)
    assert not (tmp_path / "MARKER").exists() and not marker.exists()
