"""What the study of int8 measures with: files of several quantizers, sources of networks and images, runs in turn."""
