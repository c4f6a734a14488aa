"""How long things take on a machine: where what was measured is kept, what runs took, and what a run of `benchmarks` says."""
