"""Optuna: from an experiment and a search space to its best recipe. Imported only when used.

study    what a search is; Optuna's storage, samplers and pruners
trials   the queue of a study's trials, shared by processes that may die at any moment
search   the loop that yields what happens, and the training of a trial
outcome  what a search leaves: table, page, recipe; a grid beside the study's numbers
"""
