"""Memory: what a run needed, measured (and, later, what it will need, planned)."""
