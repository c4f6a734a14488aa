"""The side that runs where networks are deployed: bundles, their verification, and running their files.

Needs the standard library and numpy, and onnxruntime when a file is run; never torch, never onnx.
"""
