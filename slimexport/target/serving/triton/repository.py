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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from slimexport.target.backends import ENGINES, ONNX, TRT
from slimexport.target.errors import BundleError
from slimexport.target.manifest import MANIFEST, Artifact, Manifest, artifact_path
from slimexport.target.onnx_scan import check_onnx
from slimexport.target.precision import EXACT, row_of
from slimexport.target.proof.detector_verdict import TENSORRT_S, is_tensorrt_s
from slimexport.target.tensors import Result
from slimtrain.base.files import Advice, disk_error, partial_name, unfinished
from slimtrain.base.folders.claim import claimed
from slimtrain.base.folders.replacing import Identity, exchange, identity, settle_left
from slimtrain.base.image_size import format_size
from slimtrain.base.untrusted.opening import open_file
from slimtrain.base.untrusted.quoting import quoted

log = logging.getLogger(__name__)

MAX_BATCH = 32  # of ONNX files, whose batch is dynamic; an engine's is its profile's
PREFERRED = 8  # a batch that most devices run at nearly the latency of one image
VERSION = "1"
CONFIG = "config.pbtxt"
LABELS = "labels.txt"  # a class's name per line, which clients of classification get beside the score
MARK = "# written by slimexport"  # in the first line of a config.pbtxt: what --overwrite may replace
FILES = {ONNX: "model.onnx", TRT: "model.plan"}
ASIDE = ".old"  # within what is made: models that make room, which cannot be the name of one
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
NARROWED = {"int64": "TYPE_INT32"}  # by TensorRT 8


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
    folder = checked_folder(bundle, folder)
    if folder.exists() and not overwrite:
        settle_left(folder, recover)
        raise BundleError(f"{folder}: exists. Choose another folder, or replace its models with --overwrite.")
    models = []
    for name, artifact in model_names(bundle, manifest):
        config = model_config(bundle, manifest, artifact, name, batch)
        file = served_file(bundle, manifest, artifact)
        models.append(Model(name, {CONFIG: config, **labels_of(manifest)}, {FILES[artifact.format]: file}))
    with staged(folder, models) as staging:
        if folder.exists() and not overwrite:
            raise BundleError(f"{folder}: was made by another process in the meantime. Nothing was changed.")
        publish(staging, folder, instead=is_own)
    return [model.name for model in models]


def checked_folder(bundle: Path, folder: Path) -> Path:
    """The absolute path of a repository. BundleError where none can be."""
    folder = Path(os.path.abspath(folder))
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise BundleError(f"{folder}: exists and is no ordinary folder. Choose another.")
    if folder.resolve() == bundle.resolve():
        raise BundleError(f"{folder}: is the bundle itself. Choose another folder for the model repository.")
    return folder


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


def served_file(bundle: Path, manifest: Manifest, artifact: Artifact) -> Path:
    """The path of an artifact's file. BundleError where it is not what the manifest says; of an ONNX file, also where its
    input and outputs are called otherwise: no server would load the model, as its configuration is of the manifest."""
    path = artifact_path(bundle, artifact)
    if artifact.format == ONNX:
        outline = check_onnx(path)
        if is_tensorrt_s(manifest.detector):
            raise BundleError(f"{path}: {TENSORRT_S}.")
        inputs, outputs = [manifest.input.name], [result.name for result in manifest.results]
        if list(outline.inputs) != inputs or sorted(outline.outputs) != sorted(outputs):
            raise BundleError(
                f"{path}: takes {quoted(list(outline.inputs))} and gives {quoted(list(outline.outputs))}, {MANIFEST} says "
                f"{quoted(inputs)} and {quoted(outputs)}: one of them was edited, or is of another bundle. Export again."
            )
    return path


def labels_of(manifest: Manifest) -> dict[str, str]:
    """The file of the classes' names, a line each, where they are known."""
    names = manifest.output.class_names if manifest.classifies else None
    return {LABELS: "".join(f"{' '.join(name.split())}\n" for name in names)} if names else {}


def model_config(bundle: Path, manifest: Manifest, artifact: Artifact, name: str, max_batch: int) -> str:
    """The text of an artifact's `config.pbtxt`. BundleError where the manifest says what cannot be."""
    plan = artifact.format == TRT
    smallest, best, largest = (1, min(PREFERRED, max_batch), max_batch)
    if plan:
        if artifact.engine is None:
            raise BundleError(f"{bundle / MANIFEST}: does not say what {name} was built for (engine is null). Build it again.")
        smallest, best, largest = artifact.engine.batch
    check_tensors(bundle, manifest, name, (smallest, best, largest))
    lines = [
        f"{MARK}, sha256 {artifact.sha256}",
        f'name: "{name}"',
        'platform: "tensorrt_plan"' if plan else 'backend: "onnxruntime"',
        *tensor_lines(manifest, largest, engines=[artifact] if plan else []),
    ]
    if largest > 1:
        sizes = ", ".join(map(str, sorted({best, largest} - {1})))
        lines += ["dynamic_batching {", f"  preferred_batch_size: [ {sizes} ]", "}"]
    if plan:
        lines += block("instance_group [", "count: 1", "kind: KIND_GPU")
    for batch in sorted({smallest, largest}):
        lines += _warmup(batch, manifest)
    return "\n".join(lines) + "\n"


def check_tensors(bundle: Path, manifest: Manifest, name: str, batch: tuple[int, int, int]) -> None:
    """BundleError where no server could hold a model of this input, these outputs and batches."""
    shape, results, classes = manifest.input.input_shape, manifest.results, manifest.output.classes
    smallest, best, largest = batch
    if not (1 <= smallest <= best <= largest and min(shape) >= 1 and (classes >= 1 or not manifest.classifies)):
        raise BundleError(
            f"{bundle / MANIFEST}: {name} has batches {smallest}:{best}:{largest}, {manifest.input.channels} channels, "
            f"{format_size(manifest.input.image_size)} pixels and {classes} classes, expected positive numbers and batches in "
            "order. Export again."
        )
    wrong = [
        repr(tensor) for tensor in (manifest.input.name, *(result.name for result in results)) if not TENSOR.fullmatch(tensor)
    ]
    if wrong:
        raise BundleError(f"{bundle / MANIFEST}: {' and '.join(wrong)} are no names of tensors. Export again.")
    for result in results:
        if result.rows != 1:
            raise BundleError(
                f"{bundle}: output {result.name} is {list(result.shape)}: Triton takes a row for each image alone. Export a "
                "network without it."
            )


def tensor_lines(manifest: Manifest, max_batch: int, more: Sequence[str] = (), engines: Sequence[Artifact] = ()) -> list[str]:
    """The largest batch, the input and the outputs, with `more` of them; of `engines` in the types that they give."""
    kinds = {**TYPES, **(NARROWED if any(map(narrows, engines)) else {})}
    labels = [f'label_filename: "{LABELS}"'] if labels_of(manifest) else []
    dims = ", ".join(map(str, manifest.input.input_shape))
    return [
        f"max_batch_size: {max_batch}",
        *block("input [", f'name: "{manifest.input.name}"', "data_type: TYPE_FP32", f"dims: [ {dims} ]"),
        *_outputs(manifest.results, labels, more, kinds),
    ]


def narrows(artifact: Artifact) -> bool:
    """Whether an engine is of a TensorRT that has no INT64."""
    return artifact.engine is not None and artifact.engine.tensorrt.startswith("8.")


def _outputs(results: Sequence[Result], labels: Sequence[str], more: Sequence[str], kinds: Mapping[str, str]) -> Iterator[str]:
    """The outputs: a single number of each image is an array of one."""
    yield "output ["
    for result in results:
        own = ", ".join(map(str, result.own_shape))
        kind = f"data_type: {kinds[result.dtype]}"
        shape = [f"dims: [ {own} ]"] if own else ["dims: [ 1 ]", "reshape { shape: [ ] }"]
        comma = "," * (result is not results[-1] or bool(more))
        fields = [f'name: "{result.name}"', kind, *shape, *labels]
        yield from ("  {", *(f"    {field}" for field in fields), f"  }}{comma}")
    if more:
        yield from ("  {", *(f"    {field}" for field in more), "  }")
    yield "]"


def block(opening: str, *fields: str) -> Iterator[str]:
    """A list of one message."""
    yield from (opening, "  {", *(f"    {field}" for field in fields), "  }", "]")


def _warmup(batch: int, manifest: Manifest) -> Iterator[str]:
    """Random images of one batch size that run before the model takes requests."""
    dims = ", ".join(map(str, manifest.input.input_shape))
    yield from (
        "model_warmup {",
        f'  name: "batch_{batch}"',
        f"  batch_size: {batch}",
        "  inputs {",
        f'    key: "{manifest.input.name}"',
        "    value {",
        "      data_type: TYPE_FP32",
        f"      dims: [ {dims} ]",
        "      random_data: true",
        "    }",
        "  }",
        "}",
    )


# ------------------------------------------------------------------------------------------------------------- writing


@dataclass(frozen=True)
class Model:
    """A model's folder: texts beside its version's folder, files in that, each linked from a bundle, and texts in that."""

    name: str
    texts: Mapping[str, str]
    files: Mapping[str, Path]
    inner_texts: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def staged(folder: Path, models: Sequence[Model]) -> Iterator[Path]:
    """Models, written in a hidden folder beside a repository, for the block to publish; gone at its end. The repository is
    this process's meanwhile. OSError, in the block too, is what `disk_error` says."""
    with ExitStack() as undo:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            if undo.enter_context(claimed(folder, "Wait for it, or choose another folder.")):
                recover(folder)
            staging = partial_name(folder)
            undo.callback(shutil.rmtree, staging, ignore_errors=True)
            staging.mkdir()
            for model in models:
                _write_model(staging / model.name, model)
            yield staging
        except OSError as error:
            raise disk_error(folder, error, ADVICE) from error


def recover(folder: Path) -> None:
    """Settle what killed processes left of writing a repository, whose claim is held: a model that had made room gets its name
    back where nothing has it, and what had begun is removed. OSError."""
    for left in unfinished(folder):
        for model in sorted(left.glob(f"{ASIDE}/*")):
            if folder.is_dir() and not os.path.lexists(folder / model.name):
                os.rename(model, folder / model.name)
        shutil.rmtree(left, ignore_errors=True)


def _write_model(target: Path, model: Model) -> None:
    version = target / VERSION
    version.mkdir(parents=True)
    for name, source in model.files.items():
        try:
            os.link(source.resolve(), version / name)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, version / name)
            _flush(version / name)
    texts = {target / name: text for name, text in model.texts.items()}
    texts |= {version / name: text for name, text in model.inner_texts.items()}
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
        _flush(path)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def publish(staging: Path, folder: Path, instead: Callable[[Path], bool]) -> None:
    """Give the repository its final name, or its models theirs in a repository that is there, in place of those of the same
    names and of what else `instead` says; other models do not move."""
    if not folder.exists():
        os.rename(staging, folder)
        return
    new = sorted(staging.iterdir())
    names = {model.name for model in new}
    old = staging / ASIDE  # removed with it
    old.mkdir()
    moves = [(model, folder / model.name) for model in new]  # each is at once the new one; then the others go
    moves += [(entry, old / entry.name) for entry in sorted(folder.iterdir()) if entry.name not in names and instead(entry)]
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


def is_own(model: Path) -> bool:
    """Whether a model's folder was written here."""
    try:
        with open_file(model / CONFIG) as file:  # which waits for no FIFO
            return file.read(len(MARK)) == MARK.encode()
    except OSError:
        return False
