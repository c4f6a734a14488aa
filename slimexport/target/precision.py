"""The number formats that networks are stored and computed in, a row each: all that is known of one outside of its writer.

A new one takes a row here and, where it is a file's, its writer in `slimexport.onnx_files.writers`.
"""

from __future__ import annotations

from dataclasses import dataclass

from slimtrain.base.errors import UserError, nearest

EXACT = "fp32"  # all others are written from it, and it is what names without an infix stand for


RUNTIMES = ORT_CPU, ORT_CUDA, OPENVINO, TRT_8, TRT_10 = (
    "onnxruntime on CPUs",
    "onnxruntime on CUDA",
    "OpenVINO",
    "TensorRT 8.6",
    "TensorRT 10 and later",
)
EVERY_TARGET, CPU, TENSORRT = "all", "cpu", "tensorrt"
INT8_TARGETS = {EVERY_TARGET: RUNTIMES, CPU: (ORT_CPU, OPENVINO), TENSORRT: (TRT_8, TRT_10)}  # whose int8 files are written


@dataclass(frozen=True)
class Difference:
    """Proven by the largest difference relative to the scale of the logits. Where a network, computed in these numbers by
    torch, is further off itself, as chaotic ones are, `factor` times that gap is permitted, `most` at most (a factor of 0:
    never)."""

    tolerance: float
    factor: float = 0
    most: float = 0


@dataclass(frozen=True)
class Direction:
    """Proven by the cosine of the logits with the reference's: the steps are coarse by design. An engine must reach
    `engine_cosine`, or nearly what its ONNX file did, but never less than files must. Where images differ by `least_spread`
    of the scale, which is more than the steps do, what differs between them must be alike too (`least_difference_cosine`),
    no more than `most_magnified` times as large or as small, and what they have in common off by no more than `most_shift`
    of the scale. Logits without a direction, as of one class, may be off by `tolerance` of their scale."""

    least_cosine: float = 0.97
    engine_cosine: float = 0.99
    least_spread: float = 0.1
    least_difference_cosine: float = 0.5
    most_magnified: float = 2.0
    most_shift: float = 0.25
    tolerance: float = 0.25


@dataclass(frozen=True)
class Recipe:
    """What an engine is built from: the ONNX file of precision `onnx`, with builder flags by TensorRT's names."""

    onnx: str
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Precision:
    """A number format of files, of engines, or of both.

    `number`: what is multiplied, as numpy, torch and ONNX call it. `asked`: what `--precision` calls it, where that is not
    its name. `weight_bytes`: of a weight in its ONNX file, None where it is a way to compute only. `item_bytes`: of a number
    that is computed with, where known. `tf32`: float32 numbers may be rounded to TF32 before they are multiplied.
    `calibrated`: its writer measures activations on images. `weak`: what an engine is built from where TensorRT chooses types
    as flags permit (8.6), `strong`: where types are the file's (10 and later); None where there is no such engine. `shown`:
    whether layers of an engine tell it. `cpu_since`: the first onnxruntime (major, minor) whose CPU computes its files
    rightly, None for none: such files are verified as their cast twin. `on_cuda`: whether its CUDA loads them. `made_for`:
    of RUNTIMES, those for which its ONNX file is worth taking: what others cannot run, run wrongly or run slower than fp32 is
    not offered to them. `steady`: how far what its file gives elsewhere may be off what it gave when it was proven, of the
    scale: at least, and at most, whatever roundings that fall the other way change; (0, 0) where the reference's outputs say
    it more sharply.
    """

    name: str
    number: str
    weight_bytes: int | None
    proof: Difference | Direction
    asked: str = ""
    item_bytes: int | None = None
    tf32: bool = False
    calibrated: bool = False
    weak: Recipe | None = None
    strong: Recipe | None = None
    shown: bool = True
    cpu_since: tuple[int, int] | None = (0, 0)
    on_cuda: bool = True
    made_for: tuple[str, ...] = ()
    steady: tuple[float, float] = (0.0, 0.0)

    @property
    def option(self) -> str:
        """What `--precision` calls it."""
        return self.asked or self.name

    @property
    def infix(self) -> str:
        """`.fp16`, as in `us_mobilenet_v1_x0_5.fp16.onnx`; "" for fp32."""
        return "" if self.name == EXACT else f".{self.name}"

    @property
    def served(self) -> bool:
        """Whether onnxruntime is to serve its files, as in Triton: a server does not start that has a model which does not
        load."""
        return ORT_CPU in self.made_for or ORT_CUDA in self.made_for

    @property
    def torch(self) -> str:
        """The dtype that torch computes it in; "" for none."""
        return "" if self.calibrated else self.number

    @property
    def on_tensor_cores(self) -> bool:
        """Whether a GPU's tensor cores multiply it."""
        return self.tf32 or self.number != "float32"


PRECISIONS = {
    row.name: row
    for row in (
        Precision(
            EXACT,
            "float32",
            4,
            Difference(1e-4, factor=20, most=1e-2),
            item_bytes=4,
            made_for=RUNTIMES,
            weak=Recipe(EXACT),
            strong=Recipe(EXACT),
        ),
        Precision(
            "tf32",
            "float32",
            None,
            Difference(5e-3),
            item_bytes=4,
            tf32=True,
            weak=Recipe(EXACT, ("TF32",)),
            strong=Recipe(EXACT, ("TF32",)),
            shown=False,  # a permission, of which some tactics' names tell
        ),
        Precision(
            "fp16",
            "float16",
            2,
            Difference(1e-2, factor=2, most=5e-2),
            item_bytes=2,
            steady=(2e-3, 5e-2),
            made_for=(ORT_CUDA, TRT_10),
            weak=Recipe(EXACT, ("TF32", "FP16")),
            strong=Recipe("fp16", ("TF32",)),
        ),
        Precision(
            "bf16",
            "bfloat16",
            2,
            Difference(5e-2, factor=2, most=2e-1),
            item_bytes=2,
            strong=Recipe("bf16", ("TF32",)),
            cpu_since=None,
            on_cuda=False,  # 1.31 has no kernels for average pooling and comparisons, among others
            steady=(1e-2, 1e-1),
            made_for=(TRT_10,),
        ),
        Precision(
            "int8-cpu",
            "int8",
            1,
            Direction(),
            asked="int8",
            item_bytes=1,
            calibrated=True,
            steady=(3e-2, 0.3),
            made_for=(ORT_CPU, OPENVINO),
        ),
        Precision(
            "int8",
            "int8",
            1,  # with float32 around the int8 operators
            Direction(),
            item_bytes=1,
            calibrated=True,
            weak=Recipe("int8", ("TF32", "FP16", "INT8")),
            strong=Recipe("int8-fp16", ("TF32",)),
            steady=(3e-2, 0.3),
            made_for=(TRT_8,),
        ),
        Precision(
            "int8-fp16",
            "int8",
            1,
            Direction(),
            asked="int8",
            calibrated=True,
            cpu_since=None,  # 1.31 makes integers of fp16 biases, wrong ones where scales are small (WeightBiasQuantization)
            steady=(3e-2, 0.3),
            made_for=(TRT_10,),
        ),
    )
}
OPTIONS = tuple(dict.fromkeys(row.option for row in PRECISIONS.values()))
TOLERANCES = {row.name: row.proof.tolerance for row in PRECISIONS.values() if isinstance(row.proof, Difference)}


def row_of(name: str) -> Precision:
    """The row of a precision; fp32's for one that is not known, as a later version may have."""
    return PRECISIONS.get(name, PRECISIONS[EXACT])


def check_option(option: str, engines: bool = False) -> None:
    """UserError for what `--precision` does not offer, and for a way to compute where no `engines` are asked for."""
    if option not in OPTIONS:
        raise UserError(f"precision {option!r}: not known{nearest(option, OPTIONS)}. Available: {', '.join(OPTIONS)}.")
    if not engines and not files_of(option):
        raise UserError(
            f"precision {option}: is a way to compute, not to store; it is for engines: add --format trt, or trt-rtx."
        )


def files_of(option: str, int8_target: str = EVERY_TARGET) -> tuple[Precision, ...]:
    """The files that `--precision option` writes of a network, one for each kind of target; none of a way to compute. Of
    calibrated ones those for `int8_target`, one of INT8_TARGETS."""
    rows = [row for row in PRECISIONS.values() if row.option == option and row.weight_bytes is not None]
    return tuple(row for row in rows if not row.calibrated or set(row.made_for) & set(INT8_TARGETS[int8_target]))


def check_int8_target(name: str) -> None:
    """UserError for what is none of INT8_TARGETS."""
    if name not in INT8_TARGETS:
        raise UserError(f"int8 target {name!r}: not known{nearest(name, INT8_TARGETS)}. Expected {', '.join(INT8_TARGETS)}.")


def computed_from(file: str) -> tuple[str, ...]:
    """What a file of one precision is computed in: its own, and the ways to compute that have no file themselves."""
    ways = (row for row in PRECISIONS.values() if row.weight_bytes is None)
    return (file, *(row.name for row in ways if file in [recipe.onnx for recipe in (row.weak, row.strong) if recipe]))


def needed_for(option: str) -> tuple[str, ...]:
    """What `--precision` must write for engines of precision `option`, on one TensorRT or another."""
    row = PRECISIONS[option]
    return tuple(dict.fromkeys(PRECISIONS[recipe.onnx].option for recipe in (row.weak, row.strong) if recipe))
