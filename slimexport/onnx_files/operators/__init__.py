"""ATen operators as ONNX writes them, a file for each kind. `FORMS` (registry.py) holds them by operator."""
