"""Values of which more might be given out than is looked at."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slimexport.detector_proof.candidates import crowded
from slimexport.detector_proof.crowds import crowd
from slimexport.detector_proof.drawn import drawn_values
from slimexport.detector_proof.drawn_anchors import drawn_anchors
from slimexport.detector_proof.single_stage import anchor_candidates
from slimtrain.detection.fixed.detections import Detections
from slimtrain.detection.fixed.proposals import Proposals
from slimtrain.detection.fixed.single_stage import of_single_stage
from slimtrain.models.detector import FASTER, MASK, RETINA
from tests.support import detector_files, single_stage_files
from tests.support.detector_files import SIZE


def test_few_of_many_anchors_are_given_out_and_that_is_not_settled() -> None:
    settings = single_stage_files.file_settings(RETINA)
    values = crowd(settings, drawn_anchors(settings, SIZE, 2, 0))
    form = of_single_stage(settings, SIZE).double()
    maps = {name: torch.from_numpy(values[name]).double() for name in form.input_shapes}
    given = form(*maps.values())
    assert not given["settled"].any() and (given["count"] < form.kept).all() and (given["count"] > 0).all()
    assert all(crowded(settings, candidates) for candidates in anchor_candidates(settings, SIZE, maps))


@pytest.mark.parametrize("kind", [FASTER, MASK])
def test_few_of_many_regions_are_given_out_and_that_is_not_settled(kind: str) -> None:
    settings = detector_files.file_settings(kind)
    values = {name: torch.from_numpy(v).double() for name, v in crowd(settings, drawn_values(settings, SIZE, 2, 0)).items()}
    proposals = Proposals(settings, SIZE).double()
    rows = proposals(*(values[name] for name in proposals.input_shapes))
    detections = Detections(settings, SIZE, proposals.kept).double()
    given = detections(rows["rois"], rows["valid"], values["class_logits"], values["box_deltas"])
    assert not given["settled"].any() and (given["count"] < settings.box.detections).all() and (given["count"] > 0).all()
    assert np.isfinite(values["class_logits"].numpy()).all()
