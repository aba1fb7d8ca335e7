"""MLflow as a mirror of the runs' folders: nobody else knows it, and it is imported when used.

store     the store: opened under a lock, repaired, its errors as sentences; the UI's pages
mirror    one run's folder → one run of MLflow with its data sets and network, idempotently
searches  a search as a parent run, its trials nested beneath it
"""

from benchmark.tracking.mirror import MlflowMirror, import_records
from benchmark.tracking.searches import StudyMirror, TrialView, best_trial
from benchmark.tracking.store import landing_path, open_store, run_places, server_command, store_uri

__all__ = [
    "MlflowMirror", "StudyMirror", "TrialView", "best_trial", "import_records", "landing_path",
    "open_store", "run_places", "server_command", "store_uri",
]  # fmt: skip
