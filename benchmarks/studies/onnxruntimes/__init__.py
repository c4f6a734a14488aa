"""Which versions of onnxruntime read our ONNX files, and what they compute of them: the command is in `__main__`."""
