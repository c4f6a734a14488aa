"""What networks are, in plain values: channel groups and plans, one file per architecture, names, published ones. No torch."""
