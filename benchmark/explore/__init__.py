"""Who is in a data set: counts, figures without a face, and one page that holds them all.

`numbers` counts, `figures` draws, `page` lays out and writes; nothing of it changes the data set.
"""
