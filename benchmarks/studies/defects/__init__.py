"""Single defects in exported files, and whether the proof of an export catches them."""
