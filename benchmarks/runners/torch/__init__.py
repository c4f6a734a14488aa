"""torch's backends: eager, compiled, CUDA graphs, and the slimmable network itself."""
