"""Ray: the same runs and trials as tasks of a cluster. Imported only with `--on`.

connection   a cluster that is reached, whose nodes have our versions and what a run asks for
worker       one run on a node: its faces and weights from Ray's object store, its folder as result
fleet        the driver: which run goes where, what comes back into the runs' folders
"""
