"""From what a detector computes to boxes, in shapes that no image decides on."""
