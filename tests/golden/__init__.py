"""A small store of runs, kept as text, and what the program makes of it."""
