"""What runtimes other than ours read of our ONNX files, how far off they are, how fast: the command is in `__main__`."""
