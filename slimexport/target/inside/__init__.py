"""A file cut apart in memory, values that are drawn alike everywhere, and what its layers gave of them when it was proven."""
