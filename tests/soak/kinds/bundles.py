"""Files of a bundle: manifest.json, reference.npz, the ONNX file. The hash of a damaged ONNX file is mended most of the time,
so that not it alone speaks."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zipfile
from abc import ABC, abstractmethod
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from slimtrain.base.errors import UserError
from slimtrain.base.files import file_sha256
from tests.soak.hostile import damaged_bytes, damaged_value, how_often, spelled
from tests.soak.kinds.kind import Case, WrongResultError

ONNX_FILE, FP16_FILE = "us_mobilenet_v1_x0_125.onnx", "us_mobilenet_v1_x0_125.fp16.onnx"
SIZE, CLASSES = 32, 10
TOLERANCE, FP16_TOLERANCE = 1e-4, 5e-2  # largest difference over largest logit; the second is the most that fp16 may have
FRESH = 16


def outputs_of(path: Path, images: Any) -> Any:
    """What onnxruntime alone makes of a file: an oracle that none of our code is in."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["output"], {"input": images})[0])


class BundleKind(ABC):
    """What they have in common: a copy of the bundle with one file damaged, which is verified and run."""

    name = ""
    file = ""
    folder, network, tolerance = "bundle", ONNX_FILE, TOLERANCE

    def open(self, originals: Path) -> None:
        self.bundle = originals / self.folder
        self.content = (self.bundle / self.file).read_bytes()
        draw = np.random.default_rng(3)
        self.fresh = draw.standard_normal((FRESH, 3, SIZE, SIZE)).astype(np.float32)
        self.expected = outputs_of(self.bundle / self.network, self.fresh)

    def damage(self, draw: Random, folder: Path) -> Case:
        place = folder / "b"
        shutil.copytree(self.bundle, place)
        times = how_often(draw)
        if draw.random() < 0.4:
            (place / self.file).write_bytes(damaged_bytes(draw, self.content, times))
            return Case(place, f"bytes changed in {times} places")
        return Case(place, self.write_damaged(draw, place / self.file, times))

    @abstractmethod
    def write_damaged(self, draw: Random, path: Path, times: int) -> str:
        """Write the file with so many of its values changed; which."""

    def judge(self, case: Case) -> None:
        import slimexport

        checked = slimexport.verify_bundle(case.path)
        passed = [artifact for artifact in checked if artifact.verification.status == "passed"]
        for artifact in checked:
            artifact.verification.reason and artifact.verification.reason.encode()  # it can be printed
        if len(passed) < len(checked):
            raise UserError("not proven right")
        for artifact in passed:
            self.check(case, artifact)

    def check(self, case: Case, artifact: Any) -> None:
        """WrongResultError where a file that passed computes something else than the whole one."""
        import slimexport

        with slimexport.open_network(case.path, artifact.file) as network:
            outputs = network(self.fresh)
        if not isinstance(outputs, np.ndarray) or outputs.shape != self.expected.shape:
            raise WrongResultError(f"passed, and gives {type(outputs).__name__} {getattr(outputs, 'shape', '')}")
        error = float(np.abs(outputs.astype(np.float64) - self.expected).max() / np.abs(self.expected).max())
        if not error <= 2 * self.tolerance:
            raise WrongResultError(f"passed, and is {error:.3g} off the whole file on other images")

    def command(self, case: Case, folder: Path) -> list[str]:
        return ["slimexport", "--bundle", str(case.path), "--verify-only"]


class ManifestKind(BundleKind):
    name = "manifest.json"
    file = "manifest.json"
    right = "a file that passes computes what it did before, whatever the manifest says of it"

    def write_damaged(self, draw: Random, path: Path, times: int) -> str:
        value = damaged_value(draw, json.loads(self.content), times)
        path.write_bytes(spelled(json.dumps(value, indent=1)).encode("utf-8", "surrogatepass"))
        return f"values changed in {times} places"


def header(shape: str, dtype: str = "'<f4'", fortran: str = "False", version: bytes = b"\x01\x00") -> bytes:
    """The beginning of a .npy file that says so."""
    text = f"{{'descr': {dtype}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()
    text += b" " * (64 - (len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H" if version[0] == 1 else "<I", len(text)) + text


HEADERS = (
    header("(1000000000000, 3, 32, 32)"),
    header("(99999999999999999999999999, 3, 32, 32)"),
    header("(-1, 3, 32, 32)"),
    header("(2, 3, 32, 32)", "'|O'"),
    header("(2, 3, 32, 32)", "[('a', '<f4'), ('b', '<f8')]"),
    header("(2, 3, 32, 32)", "'<U1000000000'"),
    header("(2, 3, 32, 32)", "'|V2147483647'"),
    header("(2, 3, 32, 32)", "'<M8[s]'"),
    header("(2, 3, 32, 32)", "'<c16'"),
    header("(" + "1, " * 500 + ")"),
    header("()" * 1, "(" * 3000 + ")" * 3000),
    header("(2, 3, 32, 32)", "'<f4'", "True"),
    header("(0, 3, 32, 32)"),
    header("(2, 3, 32, 32)", version=b"\x03\x00"),
    header("(2, 3, 32, 32)", version=b"\x09\x00"),
    b"\x93NUMPY\x02\x00\xff\xff\xff\x7f",
    b"",
    b"PK\x05\x06" + bytes(18),
)
ARRAYS = (
    lambda a: a.astype(np.float64),
    lambda a: a.astype(np.float16),
    lambda a: a.astype(np.int64),
    lambda a: a.astype(np.complex64),
    lambda a: a.astype(str),
    np.asfortranarray,
    lambda a: a[..., :-1],
    lambda a: a[:1],
    lambda a: a[:0],
    lambda a: a * np.nan,
    lambda a: a * np.inf,
    lambda a: a * 1e30,
    lambda a: a + 1,
    lambda a: a * 1.05,
    lambda a: -a,
    lambda a: a[::-1],
    lambda a: a.ravel(),
    lambda a: a[None],
    np.zeros_like,
    lambda a: np.float32(3),
    lambda a: a.astype(">f4"),
    lambda a: np.concatenate([a] * 3),
)


READ = ("images", "logits_x0_125")


class ReferenceKind(BundleKind):
    name = "reference.npz"
    file = "reference.npz"
    right = "where the file passes, what the archive says of its images is what the file computes of them"
    size, members = SIZE, ("images.npy", "logits_x0_125.npy", "../x.npy", "a" * 60_000, "places.npy")

    def write_damaged(self, draw: Random, path: Path, times: int) -> str:
        with zipfile.ZipFile(io.BytesIO(self.content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        said = []
        for _ in range(times):
            name = draw.choice(sorted(members))
            said.append(f"{name}: {self._member(draw, members, name)}")
        with zipfile.ZipFile(path, "w", draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return ", ".join(said)

    def _member(self, draw: Random, members: dict[str, bytes], name: str) -> str:
        way = draw.randrange(6)
        if way == 0:
            members[name] = draw.choice(HEADERS) + (bytes(2 * 3 * self.size**2 * 4) if draw.random() < 0.5 else b"")
            return "another header"
        if way == 1:
            members[draw.choice(self.members)] = members.pop(name)
            return "another name"
        if way == 2:
            members[name] = damaged_bytes(draw, members[name])
            return "bytes changed, the CRC right"
        if way == 3 and draw.random() < 0.03:  # 300 MB of zeros out of 300 kB
            members[name] = header("(25000, 3, 32, 32)") + bytes(25_000 * 3 * SIZE * SIZE * 4)
            return "a bomb"
        try:
            array = np.load(io.BytesIO(members[name]), allow_pickle=False)
        except (ValueError, EOFError, OSError, SyntaxError):
            return "left as it is"
        text, number = io.BytesIO(), draw.randrange(len(ARRAYS))
        with np.errstate(all="ignore"):
            try:
                np.save(text, ARRAYS[number](array), allow_pickle=True)
            except (IndexError, ValueError, TypeError):
                return "left as it is"
        members[name] = text.getvalue()
        return f"another array ({number})"

    def check(self, case: Case, artifact: Any) -> None:
        super().check(case, artifact)
        with zipfile.ZipFile(case.path / self.file) as archive:  # which np.load takes for none where bytes are before it
            members = (archive.read(name if name in archive.namelist() else f"{name}.npy") for name in READ)
            images, logits = (np.load(io.BytesIO(member), allow_pickle=False) for member in members)
        outputs = outputs_of(case.path / artifact.file, np.ascontiguousarray(images))
        if logits.shape != outputs.shape or not np.abs(outputs - logits).max() <= 2 * self.tolerance * np.abs(logits).max():
            raise WrongResultError("passed, against logits that are not those of the images")


class Fp16ReferenceKind(ReferenceKind):
    """What a bundle tells of a file of fewer bits beside: what it gave itself, and its layers one by one."""

    name = "reference.npz of fp16"
    folder, network, tolerance = "bundle_fp16", FP16_FILE, FP16_TOLERANCE


class OnnxKind(BundleKind):
    name = "onnx"
    file = ONNX_FILE
    right = "a file that passes computes what the whole one does, on 16 images that nobody knew"

    def damage(self, draw: Random, folder: Path) -> Case:
        case = super().damage(draw, folder)
        if draw.random() < 0.1:
            return Case(case.path, f"{case.damage}; the hash as it was")
        path = case.path / "manifest.json"
        manifest = json.loads(path.read_bytes())
        manifest["artifacts"][0]["sha256"] = file_sha256(case.path / self.file)
        path.write_text(json.dumps(manifest))
        return case

    def write_damaged(self, draw: Random, path: Path, times: int) -> str:
        import onnx

        from tests.soak.kinds.onnx_damage import WAYS

        model = onnx.load_model_from_string(self.content)
        said = []
        for _ in range(times):
            way = draw.choice(WAYS)
            said.append(way.__name__)
            way(draw, model)
        path.write_bytes(model.SerializeToString())
        return ", ".join(said)


class Fp16OnnxKind(OnnxKind):
    """A file whose layers are run one by one, too."""

    name = "onnx of fp16"
    file = network = FP16_FILE
    folder, tolerance = "bundle_fp16", FP16_TOLERANCE
