"""Scripts, each of which answers one question: `python -m benchmarks.studies.NAME`."""
