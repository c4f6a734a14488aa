"""Training: the steps, what is drawn for each, saving, resuming, testing, on one or many processes."""
