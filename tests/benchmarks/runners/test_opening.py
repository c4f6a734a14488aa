"""Opening cells by the table of backends."""

from __future__ import annotations

from pathlib import Path

from tests.support.bench_exports import IMAGE_SIZE, cpu_cell
from tests.support.export_helpers import python


def test_measuring_a_file_needs_neither_torch_nor_onnx(exported: Path) -> None:
    cell = cpu_cell(exported)
    fields = {name: getattr(cell, name) for name in cell.__dataclass_fields__}
    code = (
        "import sys\nfrom pathlib import Path\nfrom benchmarks.cells.cell import Cell, NotMeasured, Options\n"
        "from benchmarks.cells.inputs import RandomImages\nfrom benchmarks.runners.opening import open_runner\n"
        "from dataclasses import replace\n"
        "import benchmarks.ceilings.measuring, benchmarks.measure.threads, benchmarks.onnx_models.tiny\n"
        f"cell, folder = Cell(**{fields!r}), Path({str(exported)!r})\n"
        f"images = RandomImages({IMAGE_SIZE}, most_bytes=1 << 20)\n"
        "runner = open_runner(cell, folder, images, Options())\nassert runner.run(0).wall > 0\n"
        "for backend in ('torch-eager', 'tensorrt'):\n"
        "    try:\n        open_runner(replace(cell, backend=backend), folder, images, Options())\n"
        "    except NotMeasured as error:\n        print(error)\n    else:\n        raise SystemExit(backend)\n"
    )
    done = python(code, without=("torch", "onnx", "tensorrt", "slimtrain.slimmable.network"))
    assert done.returncode == 0, done.stderr
    assert [("not installed" in line, "pip install" in line) for line in done.stdout.splitlines()] == [(True, True)] * 2
