"""A network's layers by channels: latency tables, steps, their pictures."""
