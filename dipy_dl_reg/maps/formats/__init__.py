"""File formats of a map: one module for each, and a table of all in `table`."""
