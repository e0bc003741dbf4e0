"""A run's directory: its paths, its status and its checkpoints."""
