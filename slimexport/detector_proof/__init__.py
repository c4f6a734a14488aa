"""A detector's file held against the slimmable network part by part, so that no near-equal choice hides what is wrong."""
