"""The CUDA runtime through ctypes: memory, streams, events, graphs. No torch."""
