"""Proof of a detector's file of fewer bits, beside that of every file: its layers, and what is float32 around them.

Every layer is held by itself against what it should give, in its own numbers, of the inputs that it has in the file. What
reads these numbers in float32 (RoIAlign, the last layers) is held against the fp32 model, on the file's own values and on
regions of all levels; and that model is proven as an fp32 file is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from slimexport.detector_proof.exact import regions_of_all_levels
from slimexport.detector_proof.inside import Inside
from slimexport.onnx_files.layer_proof.proof import Layers, computes_exactly, prove_layers, why_wrong
from slimexport.onnx_files.layer_proof.stored import wrong_number
from slimexport.onnx_files.parts.choosing import REGIONS
from slimexport.onnx_files.parts.cutting import cut_out, with_outputs
from slimexport.onnx_files.parts.writing import PartRecorded, PartsRecorded
from slimexport.onnx_files.runner import cpu_session
from slimexport.onnx_files.typed import cast_twin
from slimexport.target.arrays import Array
from slimexport.target.proof.comparing import Pair, compare_all
from slimexport.target.runners import runs_on_cpu
from slimtrain.base.image_size import ImageSize
from slimtrain.models.detector import DetectorSettings

MOST_REGIONS = 256  # that heads' layers are held against
AROUND = 1e-5  # of the scale: what float32 makes of the same numbers
DRAWN_IMAGES = 2


@dataclass(frozen=True)
class LowLayers:
    """Of all parts together: how many `layers`, the `worst` of them and how far it is off, of what it may be; the first
    `fault`. None of layers where this machine cannot compute them without loss."""

    layers: Layers | None
    fault: str = ""


def prove_low_layers(
    path: Path,
    precision: str,
    recorded: PartsRecorded,
    settings: DetectorSettings,
    image_size: ImageSize,
    images: Array,
    others: Array,
) -> LowLayers:
    """Hold the file at `path` against what was `recorded` that it is to compute, on float32 `images` [P, 3, H, W]; its layers
    on `others` too."""
    model = onnx.load(path)
    runnable = model if runs_on_cpu(precision) else cast_twin(model)
    proven: list[Layers] = []
    for one in recorded.parts:
        part = cut_out(model, one.part.cut)
        if wrong := wrong_number(part, one.recorded):
            return LowLayers(_together(proven) if proven else None, wrong)
        if not computes_exactly(one.recorded):
            continue
        given = np.concatenate([images, others]) if one.part.rows is None else _pooled(runnable, one, images)
        if not len(given):
            continue
        layers = prove_layers(part, one.recorded, given)
        proven.append(layers)
        if not layers.right:
            return LowLayers(_together(proven), why_wrong(layers))
    return LowLayers(_together(proven) if proven else None, _around(runnable, recorded, settings, image_size, images))


def _together(proven: Sequence[Layers]) -> Layers:
    worst = max(proven, key=lambda one: (np.isnan(one.error), one.error))
    return Layers(worst.worst, worst.error, sum(one.count for one in proven))


def _pooled(runnable: onnx.ModelProto, one: PartRecorded, images: Array) -> Array:
    """What a part begins with in the file, of regions of images: those that differ, as far as there is room."""
    session = cpu_session(with_outputs(runnable, [one.part.begin]))
    (image,) = (value.name for value in session.get_inputs())
    (given,) = session.run([one.part.begin], {image: images})
    _, first = np.unique(given.reshape(len(given), -1), axis=0, return_index=True)
    draw = np.random.default_rng(0)
    return np.ascontiguousarray(given[np.sort(draw.permutation(first)[:MOST_REGIONS])])


def _around(
    runnable: onnx.ModelProto, recorded: PartsRecorded, settings: DetectorSettings, image_size: ImageSize, images: Array
) -> str:
    """What is wrong with what reads the numbers of layers, in words; nothing where it is right."""
    file, base = Inside(runnable), Inside(recorded.base)
    ends = {name for part in recorded.parts for name in part.part.cut.outputs}
    begins = [part.part.begin for part in recorded.parts if part.part.rows is not None]
    regions = [key for key in file.names if key.endswith(REGIONS)]
    results = [key for key, name in file.names.items() if key not in regions and name not in ends]
    wanted = list(dict.fromkeys([*begins, *results]))
    values = _values(runnable, [*ends, *(file.names[key] for key in regions)], images)
    given = {name: values[name] for name in ends} | {key: values[file.names[key]] for key in regions}
    some = min(DRAWN_IMAGES, len(images))
    drawn = {key: array if key in regions else _of_some(array, some, len(images)) for key, array in given.items()}
    for key in regions:
        count = len(given[key]) // len(images)
        drawn[key] = regions_of_all_levels(image_size, settings, some, count)
    for fed, fed_images, where in ((given, images, "of its own values"), (drawn, images[:some], "on drawn regions")):
        theirs, ours = (side.of(fed, fed_images, wanted) for side in (file, base))
        comparison = compare_all([Pair(name, theirs[name], ours[name]) for name in wanted])
        if not comparison.within(AROUND):
            what = comparison.output or wanted[0]
            return f"{where} its {what} is off by {comparison.max_rel_error:.3g} of its scale (at most {AROUND:.0e})"
        if not regions:
            break
    return ""


def _values(runnable: onnx.ModelProto, names: Sequence[str], images: Array) -> dict[str, Array]:
    session = cpu_session(with_outputs(runnable, names))
    (image,) = (value.name for value in session.get_inputs())
    return dict(zip(names, session.run(list(names), {image: images}), strict=True))


def _of_some(array: Array, some: int, images: int) -> Array:
    """The rows of the first images."""
    return array[: len(array) // images * some]
