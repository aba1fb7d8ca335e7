"""Optuna: from an experiment and a search space to its best recipe. Imported only when used.

study      what a search is, and what makes two searches the same
storage    where Optuna keeps it: opened, and its errors as sentences
samplers   who proposes the next point, and who gives a trial up
ledger     the trials of a study, shared by processes that may die at any moment
objective  what a trial does: the seam between a search and a training
search     the loop that yields what happens
telling    MLflow is told of every trial; nothing there ever stops a search
recipes    the best point as a definition, and where it is registered
pages      what a study shows: a table, and a page that Optuna draws
grids      the study's own grids: their faces, their table and their page
"""
