"""Definitions only, one file per architecture or study; they import benchmark.experiment alone.

Each file ends in EXPERIMENTS, a tuple of what it defines, and may vary what another file defines.
Suites are in suites.py; one that belongs to a single file may stand there.
"""
