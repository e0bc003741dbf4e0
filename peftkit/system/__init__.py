"""The machine, the screen, signals, files and units: what knows nothing of models."""
