"""Definitions only, one file per family; nothing here imports anything but benchmark.experiment.

Each file ends in EXPERIMENTS, a tuple of what it defines; suites are in suites.py.
"""
