"""Tests of slimexport.references."""
