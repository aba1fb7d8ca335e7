"""Numbers as people read them: tables in every format, figures, the report, model cards, notebooks.

Nothing is computed from predictions here that the packages below do not give.
"""
