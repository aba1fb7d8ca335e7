"""facebench: leak-free comparison of networks that read age group, gender and race from a face.

In a notebook: `from benchmark import leaderboard, load_run, predict` (docs/quickstart.ipynb).

Importing this package loads nothing heavy; torch comes in with benchmark.training and
benchmark.models, mlflow with benchmark.tracking, pandas with the names above.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from benchmark.inference.predict import predict as predict
    from benchmark.reporting.notebook import leaderboard as leaderboard
    from benchmark.reporting.notebook import load_run as load_run

__version__ = "0.1.0"
__all__ = ["__version__", "leaderboard", "load_run", "predict"]

_LAZY: Final = {
    "leaderboard": "benchmark.reporting.notebook",
    "load_run": "benchmark.reporting.notebook",
    "predict": "benchmark.inference.predict",
}
"""What is to be had from here, by the module that is imported when it is asked for."""


def __getattr__(name: str) -> Any:
    """Load what notebooks use when it is first asked for."""
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    """Name what notebooks use, loaded or not."""
    return sorted([*globals(), *__all__])
