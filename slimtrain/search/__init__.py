"""AutoSlim's search: from a trained network to channel counts for targets, and what is done with them."""
