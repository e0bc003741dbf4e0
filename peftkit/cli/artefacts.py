"""Commands about what was trained: merge it, export it."""
