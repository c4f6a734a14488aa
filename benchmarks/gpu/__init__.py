"""What only a machine with a GPU and TensorRT can show. Needs numpy, click and tensorrt, nothing else there."""
