"""The channel groups of a graph, and what follows from them: sizes at a plan, costs, the order of channels. No torch."""
