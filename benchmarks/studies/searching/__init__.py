"""What `benchmarks.studies.search_statistics` compares rankings on, and the measurements behind it."""
