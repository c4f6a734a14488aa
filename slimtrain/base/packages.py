"""What the distribution's extras are for and the packages that each brings, as setup.cfg lists them. Standard library only."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

DISTRIBUTION = "slimmable-deploy"
PACKAGES = {
    "faster_coco_eval": "faster-coco-eval",
    "ray": "ray[serve]",
    "torch_pruning": "torch-pruning",
    "tensorrt_rtx_bindings": "tensorrt-rtx-cu12-bindings",
    "tensorrt_rtx_libs": "tensorrt-rtx-cu12-libs",
    "PIL": "pillow",
    "yaml": "PyYAML",
    "sklearn": "scikit-learn",
}  # module to package, where their names differ


@dataclass(frozen=True)
class Extra:
    """An extra: `pip install 'slimmable-deploy[NAME]'`. `purpose` completes "to ..."; `modules` are imported for it."""

    name: str
    purpose: str
    modules: tuple[str, ...]

    @property
    def command(self) -> str:
        """What installs it, from an index or from a copy of the sources."""
        return f"pip install '{DISTRIBUTION}[{self.name}]' (in a copy of the sources: pip install '.[{self.name}]')"


EXTRAS = (  # the smallest that brings a module comes first
    Extra("target", "verify a bundle and predict with it", ("onnxruntime", "PIL")),
    Extra(
        "full",
        "train and export",
        ("torch", "torchvision", "onnx", "onnxruntime", "ml_dtypes", "yaml", "tqdm", "safetensors", "PIL", "scipy"),
    ),
    Extra("serve", "serve a bundle over HTTP", ("starlette", "uvicorn", "prometheus_client", "httptools")),
    Extra("ray", "serve a bundle on Ray", ("ray", "starlette", "uvicorn", "prometheus_client", "httptools")),
    Extra("openvino", "run files in OpenVINO", ("openvino",)),
    Extra("trt", "build engines", ("tensorrt",)),
    Extra("trt-rtx", "build TensorRT-RTX engines, without a GPU", ("tensorrt_rtx_bindings", "tensorrt_rtx_libs")),
    Extra("digits", "train and test on the digits", ("sklearn",)),
    Extra("detection", "train and test detectors", ("faster_coco_eval",)),
    Extra("networks", "train timm's networks", ("timm",)),
    Extra("plots", "draw pictures", ("matplotlib",)),
    Extra("studies", "run every study", ("mlxtend", "torch_pruning", "timm")),
    Extra("tensorboard", "write TensorBoard's files", ("tensorboard",)),
)


def package_of(module: str) -> str:
    """The package that a module of a dependency comes in: `yaml` is of PyYAML."""
    top = module.partition(".")[0]
    return PACKAGES.get(top, top)


def install_command(module: str) -> str:
    """What to type where `module` is missing: the extra that brings it, else its package."""
    top = module.partition(".")[0]
    extra = next((extra for extra in EXTRAS if top in extra.modules), None)
    return f"pip install {package_of(module)}" if extra is None else extra.command


def is_installed(module: str) -> bool:
    """Whether a module can be found; it is not loaded."""
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # a broken entry in sys.modules
        return False
