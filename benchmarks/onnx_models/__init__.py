"""ONNX models to measure with: of one layer, of random weights, written without the onnx package."""
