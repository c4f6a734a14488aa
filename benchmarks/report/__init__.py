"""What the figures mean, as tables, a report, a comparison and a choice."""
