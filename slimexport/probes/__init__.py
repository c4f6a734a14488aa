"""The images that files are verified on: chosen so that they move the channels of a network."""
