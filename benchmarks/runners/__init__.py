"""Loading a cell's network on its backend: one small runner for each, all a `benchmarks.cells.cell.CellRunner`."""
