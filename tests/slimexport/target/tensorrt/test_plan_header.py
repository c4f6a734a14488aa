"""What a plan was built for, told before TensorRT sees it."""

from __future__ import annotations

import struct

import pytest

from slimexport.target.cuda.device import GpuDevice
from slimexport.target.errors import BundleError
from slimexport.target.manifest import Engine
from slimexport.target.tensorrt.plan_header import PlanMismatch, check_plan, read_header, same_version
from tests.support.bundle_helpers import engine as some_engine

NAME = "us_mbv1_x0_5.fp16.plan"


def plan(version: tuple[int, int, int, int] = (8, 6, 0, 12), serialization: int = 0, tag: int = 0x74727466) -> bytes:
    return struct.pack("<II16x4B", tag, serialization, *version) + b"more"


def device(capability: str = "8.6") -> GpuDevice:
    return GpuDevice("NVIDIA Test GPU", capability, "12.4", "12.8", None, 1)


def engine(tensorrt: str = "11.4.0", capability: str = "9.0", *flags: str) -> Engine:
    return some_engine(tensorrt=tensorrt, compute_capability=capability, flags=flags, onnx="us_mbv1_x0_5.onnx")


def test_the_version_is_read_from_the_header() -> None:
    assert plan()[:4] == b"ftrt"
    assert read_header(plan(), NAME).tensorrt == "8.6.0.12"
    assert read_header(plan(serialization=1), NAME).tensorrt is None


@pytest.mark.parametrize("content", [b"", b"ftrt", b"ftrt" + bytes(23)])
def test_too_few_bytes_are_no_plan(content: bytes) -> None:
    with pytest.raises(BundleError, match=f"{NAME}: {len(content)} bytes are no TensorRT plan"):
        read_header(content, NAME)


def test_other_files_are_no_plan() -> None:
    with pytest.raises(BundleError, match=r"begins with b'\{\"na', a TensorRT plan begins with b'ftrt'") as caught:
        read_header(b'{"names": {}}' + plan(), NAME)
    assert caught.value.exit_code == 2


def test_another_version_and_gpu_are_told_in_one_message() -> None:
    with pytest.raises(PlanMismatch) as caught:
        check_plan(plan((11, 4, 0, 1)), NAME, engine(), "10.14.1", device())
    assert str(caught.value) == (
        "engine us_mbv1_x0_5.fp16.plan was built with TensorRT 11.4.0 for sm_90; this machine has 10.14.1 and sm_86. Engines "
        "are not portable: rebuild from us_mbv1_x0_5.onnx."
    )
    assert caught.value.exit_code == 3


def test_without_a_manifest_the_header_tells() -> None:
    check_plan(plan(), NAME, None, "8.6.0", device())
    with pytest.raises(PlanMismatch, match=r"built with TensorRT 8\.6\.0\.12; this machine has 10\.3\.0 and sm_86"):
        check_plan(plan(), NAME, None, "10.3.0", device())


def test_an_unknown_serialization_is_left_to_tensorrt() -> None:
    check_plan(plan(serialization=5), NAME, None, "12.0.0", device())


@pytest.mark.parametrize(
    ("built", "here", "flags", "fits"),
    [
        (("10.3.0", "8.6"), ("10.3.0", "8.6"), (), True),
        (("10.3.0", "8.6"), ("10.3.0.26", "8.6"), (), True),
        (("10.3.0", "8.6"), ("10.3.0", "8.9"), (), False),
        (("10.3.0", "8.6"), ("10.3.1", "8.6"), (), False),
        (("10.3.0", "8.6"), ("10.3.0", "9.0"), ("AMPERE_PLUS",), True),
        (("10.3.0", "7.5"), ("10.3.0", "9.0"), ("AMPERE_PLUS",), False),
        (("10.3.0", "8.6"), ("10.3.0", "7.5"), ("AMPERE_PLUS",), False),
        (("8.6.0", "8.6"), ("10.3.0", "8.6"), ("VERSION_COMPATIBLE",), True),
        (("8.6.0", "8.6"), ("11.4.0", "8.6"), ("VERSION_COMPATIBLE",), False),
        (("10.3.0", "8.6"), ("11.4.0", "8.6"), ("VERSION_COMPATIBLE",), True),
        (("10.3.0", "8.6"), ("10.13.3", "8.6"), ("VERSION_COMPATIBLE",), True),
        (("11.4.0", "8.6"), ("10.3.0", "8.6"), ("VERSION_COMPATIBLE",), False),
        (("10.3.0", "8.6"), ("11.4.0", "9.0"), ("VERSION_COMPATIBLE",), False),
        (("10.3.0", "8.6"), ("11.4.0", "9.0"), ("VERSION_COMPATIBLE", "AMPERE_PLUS"), True),
        (("nonsense", "8.6"), ("11.4.0", "8.6"), ("VERSION_COMPATIBLE",), False),
    ],
)
def test_what_is_portable(built: tuple[str, str], here: tuple[str, str], flags: tuple[str, ...], fits: bool) -> None:
    def check() -> None:
        check_plan(plan(), NAME, engine(*built, *flags), here[0], device(here[1]))

    if fits:
        check()
    else:
        with pytest.raises(PlanMismatch):
            check()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("8.6.0", "8.6.0.12", True), ("10.13.3.9", "10.13.3.10", False), ("8.6", "8.6", False), ("8.6.1.post1", "8.6.1", True)],
)
def test_versions_are_compared_as_far_as_both_go(one: str, other: str, same: bool) -> None:
    assert same_version(one, other) is same
