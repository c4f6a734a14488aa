"""What a plan costs: MACs, parameters, activations, milliseconds, all as sums over layers. No torch."""
