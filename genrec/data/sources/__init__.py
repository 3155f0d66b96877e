"""One module per file format and per well-known data set: each yields the same two tables."""
