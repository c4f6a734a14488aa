"""A file of which only parts have fewer bits: each part is written as a network of its own is, by the writer of its precision.

Int8 scales of what begins with regions are measured on what the fp32 model pools of them on the calibration images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import onnx

from slimexport.onnx_files.calibration import Calibration
from slimexport.onnx_files.pairs import Recorded
from slimexport.onnx_files.parts.choosing import LowPart, low_parts
from slimexport.onnx_files.parts.cutting import cut_out, with_outputs
from slimexport.onnx_files.parts.joining import joined
from slimexport.onnx_files.runner import cpu_session
from slimexport.onnx_files.writers import WRITERS, Original, Written
from slimexport.target.arrays import Array
from slimexport.target.manifest import Agreement, Int8, Rounding
from slimexport.target.precision import EXACT, Precision
from slimtrain.base.errors import UserError
from slimtrain.data.images import Images

MOST_BYTES = 2**26  # of what is pooled of regions to calibrate on
AT_ONCE = 64  # regions


@dataclass(frozen=True)
class PartRecorded:
    """What a part of a file is to compute: it is written from `recorded.base`, and begins and ends in the file as `part` says,
    by names that are the fp32 model's."""

    part: LowPart
    recorded: Recorded


@dataclass(frozen=True)
class PartsRecorded:
    """What a file is to compute that is written from the fp32 `model` in `parts`."""

    model: onnx.ModelProto
    parts: tuple[PartRecorded, ...]

    @property
    def bases(self) -> tuple[onnx.ModelProto, ...]:
        """The fp32 parts."""
        return tuple(one.recorded.base for one in self.parts)

    @cached_property
    def base(self) -> onnx.ModelProto:
        """The fp32 model with the parts as they were written from: it must be right for the file to be."""
        cuts = [one.part.cut for one in self.parts]
        return joined(self.model, cuts, self.bases, EXACT).model


@dataclass(frozen=True)
class PartsWritten:
    """A model as `onnx_files.writers.Written` has it, in parts."""

    model: onnx.ModelProto
    recorded: PartsRecorded | None = None
    rounding: Rounding | None = None
    int8: Int8 | None = None


class PartsOriginal:
    """The fp32 `model` of a plan, cut into the parts that may have fewer bits. `inner`: what its inner values are called;
    `calibration`: the images that int8 needs."""

    def __init__(self, model: onnx.ModelProto, inner: Mapping[str, str], calibration: Calibration | None = None) -> None:
        self.model, self.inner, self.calibration = model, inner, calibration

    @cached_property
    def parts(self) -> list[LowPart]:
        """UserError where there are none."""
        parts = low_parts(self.model, self.inner)
        if not parts:
            raise UserError(f"{self.model.graph.name}: has no hidden layers, which fewer bits are for. Export fp32.")
        return parts

    @cached_property
    def originals(self) -> list[Original]:
        """Each part as a model of its own."""
        calibrations = [None] * len(self.parts) if self.calibration is None else self._calibrations(self.calibration)
        return [
            Original(cut_out(self.model, part.cut, self.model.graph.name), calibration)
            for part, calibration in zip(self.parts, calibrations, strict=True)
        ]

    def write(self, file: Precision) -> PartsWritten:
        """The file of a precision."""
        if file.name == EXACT:
            return PartsWritten(self.model)
        written = [WRITERS[file.name](original) for original in self.originals]
        cuts = [part.cut for part in self.parts]
        whole = joined(self.model, cuts, [one.model for one in written], file.name)
        recorded = tuple(_recorded(*one) for one in zip(self.parts, written, whole.renamed, strict=True))
        return PartsWritten(whole.model, PartsRecorded(self.model, recorded), _rounding(written), _int8(written))

    def _calibrations(self, calibration: Calibration) -> list[Calibration | None]:
        """For each part, on what it begins with."""
        regions = [part for part in self.parts if part.rows is not None]
        fit = self._pooled(calibration.fit, regions)
        held = self._pooled(calibration.held, regions)
        return [
            calibration if part.rows is None else replace(calibration, fit=fit[part.begin], held=held[part.begin])
            for part in self.parts
        ]

    def _pooled(self, batches: Sequence[Images], parts: Sequence[LowPart]) -> dict[str, list[Array]]:
        """What parts begin with, of the regions that the fp32 model finds on images: as many of each batch as there is room
        for, drawn."""
        draw, pooled = np.random.default_rng(0), {part.begin: list[Array]() for part in parts}
        if not parts:
            return pooled
        rows = {part.begin: self.inner[part.rows] for part in parts if part.rows is not None}
        session = cpu_session(with_outputs(self.model, [*rows, *rows.values()]))
        (image,) = (value.name for value in session.get_inputs())
        for batch in batches:
            given = session.run([*rows, *rows.values()], {image: batch})
            values = dict(zip([*rows, *rows.values()], given, strict=True))
            for begin, regions in rows.items():
                (there,) = (values[regions][:, 3] > values[regions][:, 1]).nonzero()
                room = max(1, MOST_BYTES // max(1, len(batches) * values[begin][:1].nbytes))
                chosen = np.sort(draw.permutation(there)[:room])
                if len(chosen):
                    pooled[begin].append(values[begin][chosen])
        for begin, arrays in pooled.items():
            if not arrays:
                raise UserError(
                    "int8: on the calibration images nothing is detected, so that nothing is known of what heads read there. "
                    "Give images with objects with --calibration-data."
                )
            every = np.concatenate(arrays)
            pooled[begin] = [every[start : start + AT_ONCE] for start in range(0, len(every), AT_ONCE)]
        return pooled


def _recorded(part: LowPart, written: Written, renamed: Mapping[str, str]) -> PartRecorded:
    assert written.recorded is not None, "of fewer bits"
    names = {value: renamed.get(name, name) for value, name in written.recorded.names.items()}
    return PartRecorded(part, replace(written.recorded, names=names))


def _rounding(written: Sequence[Written]) -> Rounding | None:
    """Of all parts."""
    every = [one.rounding for one in written if one.rounding is not None]
    if not every:
        return None
    return Rounding(
        weights=sum(one.weights for one in every),
        underflow_to_zero=sum(one.underflow_to_zero for one in every),
        subnormal=sum(one.subnormal for one in every),
    )


def _int8(written: Sequence[Written]) -> Int8 | None:
    """Of all parts: the methods taken, on the images of the first, and the worst of what each method gave."""
    every = [one.int8 for one in written if one.int8 is not None]
    if not every:
        return None
    tried = {method: _worst([one.tried.get(method) for one in every]) for method in every[0].tried}
    return replace(every[0], method=",".join(dict.fromkeys(one.method for one in every)), tried=tried)


def _worst(tried: Sequence[Agreement | None]) -> Agreement | None:
    known = [one for one in tried if one is not None]
    if len(known) < len(tried):
        return None
    return Agreement(
        logit_distance=max(one.logit_distance for one in known),
        top1_agreement=None,
        cosine=min(one.cosine for one in known),
    )
