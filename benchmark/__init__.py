"""facebench: leak-free comparison of networks that predict age group, gender and race from a face.

The public API, for notebooks (docs/quickstart.ipynb):

leaderboard   rank the runs of suites: a `Board`, as a pandas table, typed rows, Markdown or HTML
load_run      a finished run: a `FinishedRun` with metrics, predictions, figures, its network
predict       labels and probabilities of faces in pictures, as a pandas table

All errors are `benchmark.errors.BenchmarkError`. Everything else may change between versions.

Importing this package loads nothing heavy; torch comes in with benchmark.training and
benchmark.models, mlflow with benchmark.tracking, pandas with the names above.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmark.inference.predict import predict as predict
    from benchmark.reporting.notebook import Board as Board
    from benchmark.reporting.notebook import FinishedRun as FinishedRun
    from benchmark.reporting.notebook import leaderboard as leaderboard
    from benchmark.reporting.notebook import load_run as load_run

__version__ = "0.1.0"
__all__ = ["Board", "FinishedRun", "__version__", "leaderboard", "load_run", "predict"]


def __getattr__(name: str) -> Any:
    """Load what notebooks use when it is first asked for."""
    if name in __all__:
        module = "inference.predict" if name == "predict" else "reporting.notebook"
        return getattr(importlib.import_module(f"benchmark.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
