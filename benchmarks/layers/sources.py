"""The network that a latency table is measured for, by what a user names: a published one, a bundle's folder, a checkpoint, or
a module of the user's, traced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from slimexport.target.errors import BundleError
from slimexport.target.manifest import MANIFEST, read_manifest
from slimtrain.base.errors import UserError, nearest
from slimtrain.base.image_size import ImageSize, format_size, sides
from slimtrain.costs.cost import CostCounter
from slimtrain.graph.policy import Policy
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.published import published_spec
from slimtrain.models.registry import model_name, network_names
from slimtrain.models.spec import IMAGE_CHANNELS, NetworkSpec
from slimtrain.models.width_spec import WidthSpec

STEM_STRIDES = (2, 1)
DEFAULT_CLASSES, DEFAULT_IMAGE_SIZE = 1000, 224
DEFAULT_RANGE = (0.25, 1.0)  # of a module's widths, as of a training's
FORMS = "a network, a bundle's folder, a checkpoint, or a module (torchvision:NAME, timm:NAME, package.module:function)"


def find_network(
    name: str,
    *,
    image_size: ImageSize | None = None,
    in_channels: int | None = None,
    classes: int | None = None,
    stem_stride: int | None = None,
    widths: tuple[float, float] | None = None,
    **policy: str | None,
) -> tuple[WidthSpec, ImageSize]:
    """The network that `name` names, and the image size: a published network, a bundle's folder, a checkpoint's file or a
    module (`timm:NAME`). What is not given is as published, or as in the bundle or file. `widths`: narrowest and widest of a
    universally slimmable network. `policy`: what is narrowed of a module where there is a choice, as `Policy` has it.

    Raises UserError for what is none of these, BundleError for a damaged bundle, and what reading and tracing raise.
    """
    given: dict[str, Any] = {"image_size": image_size, "in_channels": in_channels, "classes": classes}
    chosen: dict[str, Any] = {key: choice for key, choice in policy.items() if choice is not None}
    if ":" in name and name not in network_names():
        _refuse_given("is of published architectures", stem_stride=stem_stride)
        return _of_module(name, Policy(**chosen), widths, **given)
    if name not in network_names() and Path(name).is_file():
        return _of_checkpoint(name, widths, {**given, "stem_stride": stem_stride, **chosen})
    _refuse_given("is of a module: torchvision:NAME, timm:NAME, package.module:function", **chosen)
    return _published_network(name, **given, stem_stride=stem_stride, widths=widths)


def _refuse_given(why: str, **options: object) -> None:
    for option, value in options.items():
        if value is not None:
            raise UserError(f"--{option.replace('_', '-')}: {why}. Leave it out.")


def _of_module(
    source: str,
    policy: Policy,
    widths: tuple[float, float] | None,
    *,
    image_size: ImageSize | None,
    in_channels: int | None,
    classes: int | None,
) -> tuple[GraphSpec, ImageSize]:
    """A module, traced as a training of it would be."""
    import torch

    from slimtrain.tracing.slimmed import make_slimmable
    from slimtrain.tracing.sources import build_module

    size = image_size or DEFAULT_IMAGE_SIZE
    images = torch.zeros(2, in_channels or IMAGE_CHANNELS, *sides(size))
    network = make_slimmable(
        build_module(source, classes), images, DEFAULT_RANGE, name=model_name(source), policy=policy, order="none", check=False
    )
    assert isinstance(network.spec, GraphSpec)
    return _ranged(network.spec, widths), size


def _of_checkpoint(name: str, widths: tuple[float, float] | None, given: Mapping[str, Any]) -> tuple[WidthSpec, ImageSize]:
    """The network in a file. UserError where it is another than `given`."""
    from slimtrain.checkpoints.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(name)
    spec = checkpoint.spec
    own: dict[str, Any] = {"in_channels": spec.in_channels, "classes": spec.classes}
    if isinstance(spec, GraphSpec):
        own |= {"image_size": spec.image_size, **vars(spec.groups.policy)}
    else:
        assert isinstance(spec, NetworkSpec)  # which takes images of any size
        own |= {"image_size": given["image_size"] or checkpoint.image_size, "stem_stride": spec.stem_stride}
        spec.check_image_size(own["image_size"])
    for option, value in given.items():
        if value is not None and value != own.get(option):
            asked, has = (format_size(v) if option == "image_size" else v for v in (value, own.get(option, "none")))
            flag = option.replace("_", "-")
            raise UserError(f"--{flag} {asked}: {Path(name).name} has {has}. Leave the option out, or name another network.")
    ranged = _ranged(spec, widths) if isinstance(spec, GraphSpec) else _ranged_table(spec, widths)
    return ranged, own["image_size"]


def _ranged(spec: GraphSpec, widths: tuple[float, float] | None) -> GraphSpec:
    """A traced network at another range of widths. UserError where it takes no images, and has no such range."""
    if spec.detector is not None:
        raise UserError(f"{spec.name}: is a detector, measured by part: python -m benchmarks.studies.detection.parts BUNDLE.")
    if not spec.takes_images or len(spec.graph.inputs) > 1:
        raise UserError(
            f"{spec.name}: takes no images. Layers are measured in networks of images [N, channels, height, width]."
        )
    if widths is None:
        return spec
    _check_range(spec, widths)
    if widths[1] > 1:
        raise UserError(
            f"--range {widths[0]:g}:{widths[1]:g}: {spec.name} was made of a module, which is 1.0. Expected at most 1."
        )
    middle = tuple(width for width in spec.switches if widths[0] < width < widths[1])
    return replace(spec, switches=(widths[0], *middle, widths[1]), width_range=widths)


def _ranged_table(spec: NetworkSpec, widths: tuple[float, float] | None) -> NetworkSpec:
    """A published network at another range of widths."""
    if widths is None:
        return spec
    _check_range(spec, widths)
    middle = tuple(width for width in spec.switches if widths[0] < width < widths[1])
    return replace(spec, switches=(widths[0], *middle, widths[1]), width_range=widths)


def _check_range(spec: WidthSpec, widths: tuple[float, float]) -> None:
    if spec.family != "us":
        raise UserError(f"--range: {spec.name} has no range of widths, it has {spec.describe_widths()}.")


def _published_network(
    name: str,
    *,
    image_size: ImageSize | None,
    in_channels: int | None,
    classes: int | None,
    stem_stride: int | None,
    widths: tuple[float, float] | None,
) -> tuple[NetworkSpec, ImageSize]:
    """A published network by its name, or of a bundle."""
    plan_channels: Mapping[str, int] = {}
    macs = None
    if name not in network_names():
        folder = Path(name)
        if not (folder / MANIFEST).is_file():
            raise UserError(
                f"{name!r}: neither a network{nearest(name, network_names())} nor a bundle's folder with a {MANIFEST}, a "
                f"checkpoint or a module. Expected {FORMS}. The networks are {', '.join(network_names())}."
            )
        manifest = read_manifest(folder)
        if not manifest.artifacts:
            raise BundleError(f"{folder / MANIFEST}: names no files. The manifest is damaged, export again.")
        if manifest.detector is not None:
            raise UserError(
                f"{folder}: is of a detector, whose layers are measured by part: python -m benchmarks.studies.detection.parts "
                f"{folder}."
            )
        if manifest.source.network not in network_names():
            raise UserError(
                f"{folder}: its {manifest.source.network} was made of a module, and a bundle holds no graph of it. "
                f"Name the checkpoint that it was exported from ({manifest.source.file}), or the module: timm:NAME."
            )
        name, size, own_classes = manifest.source.network, manifest.input.image_size, manifest.output.classes
        image_size = size if image_size is None else image_size
        classes = own_classes if classes is None else classes
        own_channels = manifest.input.channels
        in_channels = own_channels if in_channels is None else in_channels
        plan_channels, macs = manifest.artifacts[0].channels, manifest.artifacts[0].macs
    spec = published_spec(name, DEFAULT_CLASSES if classes is None else classes)
    spec = _ranged_table(spec, widths)
    if stem_stride is None and macs is not None:
        own = replace(spec, classes=own_classes, in_channels=own_channels)
        stem_stride = _stem_stride(own, plan_channels, macs, size, name)
    spec = replace(spec, stem_stride=stem_stride or STEM_STRIDES[0], in_channels=in_channels or IMAGE_CHANNELS)
    image_size = DEFAULT_IMAGE_SIZE if image_size is None else image_size
    spec.check_image_size(image_size)
    return spec, image_size


def _stem_stride(spec: NetworkSpec, channels: Mapping[str, int], macs: int, image_size: ImageSize, name: str) -> int:
    """The stride that gives a bundle's network its MACs: the manifest does not name it."""
    plan = ChannelPlan("bundle", channels)
    for stride in STEM_STRIDES:
        try:
            if CostCounter(replace(spec, stem_stride=stride), image_size)(plan).macs == macs:
                return stride
        except KeyError:
            break
    raise UserError(
        f"this bundle's {name} is not the published one: its channels and MACs are of another network. Name one of "
        f"{', '.join(network_names())} instead, with --range, --classes, --in-channels and "
        "--image-size."
    )
