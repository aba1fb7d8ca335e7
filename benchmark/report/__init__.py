"""One HTML page that answers the benchmark's questions, with pictures and tables in it.

evidence    the runs, rows and answers that the page is made from, read once
pairs       experiments that differ in one respect, and what came of setting them side by side
answers     a question each: its sentences, its plots, its tables, or the command that would tell
overview    which network is best, for whom it fails, and what it costs
networks    one network by itself: by group of people, confusion matrices, learning curves
plots       the pictures: differences, rates, slopes, depths, costs, curves
svg         elements, scales and axes that they are drawn with
tables      rows of cells that sort, search and lead to MLflow
faces       thumbnails of the test faces that were read wrongly, where the page may hold them
page        everything put together and written

Numbers and words come from benchmark.results and are only arranged here. Nothing on the page
depends on the time or on another machine: equal runs give equal bytes, and a browser that opens it
asks no other address for anything.
"""
