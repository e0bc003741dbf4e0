"""Measure a grid of models, methods and sizes beside its plan, a process for each cell."""
