"""A model repository for the Triton Inference Server: a model of every file, or one that holds widths and chooses."""
