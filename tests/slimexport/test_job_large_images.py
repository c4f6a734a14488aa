"""References of images so large that few are computed at a time, and nothing beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slimexport
from slimexport import exporter
from slimexport import job as module
from slimexport.detector_proof.exact import Exact
from slimexport.job import Job
from slimexport.probes import large
from slimexport.request import Proof
from slimexport.target.manifest import REFERENCE, Manifest
from slimtrain.models.detector import FASTER
from tests.support.exported_detectors import detector_checkpoint

PROBES = 3


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return detector_checkpoint(tmp_path, FASTER)


def exported(checkpoint: Path, folder: Path) -> Manifest:
    return slimexport.export(checkpoint, output_dir=folder, proof=Proof(probes=PROBES))


def test_large_images_one_after_the_other_give_what_all_at_once_do(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    whole = module._outputs

    def watched(network: Any, plan: Any, images: Any) -> Any:
        sizes.append(len(images))
        return whole(network, plan, images)

    monkeypatch.setattr(module, "_outputs", watched)
    at_once = exported(checkpoint, tmp_path / "at_once")
    assert set(sizes) == {PROBES}
    sizes.clear()
    monkeypatch.setattr(large, "TOGETHER", 1)
    one_by_one = exported(checkpoint, tmp_path / "one_by_one")
    assert set(sizes) == {1} and len(sizes) == PROBES * len(one_by_one.artifacts)
    for one, other in zip(one_by_one.artifacts, at_once.artifacts, strict=True):
        assert one.verification.status == other.verification.status
        assert one.verification.unexercised == other.verification.unexercised
    stored = [np.load(tmp_path / name / REFERENCE) for name in ("at_once", "one_by_one")]
    assert stored[0].files == stored[1].files
    for name in stored[0].files:
        np.testing.assert_allclose(stored[0][name], stored[1][name], rtol=1e-9, atol=1e-9)


def test_nothing_is_computed_beside_the_reference_of_large_images(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "TOGETHER", 1)
    order: list[str] = []
    reference, verify = Job.reference, Job.verify

    def referring(job: Job, plan: Any) -> Any:
        order.append(f"reference {plan.width}")
        return reference(job, plan)

    def verifying(job: Job, path: Any, precision: Any, plan: Any, *rest: Any) -> Any:
        order.append(f"proof {plan.width}")
        return verify(job, path, precision, plan, *rest)

    monkeypatch.setattr(Job, "reference", referring)
    monkeypatch.setattr(Job, "verify", verifying)
    monkeypatch.setattr(exporter, "ThreadPoolExecutor", None)
    exported(checkpoint, tmp_path / "bundle")
    assert order == ["reference 0.5", "proof 0.5", "reference 1.0", "proof 1.0"]


def test_a_detectors_two_networks_in_float64_share_their_weights(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks: list[Any] = []
    begin = Exact.__init__

    def beginning(exact: Exact, network: Any, *rest: Any) -> None:
        networks.append(network)
        begin(exact, network, *rest)

    monkeypatch.setattr(Exact, "__init__", beginning)
    reference = Job.reference

    def referring(job: Job, plan: Any) -> Any:
        networks.append(job.exact)
        return reference(job, plan)

    monkeypatch.setattr(Job, "reference", referring)
    exported(checkpoint, tmp_path / "bundle")
    stored = [{parameter.data_ptr() for parameter in network.parameters()} for network in networks]
    assert len(stored) == 4 and all(own == stored[0] for own in stored)
