"""What a run tells trackers beside the curves that transformers' own callbacks draw.

One file a tracker; `told` is what all of them are told, and `tracking` opens and closes them.
"""
