"""What is measured and what comes out, in plain values: cells, inputs, results, records, figures."""
