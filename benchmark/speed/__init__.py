"""How fast this machine trains, against the loops that a user would write.

Rows measure one thing each, all ways of doing it in turns, in one process. What a way computes is
training's; this room only reads clocks. Nothing here changes a number that a run stores.
"""
