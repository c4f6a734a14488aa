"""Of the study of the published networks."""
