"""Products in float64, computed in the order that they take least time in."""
