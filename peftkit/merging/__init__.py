"""Merge an adapter into its base by streaming: read a tile, change it, round once, write it.

`peftkit.merge` is the verb; `peftkit.merging.adapter.open_adapter` gives an adapter's
change of every base tensor, row by row, to whoever needs deltas and not a model.
"""
