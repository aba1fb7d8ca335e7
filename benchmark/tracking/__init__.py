"""MLflow as a mirror of the runs' folders: the only room that knows it, imported only when used.

store      which store, opened under a lock, repaired after a move; its errors as sentences
mirror     one run's folder → one run of MLflow, idempotently
inputs     the faces that a run trained, selected and tested on, as data sets of MLflow
trained    a run's network as a model of MLflow: tensors and a definition, no pickled code
machine    how busy the machine is, on runs that take minutes
studies    a search as a parent run, its trials nested beneath it
places     where each run is, for links from elsewhere
page       what a stranger sees first: columns, order, the link to open
"""

from benchmark.tracking.mirror import MlflowMirror, import_records, mirror_again
from benchmark.tracking.page import landing_path, run_places, server_command
from benchmark.tracking.searches import Study, StudyMirror, Trial
from benchmark.tracking.store import open_store, store_uri

__all__ = [
    "MlflowMirror",
    "Study",
    "StudyMirror",
    "Trial",
    "import_records",
    "landing_path",
    "mirror_again",
    "open_store",
    "run_places",
    "server_command",
    "store_uri",
]
