"""One run from its plan to `done.json`: folder, checkpoints, execution options.

The folder is the truth; MLflow mirrors it (benchmark.tracking).
"""
