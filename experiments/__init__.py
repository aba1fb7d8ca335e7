"""Definitions only, one file per family; of benchmark they import benchmark.experiment alone.

Each file ends in EXPERIMENTS, a tuple of what it defines, and may vary what another family defines.
Suites are in suites.py; one that belongs to a single family may stand in its file.
"""
