"""Any torch module as a graph of ours, read off `torch.export`, and that graph as a slimmable network."""
