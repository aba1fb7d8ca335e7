"""facebench: leak-free comparison of networks that read age group, gender and race from a face.

Importing this package loads nothing heavy; torch comes in with benchmark.training and
benchmark.models, mlflow with benchmark.tracking.
"""

__version__ = "0.1.0"
