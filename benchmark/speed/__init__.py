"""Measured speed: training, beside the loops that a user would write."""
