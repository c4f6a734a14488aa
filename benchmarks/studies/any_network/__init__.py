"""What `benchmarks.studies.coverage` tries on every network of its lists."""
