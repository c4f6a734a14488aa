"""A network as plain values: nodes, parameters, channel groups. No torch; who writes or reads one needs no user code."""
