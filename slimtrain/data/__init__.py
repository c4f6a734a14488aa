"""Labeled images: which data sets there are, how they are opened, changed and put into batches."""
