"""Many runs: which belong together, rows and leaderboards, paired statistics, two studies.

How they are laid out is for benchmark.reporting and the command line.
"""
