"""Files of weights: torch.save's two forms, safetensors, several files with an index, zipped ones, and `last.pt` of a run."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zipfile
from pathlib import Path
from random import Random
from typing import Any

from slimtrain.base.files import file_sha256
from tests.soak.hostile import damaged_bytes, damaged_value, how_often, spelled
from tests.soak.kinds.kind import Case, WrongResultError
from tests.soak.originals import PLAN_SIZE

SAFETENSORS = ".safetensors"


class CheckpointKind:
    """One form of files of weights. `checked`: the form has checksums."""

    right = "where the form has checksums, logits are those of the whole file; else the SHA-256 is that of the file as it is"

    def __init__(self, form: str, file: str, checked: bool) -> None:
        self.name, self.file, self.checked = f"checkpoint {form}", file, checked

    def open(self, originals: Path) -> None:
        import torch

        self.originals, self.source = originals, originals / self.file
        self.content = torch.load(originals / "zip.pt", weights_only=True)
        self.bytes = self.source.read_bytes() if self.source.is_file() else b""
        self.images = torch.randn(2, 3, PLAN_SIZE, PLAN_SIZE, generator=torch.Generator().manual_seed(1))
        self.expected = self.logits(self.source)

    def logits(self, path: Path) -> Any:
        import torch

        from slimtrain.checkpoints.checkpoint import open_checkpoint

        checkpoint = open_checkpoint(path)
        network = checkpoint.network
        if path.is_file() and checkpoint.sha256 != file_sha256(path):
            raise WrongResultError(f"SHA-256 {checkpoint.sha256}")
        size = self.images.new_zeros(2, checkpoint.spec.in_channels, *self.images.shape[2:])
        images = self.images if checkpoint.spec.in_channels == 3 else size
        with torch.inference_mode(), network.at(checkpoint.spec.plans[0]):
            return network(images)

    def damage(self, draw: Random, folder: Path) -> Case:
        times = how_often(draw)
        if self.source.is_dir():
            return self._damaged_shards(draw, folder, times)
        path = folder / self.source.name
        if draw.random() < 0.5:
            path.write_bytes(damaged_bytes(draw, self.bytes, times))
            return Case(path, f"bytes changed in {times} places", self.checked)
        if self.file.endswith(SAFETENSORS):
            path.write_bytes(damaged_safetensors(draw, self.bytes, times))
            return Case(path, f"header changed in {times} places")
        return Case(path, self._damaged_content(draw, path, times))

    def _damaged_content(self, draw: Random, path: Path, times: int) -> str:
        import torch

        from tests.soak.kinds.tensors import damaged_content

        if draw.random() < 0.2 and self.checked:
            return self._other_members(draw, path)
        content, said = damaged_content(draw, self.content, times)
        inner, new = io.BytesIO(), not self.file.startswith("legacy")
        try:
            torch.save(content, inner, _use_new_zipfile_serialization=new)
        except Exception as error:  # what torch itself cannot write is no file to read
            path.write_bytes(b"")
            return f"not written ({type(error).__name__}): empty"
        if self.file.endswith(".zip"):
            with zipfile.ZipFile(path, "w", draw.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))) as archive:
                archive.writestr(draw.choice(("net.pt", "../net.pt", "a/b/net.pth", "net.txt")), inner.getvalue())
        else:
            path.write_bytes(inner.getvalue())
        return said

    def _other_members(self, draw: Random, path: Path) -> str:
        """The same archive with members renamed, doubled, swapped, empty, or that inflate to gigabytes."""
        with zipfile.ZipFile(io.BytesIO(self.bytes)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
        place, other = draw.randrange(len(members)), draw.randrange(len(members))
        name, content = members[place]
        way = draw.randrange(6)
        if way == 0:
            members[place] = (draw.choice(("a" * 60_000, "../x", "x/data.pkl", "x/constants.pkl", "")), content)
        elif way == 1:
            members.append((name, content[::-1]))
        elif way == 2:
            members[place], members[other] = (name, members[other][1]), (members[other][0], content)
        elif way == 3:
            del members[place]
        elif way == 4:
            members[place] = (name, damaged_bytes(draw, content))
        form = draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
        if way == 5 and draw.random() < 0.05:
            members[place], form = (name, bytes(5 * 10**8)), zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", form) as archive:
            for name, content in members:
                archive.writestr(name, content)
        return f"members changed ({way})"

    def _damaged_shards(self, draw: Random, folder: Path, times: int) -> Case:
        place = folder / "shards"
        shutil.copytree(self.source, place)
        path = draw.choice(sorted(place.iterdir()))
        content = path.read_bytes()
        if path.suffix == ".json" and draw.random() < 0.7:
            value = json.loads(content)
            if draw.random() < 0.3:
                key = draw.choice(sorted(value["weight_map"]))
                value["weight_map"][key] = draw.choice(
                    ("../../zip.pt", "/dev/zero", path.name, "", ".", "a\0b", "nowhere.safetensors")
                )
            else:
                value = damaged_value(draw, value, times)
            path.write_bytes(spelled(json.dumps(value)).encode("utf-8", "surrogatepass"))
        elif draw.random() < 0.5 and path.suffix != ".json":
            path.write_bytes(damaged_safetensors(draw, content, times))
        else:
            path.write_bytes(damaged_bytes(draw, content, times))
        return Case(place, f"{path.name} changed in {times} places")

    def judge(self, case: Case) -> None:
        import torch

        logits = self.logits(case.path)
        if case.checked and not torch.equal(logits, self.expected):
            raise WrongResultError("accepted, and logits are others than those of the whole file")

    def command(self, case: Case, folder: Path) -> list[str]:
        words = ["--ckpt", str(case.path), "--image-size", str(PLAN_SIZE), "--output-dir", str(folder / "b")]
        return ["slimexport", *words, "--no-verify"]


def damaged_safetensors(draw: Random, content: bytes, times: int) -> bytes:
    """A safetensors file whose header is another JSON, of its own length or of none."""
    (length,) = struct.unpack("<Q", content[:8])
    value = damaged_value(draw, json.loads(content[8 : 8 + length]), times)
    if isinstance(value, dict) and draw.random() < 0.3:
        entries = [entry for entry in value.values() if isinstance(entry, dict)]
        if entries:
            draw.choice(entries).update(
                draw.choice(
                    (
                        {"data_offsets": [0, 2**60]},
                        {"data_offsets": [-4, 4]},
                        {"shape": [10**12]},
                        {"shape": [2**62, 4]},
                        {"dtype": draw.choice(("F64", "BF16", "F8_E4M3", "I8", "BOOL", "X", "F4", "C64"))},
                        {"shape": [], "data_offsets": [0, 4]},
                    )
                )
            )
    text = spelled(json.dumps(value)).encode("utf-8", "surrogatepass")
    said = draw.choice((len(text), len(text), len(text), len(text), 0, 2**63, len(text) + 5, 10**8 - 1))
    return struct.pack("<Q", said) + text + content[8 + length :]


class LastKind:
    name = "last.pt"
    right = "a run that goes on with it ends; where only bytes were changed, with the weights of one that was not damaged"

    def open(self, originals: Path) -> None:
        import torch

        self.originals = originals
        path = originals / "run" / "last.pt"
        self.bytes, self.content = path.read_bytes(), torch.load(path, weights_only=True)
        self.folder = originals / "run"
        self.expected: dict[str, Any] | None = None

    def damage(self, draw: Random, folder: Path) -> Case:
        import torch

        from tests.soak.kinds.tensors import damaged_content

        shutil.copytree(self.folder, folder / "run")
        path, times = folder / "run" / "last.pt", how_often(draw)
        if draw.random() < 0.4:
            path.write_bytes(damaged_bytes(draw, self.bytes, times))
            return Case(path, f"bytes changed in {times} places", True)
        if draw.random() < 0.7:  # what other checkpoints have not
            training, said = damaged_content(draw, self.content["training"], times)
            content = {**self.content, "training": training}
        else:
            content, said = damaged_content(draw, self.content, times)
        try:
            torch.save(content, path)
        except Exception as error:  # what torch itself cannot write is no file to read
            path.write_bytes(b"")
            said = f"not written ({type(error).__name__}): empty"
        return Case(path, said)

    def weights(self, folder: Path) -> dict[str, Any]:
        """Those of a run that goes on in a folder to its end."""
        import torch

        from slimtrain.training.run import train
        from tests.support.run_helpers import ALONE, config

        path = train(config(folder, epochs=2, ema=0.9, resume="auto"), ALONE)
        state: dict[str, Any] = torch.load(path, weights_only=True)["model"]
        return state

    def judge(self, case: Case) -> None:
        import torch

        if self.expected is None:
            whole = case.path.parent.with_name("whole")
            shutil.copytree(self.folder, whole)
            self.expected = self.weights(whole)
            shutil.rmtree(whole)
        state = self.weights(case.path.parent)
        if case.checked and not all(torch.equal(value, self.expected[key]) for key, value in state.items()):
            raise WrongResultError("went on with other weights than the whole file's")

    def command(self, case: Case, folder: Path) -> list[str]:
        words = ["train", str(self.originals / "config.yml"), "--resume", "auto", "--ema", "0.9"]
        return ["slimtrain", *words, "--set", f"output_dir={case.path.parent}", "--dry-run"]
