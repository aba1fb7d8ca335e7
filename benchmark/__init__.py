"""facebench: leak-free comparison of networks that read age group, gender and race from a face.

Importing this package loads nothing heavy; torch comes in with benchmark.training and
benchmark.models, mlflow with benchmark.tracking.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmark.inference import predict as predict

__version__ = "0.1.0"


_LAZY = {"predict": "benchmark.inference"}
"""What is to be had from here, by the module that is imported when it is asked for."""


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
