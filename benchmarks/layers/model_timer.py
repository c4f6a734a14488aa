"""Times of ONNX models that belong to no bundle, measured as bundles are: see `measure.turns`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from benchmarks.cells.backends import BACKENDS
from benchmarks.cells.cell import NOT_MEASURED, Cell, CellRunner, Inputs, NotMeasured, Options
from benchmarks.cells.inputs import RandomImages
from benchmarks.cells.statistics import summary
from benchmarks.measure.method import Method
from benchmarks.measure.turns import CellSource, measure
from benchmarks.runners.opening import open_file
from slimexport.target.precision import EXACT
from slimtrain.base.image_size import ImageSize
from slimtrain.models.spec import IMAGE_CHANNELS

K = TypeVar("K", bound=Hashable)
TABLE_BACKENDS = tuple(name for name, backend in BACKENDS.items() if backend.times_models)
REPEATS = 4
WARMUP_S = 0.01
INPUT_BYTES = 32 << 20  # a size's images: they are read once in both models of a pair, and cancel


@dataclass(frozen=True)
class Model:
    """An ONNX file to be, `make()`, for images [batch, channels, height, width]."""

    size: ImageSize
    make: Callable[[], bytes]
    channels: int = IMAGE_CHANNELS


@dataclass(frozen=True)
class Sample:
    """A model's time: the lowest median of a round, for whatever disturbs a machine adds time and takes none; and the highest,
    in milliseconds."""

    ms: float
    high_ms: float


class Timer(Protocol):
    """Measures models in turns, each for `duration_s`; the runner's settings are in `settings` afterwards."""

    settings: Mapping[str, Any]

    def __call__(self, models: Mapping[K, Model], duration_s: float) -> dict[K, Sample]: ...


@dataclass
class ModelTimer:
    """Times on `backend` at `batch` images. Raises NotMeasured where a model does not run, `measure.turns.Interrupted` (a
    KeyboardInterrupt) on Ctrl-C."""

    backend: str
    batch: int
    threads: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, models: Mapping[K, Model], duration_s: float) -> dict[K, Sample]:
        images: dict[tuple[int, ...], RandomImages] = {}
        with tempfile.TemporaryDirectory(prefix="channels-") as name:
            folder = Path(name)
            cells = []
            for number, model in enumerate(models.values()):
                file = f"{number}.onnx"
                (folder / file).write_bytes(model.make())
                cell = Cell("", "", file, file, None, file, file, self.backend, EXACT, self.batch, model.size, 0, 0, 0)
                cells.append(replace(cell, channels=model.channels))
            source = CellSource(
                lambda cell: folder,
                open_model,
                lambda cell: images.setdefault(
                    cell.image_shape, RandomImages(cell.image_size, most_bytes=INPUT_BYTES, channels=cell.channels)
                ),
                Options(threads=self.threads),
            )
            results = measure(cells, source, Method(duration_s, REPEATS, WARMUP_S))
        timed = {}
        for key, result in zip(models, results, strict=True):
            figures = summary(result)
            if result.status == NOT_MEASURED or figures is None:
                raise NotMeasured(f"{key}: {result.reason}")
            self.settings = {**result.settings, "input_buffers": None, "input_bytes": None}
            timed[key] = Sample(*figures.interval_ms)
        return timed


def open_model(cell: Cell, folder: Path, inputs: Inputs, options: Options) -> CellRunner:
    """A runner of an ONNX file that no manifest describes. NotMeasured for backends that tables are not measured with."""
    if cell.backend not in TABLE_BACKENDS:
        raise NotMeasured(
            f"{cell.backend}: a table takes hundreds of small models, and this backend would have to build each of them. "
            f"Choose from {', '.join(TABLE_BACKENDS)}."
        )
    return open_file(cell, folder / cell.file, inputs, options)
