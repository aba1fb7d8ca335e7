"""Optuna: from an experiment and a search space to its best recipe. Imported only when used.

study    what a search is, its storage, and the queue of its trials, shared by processes
search   the loop that yields what happens, the training of a trial, and what a search leaves:
         table, page, recipe; a grid beside the study's numbers
"""
