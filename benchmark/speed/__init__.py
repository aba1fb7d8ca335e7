"""How fast this machine trains, against the loops that a user would write.

Rows measure one thing each, all loops in turns, in one process. What a loop computes is training's;
this package only reads clocks. Nothing here changes a number that a run stores.
"""
