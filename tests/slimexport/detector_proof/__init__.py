"""Tests of slimexport.detector_proof."""
