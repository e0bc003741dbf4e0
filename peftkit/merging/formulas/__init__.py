"""Closed formulas: from one layer's adapter tensors to the change of its weight and bias.

Each module holds one family. A function takes a `Layer` and returns the changes of `weight` and
`bias`, or None where it has no formula for this case, which then goes through peft.
"""
