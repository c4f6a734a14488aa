"""Images with objects in them: scenes of digits, COCO's files, what is done to both, and their batches."""
