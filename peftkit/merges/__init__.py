"""The ways to combine several adapters into one."""
