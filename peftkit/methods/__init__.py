"""Built-in plugins of this group."""
