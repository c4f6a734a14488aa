"""One model of a Triton repository that holds several widths of a bundle, and chooses one for every batch (`model`).

`NETWORK/config.pbtxt`, whose parameters an operator may edit; `NETWORK/1/` with the widths' files, `widths.json`, which says
what they are, and the Python files that serve them, copied from this package so that the server needs none of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from slimexport.target.backends import CPU, TENSORRT, TRT, format_of
from slimexport.target.cuda.device import sm
from slimexport.target.errors import BundleError
from slimexport.target.manifest import MANIFEST, Artifact, Manifest, dump_json
from slimexport.target.precision import EXACT, row_of
from slimexport.target.serving.choosing import Candidate, front, spread
from slimexport.target.serving.opening import accuracy_of, artifacts_of, label_of
from slimexport.target.serving.policy import DEFAULT
from slimexport.target.serving.scheduling import REFUSE
from slimexport.target.serving.triton.model import WIDTH, Settings
from slimexport.target.serving.triton.repository import (
    CONFIG,
    MARK,
    MAX_BATCH,
    NAME,
    NARROWED,
    PREFERRED,
    Model,
    block,
    check_tensors,
    checked_folder,
    is_own,
    labels_of,
    narrows,
    publish,
    recover,
    served_file,
    staged,
    tensor_lines,
)
from slimexport.target.serving.triton.widths import ENGINE, ONNX, WIDTHS
from slimexport.target.tensorrt.plan_header import fit_together
from slimtrain.base.folders.replacing import settle_left
from slimtrain.base.text import some

SERVING, TRITON, CUDA = "slimexport.target.serving", "slimexport.target.serving.triton", "slimexport.target.cuda"
# Modules, by what their copies are called
COPIED = {
    **{f"{SERVING}.{name}": name for name in ("policy", "correcting", "requests", "scheduling", "measuring")},
    **{f"{TRITON}.{name}": name for name in ("model", "widths")},
}
FOR_ENGINES = {
    f"{TRITON}.engine": "engine",
    **{f"{CUDA}.{name}": f"cuda_{name}" for name in ("library", "runtime")},
    **{"slimexport.target.errors": "errors", "slimtrain.base.errors": "base_errors"},
}
IMPORT = re.compile(r"^( *)from ([\w.]+) import ", re.MULTILINE)
ROOT = Path(__file__).parents[4]  # of the packages
QUEUE = 1000


def write_adaptive(
    bundle: Path,
    manifest: Manifest,
    folder: Path,
    *,
    slo_ms: float = 50.0,
    policy: str = DEFAULT,
    widths: Sequence[float | str] | None = None,
    precision: str = EXACT,
    backend: str = CPU,
    max_batch: int | None = None,
    overwrite: bool = False,
) -> list[str]:
    """Add a model to the repository `folder`, which is made where there is none, that serves `widths` of `bundle`; its name,
    that of the network, alone in a list.

    `widths`: by default five that spread best over the Pareto front of multiply-accumulates and accuracy. `slo_ms`, `policy`:
    as in `Runtime`; they become parameters of the model. `backend`: `onnxruntime-cpu`, or `tensorrt` for the bundle's engines
    on the server's first GPU. `max_batch`: the most images of a request and of a run (default 32; engines: their largest).
    Files are hard links where the file system has them, else copies. The model appears at once and whole; others stay. With
    `overwrite` it replaces one of its name that was written here.

    Raises BundleError for what the bundle does not hold or the options say wrongly, a model of that name that is there or a
    folder that cannot be written, MissingBackend for a full disk.
    """
    folder = checked_folder(bundle, folder)
    name = manifest.source.network
    if not NAME.fullmatch(name):
        raise BundleError(f"{bundle / MANIFEST}: {name!r} cannot name a model, expected letters, digits and underscores.")
    _check_place(folder / name, overwrite)
    chosen = _chosen(bundle, manifest, precision, backend, widths)
    batch = _largest(chosen) if max_batch is None else max_batch
    if not 1 <= batch <= (_largest(chosen) if backend == TENSORRT else batch):
        raise BundleError(f"largest batch {batch}: expected a number of images, 1 or more, and no more than an engine takes.")
    labels = [label_of(artifact, manifest) for artifact in chosen]
    parameters = {"slo_ms": f"{slo_ms:.12g}", "policy": policy, "late": REFUSE, "queue": str(QUEUE), "threads": "0"}
    try:
        Settings.of({key: {"string_value": value} for key, value in parameters.items()}, labels)
    except ValueError as error:
        raise BundleError(str(error)) from error
    check_tensors(bundle, manifest, name, (1, min(PREFERRED, batch), batch))
    if WIDTH in (manifest.input.name, *(result.name for result in manifest.results)):
        raise BundleError(f"{bundle}: has a tensor called {WIDTH!r}, as the output that tells the width. Name it otherwise.")
    files = {_file(artifact): served_file(bundle, manifest, artifact) for artifact in chosen}
    model = Model(
        name,
        {CONFIG: _config(manifest, name, batch, backend, parameters, chosen), **labels_of(manifest)},
        files,
        {WIDTHS: _described(manifest, chosen, slo_ms, policy), **copies(backend)},
    )
    with staged(folder, [model]) as staging:
        _check_place(folder / name, overwrite)  # the folder is this process's now
        publish(staging, folder, instead=lambda other: False)
    return [name]


def copies(backend: str = CPU) -> dict[str, str]:
    """The Python files of a model, by name: those of this package, which import each other from beside them."""
    names = {**COPIED, **(FOR_ENGINES if backend == TENSORRT else {})}

    def beside(match: re.Match[str]) -> str:
        return f"{match[1]}from .{names[match[2]]} import " if match[2] in names else match[0]

    texts = {name: ROOT.joinpath(*module.split(".")).with_suffix(".py") for module, name in names.items()}
    return {f"{name}.py": IMPORT.sub(beside, path.read_text(encoding="utf-8")) for name, path in texts.items()}


def _check_place(place: Path, overwrite: bool) -> None:
    if not (place.exists() or place.is_symlink()):
        return
    if not overwrite:
        settle_left(place.parent, recover)
        raise BundleError(f"{place}: exists. Choose another folder, or replace the model with --overwrite.")
    if not is_own(place):
        raise BundleError(f"{place}: exists and was not written by slimexport. Choose another folder.")


def _chosen(
    bundle: Path, manifest: Manifest, precision: str, backend: str, widths: Sequence[float | str] | None
) -> list[Artifact]:
    """From the fewest multiply-accumulates to the most."""
    if backend not in (CPU, TENSORRT):
        raise BundleError(f"backend {backend!r}: a model that chooses widths runs on {CPU} or {TENSORRT}.")
    if backend == CPU and not row_of(precision).served:
        raise BundleError(f"{precision} files are made for {' and '.join(row_of(precision).made_for)}, not for onnxruntime.")
    artifacts = artifacts_of(bundle, manifest, format_of(backend), precision, widths)
    if not artifacts:
        kind = "ONNX file" if backend == CPU else "TensorRT engine"
        raise BundleError(f"{bundle}: holds no {precision} {kind}. Export or build it, or choose another precision.")
    for artifact in artifacts:
        if backend == TENSORRT and artifact.engine is None:
            raise BundleError(f"{bundle / MANIFEST}: does not say what {artifact.file} was built for. Build it again.")
    if backend == TENSORRT:
        _check_together(bundle, manifest, artifacts)
    if widths is None:
        candidates = [Candidate(artifact, float(max(1, artifact.macs)), accuracy_of(artifact)) for artifact in artifacts]
        artifacts = [candidate.artifact for candidate in spread(front(candidates))]
    labels = [label_of(artifact, manifest) for artifact in artifacts]
    if len(set(labels)) < len(labels) or not all(NAME.fullmatch(artifact.name) for artifact in artifacts):
        raise BundleError(
            f"{bundle / MANIFEST}: names its files {', '.join(repr(artifact.name) for artifact in artifacts)} of widths "
            f"{', '.join(labels)}, expected letters, digits and underscores, and no width twice. Export again."
        )
    return artifacts


def _check_together(bundle: Path, manifest: Manifest, artifacts: Sequence[Artifact]) -> None:
    """BundleError unless one server can load all of these engines, and they give one type of each output: TensorRT 8 gives
    int32 where later ones give int64."""
    engines = [artifact.engine for artifact in artifacts if artifact.engine is not None]
    kinds = {narrows(artifact) for artifact in artifacts} if any(r.dtype in NARROWED for r in manifest.results) else set()
    if fit_together(engines) and len(kinds) < 2:
        return
    builders: dict[str, list[str]] = {}
    for artifact, engine in zip(artifacts, engines, strict=True):
        gpu = f" for {sm(engine.compute_capability)}" if engine.compute_capability else ""
        builders.setdefault(f"TensorRT {engine.tensorrt}{gpu}", []).append(label_of(artifact, manifest))
    raise BundleError(
        f"{bundle}: its engines were built by {'; '.join(f'{by}: {some(known)}' for by, known in builders.items())}. A model "
        "is one server's, which has one TensorRT and one GPU. Name widths of one with --widths, or build all of them there: "
        "--format trt."
    )


def _largest(chosen: Sequence[Artifact]) -> int:
    """The most images that all of them take."""
    return min((artifact.engine.batch[2] for artifact in chosen if artifact.engine is not None), default=MAX_BATCH)


def _file(artifact: Artifact) -> str:
    """What an artifact's file is called in the model: a manifest's own name could be that of a Python file."""
    return f"{artifact.name}{ENGINE if artifact.format == TRT else ONNX}"


def _config(
    manifest: Manifest, name: str, batch: int, backend: str, parameters: dict[str, str], chosen: Sequence[Artifact]
) -> str:
    """The text of `config.pbtxt`. Of several GPUs the first is used: the CUDA runtime's current one."""
    place = ("kind: KIND_GPU", "gpus: [ 0 ]") if backend == TENSORRT else ("kind: KIND_CPU",)
    lines = [
        f"{MARK}; the parameters at the end may be edited",
        f'name: "{name}"',
        'backend: "python"',
        *tensor_lines(manifest, batch, (f'name: "{WIDTH}"', "data_type: TYPE_STRING", "dims: [ 1 ]"), chosen),
        *("dynamic_batching {", "  max_queue_delay_microseconds: 0  # the model has a queue of its own", "}"),
        *block("instance_group [", "count: 1", *place),
    ]
    for key, value in parameters.items():
        lines += ["parameters {", f'  key: "{key}"', f'  value {{ string_value: "{value}" }}', "}"]
    return "\n".join(lines) + "\n"


def _described(manifest: Manifest, chosen: Sequence[Artifact], slo_ms: float, policy: str) -> str:
    """The text of `widths.json`: what the files are, and with what settings they were written."""
    entries = [
        {
            "label": label_of(artifact, manifest),
            "file": _file(artifact),
            "sha256": artifact.sha256,
            "macs": artifact.macs,
            "accuracy": accuracy_of(artifact),
            **({} if artifact.engine is None else {"host_code": "VERSION_COMPATIBLE" in artifact.engine.flags}),
        }
        for artifact in chosen
    ]
    return dump_json({"network": manifest.source.network, "slo_ms": slo_ms, "policy": policy, "widths": entries}) + "\n"
