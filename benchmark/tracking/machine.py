"""How busy the machine is while a run trains, sampled by MLflow; runs under a minute have none."""

import logging
from typing import Any, Final

SAMPLE_SECONDS: Final = 10
SAMPLES_A_POINT: Final = 6
"""One point a minute: a night's run stays a few thousand rows in the store."""


class MachineWatch:
    """Watch the machine for one run at a time: of several at once, for the one that began first."""

    def __init__(self) -> None:
        self._monitor: Any = None
        self._run_id = ""

    def begin(self, run_id: str, uri: str) -> None:
        """Start watching, unless a run is watched already or psutil is not installed."""
        if self._monitor is not None:
            return
        try:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
        except ImportError:
            return
        # It would tell of its own start, end and trouble; the run's own tracking does that.
        logging.getLogger("mlflow.system_metrics").setLevel(logging.CRITICAL)
        self._monitor = SystemMetricsMonitor(  # type: ignore[no-untyped-call]
            run_id, SAMPLE_SECONDS, SAMPLES_A_POINT, resume_logging=True, tracking_uri=uri
        )
        self._run_id = run_id
        self._monitor.start()

    def end(self, run_id: str) -> None:
        """Stop watching, if it is this run that is watched."""
        if self._monitor is not None and self._run_id == run_id:
            self._monitor.finish()
            self._monitor = None
