"""What a detector's outputs should have been: matching, sampling and losses, which are torchvision's own."""
