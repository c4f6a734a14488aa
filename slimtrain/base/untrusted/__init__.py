"""Files and values that somebody else wrote: measured and checked before anything is done with them."""
