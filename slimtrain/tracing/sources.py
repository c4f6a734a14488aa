"""A user's module by its name: `torchvision:NAME`, `timm:NAME`, or `package.module:function`.

The last form imports and calls the user's code, because the user's command says so, and only here.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slimtrain.base.errors import CheckpointError, ResourceError, UserError, nearest
from slimtrain.base.packages import install_command
from slimtrain.base.text import some

FORMS = "torchvision:NAME, timm:NAME, or package.module:function"


def build_module(source: str, classes: int | None = None) -> nn.Module:
    """The module that `source` names, untrained, with `classes` outputs where the name's builder takes a number of classes.

    ResourceError for a package that is not installed, UserError for a name that it does not have, and for a function that is
    not there, raises, or returns no module.
    """
    kind, separator, name = source.partition(":")
    if not separator or not kind or not name:
        raise UserError(f"--model {source}: expected {FORMS}.")
    if kind == "torchvision":
        return _from_torchvision(source, name, classes)
    if kind == "timm":
        return _from_timm(source, name, classes)
    return _from_function(source, kind, name, classes)


def _package(source: str, package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ResourceError(f"--model {source}: {package} is not installed. {install_command(package)}") from error


def _from_torchvision(source: str, name: str, classes: int | None) -> nn.Module:
    models = _package(source, "torchvision.models")
    names = models.list_models()
    if name not in names:
        raise UserError(f"--model {source}: torchvision has no model {name!r}{nearest(name, names)}. It has {some(names)}.")
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if "init_weights" in inspect.signature(models.get_model_builder(name)).parameters or name in ("googlenet", "inception_v3"):
        options["init_weights"] = False  # minutes of scipy's, and a warning
    if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        options["weights_backbone"] = None  # which would be downloaded
    return _module(source, lambda: models.get_model(name, weights=None, **options))


def _from_timm(source: str, name: str, classes: int | None) -> nn.Module:
    timm = _package(source, "timm")
    names = timm.list_models()
    if name.partition(".")[0] not in names:
        raise UserError(f"--model {source}: timm has no model {name!r}{nearest(name, names)}. It has {some(names)}.")
    options = {} if classes is None else {"num_classes": classes}
    return _module(source, lambda: timm.create_model(name, pretrained=False, **options))


def _from_function(source: str, module: str, function: str, classes: int | None) -> nn.Module:
    """The working directory's files come first, as for `python -m`."""
    if "/" in module or module.endswith(".py"):
        name = module.removesuffix(".py").strip("./").replace("/", ".")
        raise UserError(f"--model {source}: expected a module's name, not its file: {name}:{function}.")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        home = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and module.partition(".")[0] == error.name.partition(".")[0]:
            raise UserError(
                f"--model {source}: there is no module {error.name}. Expected {FORMS}; modules are looked for in the working "
                "directory and among what is installed."
            ) from error
        raise ResourceError(f"--model {source}: {module} needs {error.name}, which is not installed.") from error
    except Exception as error:
        raise UserError(f"--model {source}: importing {module} raised {_described(error)}.") from error
    builder = getattr(home, function, None)
    if isinstance(builder, nn.Module):
        raise UserError(f"--model {source}: {function} is a module already. Expected a function that builds one.")
    if not callable(builder):
        there = [name for name, value in vars(home).items() if callable(value) and not name.startswith("_")]
        raise UserError(
            f"--model {source}: {module} has no function {function!r}{nearest(function, there)}. Expected {FORMS}."
        )
    takes = "num_classes" in _parameters(builder) and classes is not None
    return _module(source, lambda: builder(num_classes=classes) if takes else builder())


def _parameters(builder: Callable[..., Any]) -> Mapping[str, Any]:
    try:
        return inspect.signature(builder).parameters
    except (TypeError, ValueError):
        return {}


def _module(source: str, build: Callable[[], Any]) -> nn.Module:
    try:
        module = build()
    except (Exception, SystemExit) as error:
        raise UserError(f"--model {source}: building it raised {_described(error)}.") from error
    if not isinstance(module, nn.Module):
        raise UserError(f"--model {source}: gave a {type(module).__name__}, expected a torch.nn.Module.")
    return module


def _described(error: BaseException) -> str:
    """An error of the user's code in a line, with where it was raised."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = f", at {Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}" if frame is not None else ""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first[:200]}{place}" if first else f"{type(error).__name__}{place}"


def load_weights(module: nn.Module, state: Mapping[str, Tensor], name: str) -> str:
    """Load a state dict into a user's module: by its keys, or where these are others, by position, if every shape agrees in
    order. Which of the two, as a message says it. CheckpointError where neither fits; the module is then as it was."""
    spoilt = [key for key, tensor in state.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    if spoilt:
        raise CheckpointError(f"{name}: NaN or infinite values in {some(spoilt)}. Take an earlier file: training diverged.")
    own = module.state_dict()
    keys = [key for key in own if not key.endswith("num_batches_tracked")]
    theirs = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
    if set(keys) == theirs.keys():
        pairs = {key: (list(theirs[key].shape), list(own[key].shape)) for key in keys}
        wrong = [f"{key} is {given}, expected {expected}" for key, (given, expected) in pairs.items() if given != expected]
        if wrong:
            raise CheckpointError(
                f"{name}: does not fit the model: {some(wrong)}. Take the model that these weights are of, or for other "
                "classes set reset_classifier=true."
            )
        module.load_state_dict(theirs, strict=False)
        return "by name"
    if [tuple(own[key].shape) for key in keys] == [tuple(tensor.shape) for tensor in theirs.values()]:
        module.load_state_dict(dict(zip(keys, theirs.values(), strict=True)), strict=False)
        return f"by position: the {len(keys)} tensors have other names, and the same shapes in the same order"
    missing, unknown = [key for key in keys if key not in theirs], [key for key in theirs if key not in own]
    parts = [f"missing: {some(missing)}"] * bool(missing) + [f"unknown: {some(unknown)}"] * bool(unknown)
    raise CheckpointError(
        f"{name}: does not fit the model. {'; '.join(parts)}. Its {len(theirs)} tensors do not fit by position either: take "
        "the model that these weights are of."
    )
