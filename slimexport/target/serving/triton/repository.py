"""A model repository for the Triton Inference Server: one model per artifact of a bundle.

Triton serves the latest version of a model only, so each width, format and precision is a model of its own:
`NAME/config.pbtxt` and `NAME/1/model.onnx` or `NAME/1/model.plan`. The form is that of `model_config.proto` in
triton-inference-server/common.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from slimexport.target.backends import ENGINES, ONNX, TRT
from slimexport.target.errors import BundleError
from slimexport.target.manifest import MANIFEST, Artifact, Manifest, artifact_path
from slimexport.target.precision import EXACT, row_of
from slimexport.target.tensors import Result
from slimtrain.base.files import Advice, disk_error, partial_name
from slimtrain.base.folders.claim import claimed
from slimtrain.base.folders.replacing import Identity, exchange, identity, unfinished
from slimtrain.base.image_size import format_size
from slimtrain.base.untrusted.opening import open_file

log = logging.getLogger(__name__)

MAX_BATCH = 32  # of ONNX files, whose batch is dynamic; an engine's is its profile's
PREFERRED = 8  # a batch that most devices run at nearly the latency of one image
VERSION = "1"
CONFIG = "config.pbtxt"
LABELS = "labels.txt"  # a class's name per line, which clients of classification get beside the score
MARK = "# written by slimexport"  # in the first line of a config.pbtxt: what --overwrite may replace
FILES = {ONNX: "model.onnx", TRT: "model.plan"}
ADVICE = Advice(
    "Nothing was changed. Free some space, or choose another folder.", "Nothing was changed. Choose another folder."
)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
TENSOR = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
TYPES = {
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "int8": "TYPE_INT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "uint8": "TYPE_UINT8",
    "bool": "TYPE_BOOL",
}


def write_repository(
    bundle: Path, manifest: Manifest, folder: Path, *, max_batch: int | None = None, overwrite: bool = False
) -> list[str]:
    """Write a model repository of the artifacts of `bundle` to `folder`; the models' names. ONNX files that are
    not made for onnxruntime (`Precision.made_for`) are left out, with a warning.

    `max_batch` is that of ONNX files (default 32). Files are hard links where the file system has them, else copies.
    `folder` appears at once and whole. With `overwrite`, a repository that was there loses the models that this wrote
    before and those of the same names; other models stay.

    Raises BundleError for a folder that exists or cannot be written, a missing or changed file or a damaged manifest,
    MissingBackend for a full disk.
    """
    batch = MAX_BATCH if max_batch is None else max_batch
    if batch < 1:
        raise BundleError(f"largest batch {batch}: expected a number of images, 1 or more.")
    folder = Path(os.path.abspath(folder))
    _check_folder(bundle, folder, overwrite)
    models = []
    for name, artifact in model_names(bundle, manifest):
        config = model_config(bundle, manifest, artifact, name, batch)
        models.append((name, artifact_path(bundle, artifact), FILES[artifact.format], config))
    names = manifest.output.class_names if manifest.classifies else None
    with ExitStack() as undo:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            if undo.enter_context(claimed(folder, "Wait for it, or choose another folder.")):
                for left in unfinished(folder):
                    shutil.rmtree(left, ignore_errors=True)
            staging = partial_name(folder)
            undo.callback(shutil.rmtree, staging, ignore_errors=True)
            staging.mkdir()
            for name, source, file, config in models:
                _write_model(staging / name, source, file, config, names)
            _publish(staging, folder, overwrite)
        except OSError as error:
            raise disk_error(folder, error, ADVICE) from error
    return [name for name, *_ in models]


def _check_folder(bundle: Path, folder: Path, overwrite: bool) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise BundleError(f"{folder}: exists and is no ordinary folder. Choose another.")
    if folder.exists() and not overwrite:
        raise BundleError(f"{folder}: exists. Choose another folder, or replace its models with --overwrite.")
    if folder.resolve() == bundle.resolve():
        raise BundleError(f"{folder}: is the bundle itself. Choose another folder for the model repository.")


# ------------------------------------------------------------------------------------------------------- what is served


def model_names(bundle: Path, manifest: Manifest) -> list[tuple[str, Artifact]]:
    """The artifacts to serve with their models' names: the artifact's, its precision unless that is fp32, `trt` for an
    engine. BundleError where there are none, or names are no names or not unique."""
    named: dict[str, Artifact] = {}
    for artifact in manifest.artifacts:
        name, precision, form = artifact.name, artifact.precision, artifact.format
        if form in ENGINES and form not in FILES:
            log.warning(
                "%s: Triton's TensorRT does not load %s engines. Serve ONNX files or trt engines.", artifact.file, form
            )
            continue
        if form not in FILES:
            raise BundleError(f"{bundle / MANIFEST}: {name} has format {form!r}, expected one of {', '.join(FILES)}.")
        if form == ONNX and not row_of(precision).served:
            log.warning(
                "%s: the %s file is made for %s, so onnxruntime is not to serve it. Serve fp32, fp16, int8-cpu or an engine.",
                name,
                precision,
                " and ".join(row_of(precision).made_for),
            )
            continue
        ends = [precision.replace("-", "_")] * (precision != EXACT) + ["trt"] * (form == TRT)
        model = "_".join([name, *ends])
        if not NAME.fullmatch(model) or model in named:
            raise BundleError(
                f"{bundle / MANIFEST}: {model!r} cannot name a model, expected letters, digits and underscores, and no two "
                "the same. The manifest was edited or damaged, export again."
            )
        named[model] = artifact
    if not named:
        raise BundleError(f"{bundle}: has no file that Triton could serve. Export fp32, fp16 or int8, or build engines.")
    return list(named.items())


def model_config(bundle: Path, manifest: Manifest, artifact: Artifact, name: str, max_batch: int) -> str:
    """The text of an artifact's `config.pbtxt`. BundleError where the manifest says what cannot be."""
    plan = artifact.format == TRT
    image, results, classes = manifest.input.name, manifest.results, manifest.output.classes
    shape = manifest.input.input_shape
    dims = ", ".join(map(str, shape))
    labels = [f'label_filename: "{LABELS}"'] if manifest.output.class_names and manifest.classifies else []
    smallest, best, largest = (1, min(PREFERRED, max_batch), max_batch)
    if plan:
        if artifact.engine is None:
            raise BundleError(f"{bundle / MANIFEST}: does not say what {name} was built for (engine is null). Build it again.")
        smallest, best, largest = artifact.engine.batch
    if not (1 <= smallest <= best <= largest and min(shape) >= 1 and (classes >= 1 or not manifest.classifies)):
        raise BundleError(
            f"{bundle / MANIFEST}: {name} has batches {smallest}:{best}:{largest}, {manifest.input.channels} channels, "
            f"{format_size(manifest.input.image_size)} pixels and {classes} classes, expected positive numbers and batches in "
            "order. Export again."
        )
    wrong = [repr(tensor) for tensor in (image, *(result.name for result in results)) if not TENSOR.fullmatch(tensor)]
    if wrong:
        raise BundleError(f"{bundle / MANIFEST}: {' and '.join(wrong)} are no names of tensors. Export again.")
    for result in results:
        if result.rows != 1:
            raise BundleError(
                f"{bundle}: output {result.name} is {list(result.shape)}: Triton takes a row for each image alone. Export a "
                "network without it."
            )
    lines = [
        f"{MARK}, sha256 {artifact.sha256}",
        f'name: "{name}"',
        'platform: "tensorrt_plan"' if plan else 'backend: "onnxruntime"',
        f"max_batch_size: {largest}",
        *_block("input [", f'name: "{image}"', "data_type: TYPE_FP32", f"dims: [ {dims} ]"),
        *_outputs(results, labels),
    ]
    if largest > 1:
        sizes = ", ".join(map(str, sorted({best, largest} - {1})))
        lines += ["dynamic_batching {", f"  preferred_batch_size: [ {sizes} ]", "}"]
    if plan:
        lines += _block("instance_group [", "count: 1", "kind: KIND_GPU")
    for batch in sorted({smallest, largest}):
        lines += _warmup(batch, image, dims)
    return "\n".join(lines) + "\n"


def _outputs(results: Sequence[Result], labels: Sequence[str]) -> Iterator[str]:
    """The outputs: a single number of each image is an array of one."""
    yield "output ["
    for result in results:
        own = ", ".join(map(str, result.own_shape))
        kind = f"data_type: {TYPES[result.dtype]}"
        shape = [f"dims: [ {own} ]"] if own else ["dims: [ 1 ]", "reshape { shape: [ ] }"]
        comma = "," * (result is not results[-1])
        fields = [f'name: "{result.name}"', kind, *shape, *labels]
        yield from ("  {", *(f"    {field}" for field in fields), f"  }}{comma}")
    yield "]"


def _block(opening: str, *fields: str) -> Iterator[str]:
    """A list of one message."""
    yield from (opening, "  {", *(f"    {field}" for field in fields), "  }", "]")


def _warmup(batch: int, image: str, dims: str) -> Iterator[str]:
    """Random images of one batch size that run before the model takes requests."""
    yield from (
        "model_warmup {",
        f'  name: "batch_{batch}"',
        f"  batch_size: {batch}",
        "  inputs {",
        f'    key: "{image}"',
        "    value {",
        "      data_type: TYPE_FP32",
        f"      dims: [ {dims} ]",
        "      random_data: true",
        "    }",
        "  }",
        "}",
    )


# ------------------------------------------------------------------------------------------------------------- writing


def _write_model(model: Path, source: Path, file: str, config: str, class_names: Sequence[str] | None) -> None:
    """One model's folder."""
    (model / VERSION).mkdir(parents=True)
    target = model / VERSION / file
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
        _flush(target)
    texts = {CONFIG: config}
    if class_names:
        texts[LABELS] = "".join(f"{' '.join(name.split())}\n" for name in class_names)  # a line is a class
    for text_file, text in texts.items():
        (model / text_file).write_text(text, encoding="utf-8")
        _flush(model / text_file)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _publish(staging: Path, folder: Path, overwrite: bool) -> None:
    """Give the repository its final name, or its models theirs in a repository that is there: others' do not move."""
    if not folder.exists():
        os.rename(staging, folder)
        return
    if not overwrite:
        raise BundleError(f"{folder}: was made by another process in the meantime. Nothing was changed.")
    new = sorted(staging.iterdir())
    names = {model.name for model in new}
    old = staging / "old"  # removed with it
    while old.name in names:
        old = old.with_name(f"{old.name}_")
    old.mkdir()
    moves = [(model, folder / model.name) for model in new]  # each is at once the new one; then the others go
    moves += [(entry, old / entry.name) for entry in sorted(folder.iterdir()) if entry.name not in names and _is_own(entry)]
    begun: list[_Move] = []
    try:
        for source, target in moves:
            begun.append(_Move(source, target, old / target.name, identity(source)))
            begun[-1].do()
    except BaseException:
        for move in reversed(begun):
            move.undo()
        raise


@dataclass(frozen=True)
class _Move:
    """`source`, which is `what`, gets the name of `target`. What has that gets the name of `source`, or goes `aside` where two
    names cannot be swapped."""

    source: Path
    target: Path
    aside: Path
    what: Identity | None

    def do(self) -> None:
        """OSError."""
        if os.path.lexists(self.target) and not exchange(self.source, self.target):
            os.rename(self.target, self.aside)
        if identity(self.target) != self.what:
            os.rename(self.source, self.target)

    def undo(self) -> None:
        """As it was before, however far it came. OSError."""
        if identity(self.target) == self.what and not (os.path.lexists(self.source) and exchange(self.source, self.target)):
            os.rename(self.target, self.source)
        if os.path.lexists(self.aside) and not os.path.lexists(self.target):
            os.rename(self.aside, self.target)


def _is_own(model: Path) -> bool:
    """Whether a model's folder was written here."""
    try:
        with open_file(model / CONFIG) as file:  # which waits for no FIFO
            return file.read(len(MARK)) == MARK.encode()
    except OSError:
        return False
