"""A training method and a task for peftkit: learn which of two answers is the better one."""
