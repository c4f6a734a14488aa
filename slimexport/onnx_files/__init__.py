"""ONNX files of dense networks: the graph, its number formats, int8 calibration."""
