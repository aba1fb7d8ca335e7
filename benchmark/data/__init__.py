"""Faces: from an archive or a folder to a packed, audited, split data set, and to batches.

Labels, duplicates and splits are decided here; what a network makes of faces is for the packages
above.
"""
