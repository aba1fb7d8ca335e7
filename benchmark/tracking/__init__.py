"""MLflow as a mirror of the runs' folders: nobody else knows it, and it is imported when used.

store   the store: opened under a lock, repaired, its errors as sentences; the UI's pages
mirror  one run's folder → one run of MLflow with its data sets and network, idempotently; a
        search as a parent run, its trials nested beneath it
notes   a run in words, tags, parameters and numbers
"""
