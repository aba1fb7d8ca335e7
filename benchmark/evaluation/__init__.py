"""One run's predictions, scored: metrics, intervals, subgroups, calibration.

Everything follows from predictions.csv. Comparing runs is for benchmark.comparison.
"""
