"""A bundle's networks in torch: eager, compiled, as a CUDA graph; and the slimmable network that they come from.

torch, and what of this project needs it, is imported when a cell asks for it: measuring bundles otherwise needs none of it.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.cells.cell import SLIMMABLE, TORCH_GRAPH, Cell, CellRunner, Inputs, NotMeasured, Options

FLOATS, SLIMMABLE_FLOATS = ("fp32", "tf32", "fp16", "bf16"), ("fp32", "tf32")


def open_torch(cell: Cell, folder: Path, inputs: Inputs, options: Options) -> CellRunner:
    """The runner of a cell of `torch-eager`, `torch-compile`, `torch-cuda-graph` (the network of its ONNX file) or `slimmable`
    (`options.checkpoint` at the cell's plan), on `options.device`; see `cells.Opener`.

    What takes time once, such as compiling, is over when it returns. Raises NotMeasured, with the reason, where torch cannot
    run it here; BundleError (exit code 2) where the checkpoint is not the bundle's; CheckpointError where it cannot be read.
    """
    refuse(cell, options)
    try:
        import onnx
        import torch

        from benchmarks.runners.torch.session import open_runner
    except ImportError as error:
        package = (error.name or "torch").split(".")[0]
        raise NotMeasured(
            f"needs {package}, which is not installed or does not load ({error}): pip install {package}"
        ) from error
    assert onnx
    if options.device == "cuda" and not torch.cuda.is_available():
        raise NotMeasured(
            f"torch {torch.__version__} finds no GPU here. Measure with --device cpu, or see what nvidia-smi says."
        )
    return open_runner(cell, folder, inputs, options)


def refuse(cell: Cell, options: Options) -> None:
    """NotMeasured for what no torch could run; needs none."""
    if cell.backend == TORCH_GRAPH and options.device != "cuda":
        raise NotMeasured("CUDA graphs need a GPU")
    if cell.precision == "tf32" and options.device != "cuda":
        raise NotMeasured("TF32 is a GPU's way to compute float32")
    known = SLIMMABLE_FLOATS if cell.backend == SLIMMABLE else FLOATS
    if cell.precision not in known:
        what = "the slimmable network" if cell.backend == SLIMMABLE else "torch"
        raise NotMeasured(f"{what} is measured in {', '.join(known)}, not in {cell.precision}")
